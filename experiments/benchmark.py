"""What a step costs: ratios between methods first, then milliseconds and memory.

python -m experiments.benchmark --suite=step
python -m experiments.benchmark --suite=full_size
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

from dwa_jax import backbones, heads, lora, losses, training, trunk, weighting
from experiments import shapes
from experiments.console import Console

_SUITE = flags.DEFINE_enum(
    "suite",
    "step",
    ["step", "full_size", "one_step"],
    "step: DWA beside constant weights. full_size: one step of each of the papers' models. "
    "one_step: one step of --shape, for full_size.",
)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Interleaved rounds of each timing.", lower_bound=1)
_SHAPE = flags.DEFINE_enum("shape", "roberta-large", list(shapes.names()), "For one_step.")
_OUTPUT = flags.DEFINE_string("output", "", "JSON file for the numbers.")

NUM_CLASSES = 5
# (row, weighting, gradient scope); the first is what the others are divided by.
METHODS = (
    ("constant", "constant", "trainable"),
    ("dwa representation", "dwa", "representation"),
    ("dwa trainable", "dwa", "trainable"),
)


def setup(shape: str, rank: int, method: str, scope: str):
    """Makes a state with random weights, and its train step.

    Args:
      shape: one of `shapes.names()`.
      rank: of LoRA; 0 trains everything.
      method: of weighting.
      scope: where the Gramian is taken.

    Returns:
      (state, step).
    """
    config = shapes.get(shape)
    module = backbones.build(config)
    params = backbones.init(jax.random.key(0), module)
    adapter = lora.init(jax.random.key(1), params, rank=rank) if rank else None
    theta, frozen = trunk.split_parameters(params, adapter)
    tasks = [
        training.Task("regression", 1, losses.mse_loss(), "score_mask"),
        training.Task("classification", NUM_CLASSES, losses.imbalance_loss(), "category_mask"),
    ]
    chosen = weighting.get(method, len(tasks))
    optimizers = training.make_optimizers(
        total_steps=1000, learning_rate=1e-5, head_learning_rate=1e-4
    )
    state = training.init_state(
        jax.random.key(2),
        theta,
        frozen,
        family=config.family,
        width=config.hidden_size,
        tasks=tasks,
        weighting=chosen,
        optimizers=optimizers,
        num_classes=NUM_CLASSES,
    )
    step = training.make_step(
        module,
        tasks,
        chosen,
        optimizers,
        num_classes=NUM_CLASSES,
        scope=scope,
        pooling=heads.default_pooling(config.family),
        lora_scale=adapter.scale if adapter else 1.0,
    )
    return state, step


def make_batch(shape: str, rows: int, tokens: int) -> dict[str, np.ndarray]:
    """Makes a batch of random tokens without padding."""
    rng = np.random.default_rng(0)
    vocab = shapes.get(shape).vocab_size
    return {
        "input_ids": rng.integers(3, vocab, (rows, tokens), dtype=np.int32),
        "attention_mask": np.ones((rows, tokens), np.int32),
        "score": rng.uniform(-1, 1, rows).astype(np.float32),
        "score_mask": np.ones(rows, np.float32),
        "category": rng.integers(0, NUM_CLASSES, rows, dtype=np.int32),
        "category_mask": np.ones(rows, np.float32),
    }


def compare(shape: str, rank: int, rows: int, tokens: int, rounds: int) -> dict:
    """Times every method of `METHODS` in interleaved rounds of one process.

    Returns:
      {"shape", ..., "methods": {row: {"ms", "spread_ms", "ratio", "compile_seconds"}}}.
      A ratio is the median over rounds of a method's time over the first one's.
    """
    batch = jax.device_put(make_batch(shape, rows, tokens))
    runs, compiled = {}, {}
    for row, method, scope in METHODS:
        state, step = setup(shape, rank, method, scope)
        started = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        compiled[row] = time.perf_counter() - started
        runs[row] = [state, step]
    times: dict[str, list[float]] = {row: [] for row in runs}
    for _ in range(rounds):
        for row, run in runs.items():
            started = time.perf_counter()
            run[0], _ = jax.block_until_ready(run[1](run[0], batch))
            times[row].append(1000 * (time.perf_counter() - started))
    first = METHODS[0][0]
    methods = {
        row: {
            "ms": statistics.median(values),
            "spread_ms": [min(values), max(values)],
            "ratio": statistics.median(
                value / base for value, base in zip(values, times[first], strict=True)
            ),
            "compile_seconds": compiled[row],
        }
        for row, values in times.items()
    }
    return {"shape": shape, "lora_rank": rank, "rows": rows, "tokens": tokens, "methods": methods}


def one_step(shape: str) -> dict:
    """Runs one DWA step at full size: LoRA of rank 128, 2 x 64 tokens.

    Returns:
      {"shape", "loss_regression", "seconds", "peak_gib"}.
    """
    started = time.perf_counter()
    state, step = setup(shape, 128, "dwa", "trainable")
    total = lora.count((state.theta, state.frozen))
    state, metrics = step(state, make_batch(shape, 2, 64))
    loss = float(metrics["loss_regression"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "shape": shape,
        "parameters": total,
        "loss_regression": loss,
        "seconds": time.perf_counter() - started,
        "peak_gib": peak,
    }


def _step_suite(console):
    results = []
    for shape, rank in (("roberta-small", 0), ("llama-small", 0), ("llama-small", 128)):
        result = compare(shape, rank, 8, 64, _ROUNDS.value)
        results.append(result)
        what = f"LoRA rank {rank}" if rank else "full"
        rows = {
            name: f"{values['ratio']:.2f} x   {values['ms']:.0f} ms "
            f"({values['spread_ms'][0]:.0f} to {values['spread_ms'][1]:.0f}), "
            f"compiled in {values['compile_seconds']:.1f} s"
            for name, values in result["methods"].items()
        }
        console.table(f"{shape}, {what}, 8 x 64 tokens", rows)
    return results


def _full_size_suite(console):
    results = []
    for shape in ("roberta-large", "qwen2-0.5b", "tinyllama-1.1b"):
        # A process each, so that one model's peak is not another's.
        command = [sys.executable, "-m", "experiments.benchmark", "--suite=one_step"]
        run = subprocess.run(
            [*command, f"--shape={shape}"], stdout=subprocess.PIPE, text=True, check=False
        )
        if run.returncode:
            sys.exit(f"{shape}: failed with status {run.returncode}")
        result = json.loads(run.stdout.splitlines()[-1])
        results.append(result)
        console.note(
            f"{shape}: {result['parameters']:,} parameters, one DWA step in "
            f"{result['seconds']:.0f} s with compilation, peak {result['peak_gib']:.1f} GiB"
        )
    return results


def main(argv: list[str]) -> None:
    """Runs a suite and prints its table."""
    if len(argv) > 1:
        app.usage(shorthelp=True, detailed_error=f"unexpected argument {argv[1]!r}", exitcode=2)
    console = Console()
    if _SUITE.value == "one_step":
        print(json.dumps(one_step(_SHAPE.value)))
        return
    if _OUTPUT.value:
        Path(_OUTPUT.value).touch()  # an unwritable path shows before hours of timing
    suite = {"step": _step_suite, "full_size": _full_size_suite}[_SUITE.value]
    results = suite(console)
    if _OUTPUT.value:
        Path(_OUTPUT.value).write_text(json.dumps(results, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    app.run(main)
