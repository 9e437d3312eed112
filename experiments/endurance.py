"""Thousands of steps of a tiny model on the demo's headlines: bounds, finiteness, memory.

python -m experiments.endurance [--preset=paper|stable] [--mode=bounded|literal] [--steps=20000]
"""

import json
import os
from pathlib import Path

from dwa_jax.presets import PRESETS
from experiments.terminal import command


def parse():
    """Parses the command line; a mistake ends the program with one line and status 2."""
    parser = command.Parser(prog="python -m experiments.endurance", description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000, help="to train")
    parser.add_argument("--preset", choices=list(PRESETS), default="paper")
    parser.add_argument(
        "--mode",
        choices=["bounded", "frozen", "prior", "literal"],
        default="",
        help="of the loss, if not the preset's",
    )
    parser.add_argument("--output", default="", help="JSON file for the numbers")
    parser.add_argument("--overwrite", action="store_true", help="replaces one that is there")
    parser.add_compilation_cache()
    options = parser.parse_args()
    if options.steps < 20:
        raise ValueError(f"--steps={options.steps} must be at least 20")
    return options


if __name__ == "__main__":
    command.check_first(parse)

import jax
import numpy as np

from configs import demo
from dwa_jax import compilation_cache, sharding
from dwa_jax.atomic_files import check_file, whole_file
from dwa_jax.finetune.config import Config, Scratch
from dwa_jax.finetune.corpus import read_corpus
from dwa_jax.finetune.model import load_model
from dwa_jax.finetune.setup import make_batches, make_setup
from experiments.terminal.console import Terminal

# Steps between two looks at the device; what a program keeps in between is bounded by it.
_EVERY = 200
# Upper bounds of alpha and beta in every mode but "literal".
_HIGHEST = 2.0


def endure(preset: str, mode: str, steps: int) -> dict:
    """Trains a RoBERTa of 2 layers of 32, 8 texts of 16 tokens a step, and watches.

    Args:
      preset: one of `presets.PRESETS`.
      mode: of the imbalance loss; "" for the preset's.
      steps: to train.

    Returns:
      {"ranges": {metric: [lowest, highest]}, "violations": sentences, "skipped": updates
      left out, "memory_growth": resident memory at the end over that after a tenth of the
      steps, less 1, "losses": [first tenth's mean, last tenth's mean] of the regression}.
    """
    shape = Scratch(width=32, layers=2, heads=2, feed_forward=64)
    loss = {"classification_loss": f"imbalance(mode={mode!r})"} if mode else {}
    config = Config.of(
        demo.get_config(),
        preset=preset,
        batch_size=8,
        max_length=16,
        max_buckets=1,
        scratch=shape,
        **loss,
    )
    corpus = read_corpus(config)
    model_key, state_key = jax.random.split(jax.random.key(config.seed))
    model = load_model(config, corpus, model_key)
    batches, _ = make_batches(config, corpus, model)
    per_epoch = len(batches["train"])
    config = Config.of(config, epochs=-(-steps // per_epoch))
    run = make_setup(config, corpus, model, per_epoch, state_key)
    state, run.state = run.state, None
    lowest: dict[str, float] = {}
    highest: dict[str, float] = {}
    pending: list[dict] = []
    losses, memory = [], []
    for step in range(1, steps + 1):
        if (step - 1) % per_epoch == 0:
            stream = batches["train"].epoch((step - 1) // per_epoch)
        batch = next(stream)
        del batch["row"]
        state, values = run.step(state, sharding.shard_rows(batch, run.mesh))
        sharding.keep_up(values, run.mesh)
        pending.append(values)
        if len(pending) == _EVERY or step == steps:
            for values in jax.device_get(pending):
                losses.append(float(values["loss_regression"]))
                for name, value in values.items():
                    # A NaN stays: neither `min` nor `max` lets go of it.
                    lowest[name] = float(np.minimum(lowest.get(name, value), value))
                    highest[name] = float(np.maximum(highest.get(name, value), value))
            pending.clear()
            memory.append((step, _resident_bytes()))
    settled = [size for step, size in memory if step > steps / 10]
    ranges = {name: [lowest[name], highest[name]] for name in lowest}
    tenth = max(steps // 10, 1)
    return {
        "preset": preset,
        "mode": mode or "the preset's",
        "steps": steps,
        "ranges": ranges,
        "violations": violations(ranges, PRESETS[preset]["weighting"].get("floor", 0.0)),
        "skipped": int(state.guard.skipped),
        "memory_growth": settled[-1] / settled[0] - 1,
        "losses": [float(np.mean(losses[:tenth])), float(np.mean(losses[-tenth:]))],
    }


def violations(ranges: dict[str, list[float]], floor: float) -> list[str]:
    """Returns a sentence for every metric that was not finite or left its bounds.

    Args:
      ranges: metric -> [lowest, highest] over a run.
      floor: the smallest weight w.
    """
    slack = 1e-6
    bounds = {"alpha": (0.0, _HIGHEST), "beta": (0.0, _HIGHEST), "skipped": (0.0, 0.0)}
    for name in ranges:
        if name.startswith("lambda_"):
            bounds[name] = (0.0, 1.0)
        elif name.startswith("weight_"):
            bounds[name] = (floor, 1.0 - floor)
        elif name.startswith(("loss_", "gradient_norm")):
            bounds[name] = (0.0, float("inf"))
    found = []
    for name, (low, high) in ranges.items():
        least, most = bounds.get(name, (-float("inf"), float("inf")))
        if not np.isfinite([low, high]).all():
            found.append(f"{name} was not finite")
        elif low < least - slack or high > most + slack:
            found.append(f"{name} in [{low:.4g}, {high:.4g}], outside [{least:g}, {most:g}]")
    return found


def _resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Runs and prints; the status is 1 where something left its bounds or memory grew."""
    options = parse()
    compilation_cache.enable(options.compilation_cache)
    output = Path(os.path.expanduser(options.output)) if options.output else None
    if output:  # before minutes of steps
        check_file(output, overwrite=options.overwrite)
    console = Terminal()
    result = endure(options.preset, options.mode, options.steps)
    rows: dict[str, object] = {
        name: f"{low:.4g} to {high:.4g}" for name, (low, high) in result["ranges"].items()
    }
    first, last = result["losses"]
    rows["loss_regression, mean"] = f"{first:.4g} in the first tenth, {last:.4g} in the last"
    rows["updates left out"] = result["skipped"]
    rows["memory"] = f"{result['memory_growth']:+.2%} after the first tenth"
    console.table(f"{result['preset']}, mode {result['mode']}, {result['steps']} steps", rows)
    for sentence in result["violations"]:
        console.note(f"left its bounds: {sentence}")
    if output:
        with whole_file(output, overwrite=options.overwrite) as partial:
            partial.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    if result["violations"] or result["memory_growth"] > 0.02:
        raise SystemExit(1)


if __name__ == "__main__":
    command.run(main)
