"""What a step needs of a GPU, by XLA's compiler for it: no GPU is needed to know.

Memory and kernels are the compiler's own. Times are a bound from below, kernel by kernel: each
takes as long as its products, its bytes or its random bits do at the card's best rate. Nothing
is tuned, since that takes the device: which library multiplies a given matrix is a guess.
Axis letters: B rows, T tokens.
"""

import collections
import time
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from dwa_jax import sharding, training
from dwa_jax.finetune.config import Config
from experiments.benchmarks.cards import CARDS, GIB, Card, holding
from experiments.benchmarks.configured import abstract_batch, configured_run
from experiments.benchmarks.program import COLLECTIVES, Kernel, read_program
from experiments.terminal import usage

# A small kernel's least time.
_LAUNCH = 2.5e-6
_HALF = ("bf16", "f16")


def load_config(path: str, changes: dict[str, Any] | None = None) -> Config:
    """Loads a configuration file.

    Args:
      path: of the file.
      changes: {key: value}.

    Raises:
      ValueError: there is no such file, key or value.
    """
    if not Path(path).is_file():
        raise ValueError(f"--config={path}: no such file")
    return Config.of(usage.load(Path(path)), **(changes or {}))


def measure_plan(
    config: str,
    gpu: str,
    tokens: int,
    changes: dict[str, Any],
    devices: int = 1,
) -> dict:
    """Compiles a configuration's step for a GPU and says what it needs.

    Args:
      config: path of the file.
      gpu: one of `cards.CARDS`.
      tokens: T.
      changes: of the configuration's keys.
      devices: of one machine, whose mesh the configuration says.

    Returns:
      See `plan_of`; of one device.

    Raises:
      ValueError: the configuration cannot be, or the compiler is not installed.
    """
    chosen = load_config(config, changes)
    card = CARDS[gpu]
    mesh = card.mesh(devices, chosen.mesh)
    run = configured_run(chosen, "gpu", mesh=mesh)
    parts = devices * chosen.microbatches
    rows = -(-chosen.batch_size // parts) * parts
    state = jax.tree.map(_placed, run.state, training.placements(run.state, mesh))
    spread = NamedSharding(mesh, PartitionSpec(sharding.AXES))
    batch = {name: _placed(leaf, spread) for name, leaf in abstract_batch(rows, tokens).items()}
    started = time.perf_counter()
    compiled = run.step.lower(state, batch).compile()
    seconds = time.perf_counter() - started
    found = plan_of(compiled.as_text(), compiled.memory_analysis(), card)
    where = {"config": Path(config).stem, "gpu": gpu, "rows": rows, "tokens": tokens}
    where["devices"] = f"{devices}, {chosen.mesh}" if devices > 1 else "1"
    return {**where, "changes": changes, **found, "compile_seconds": seconds}


def _placed(leaf, where):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)


def plan_of(text: str, memory: Any, card: Card) -> dict:
    """Says what a compiled program needs.

    Args:
      text: the program's.
      memory: its `memory_analysis()`.
      card: what it was compiled for.

    Returns:
      "memory_gib" in all, of which "state_gib" is there before and after and "scratch_gib" in
      between; "donated", whether all of the state is updated in place; "fits", the cards that
      hold it at JAX's default fraction; "products", {dtype: TFLOP}; "not_half", the shares of
      the largest others by where they come from; "fused_attention", calls; "kernels",
      "milliseconds", the bound; "by_kind", {kind: milliseconds}; "copies", the share of it that
      only moves numbers; "host", what the host has a part in; "exchanged_gib", what the device
      exchanges with others, "exchange_milliseconds", the least time of that.
    """
    program = read_program(text)
    given, left = memory.argument_size_in_bytes, memory.output_size_in_bytes
    reused, scratch = memory.alias_size_in_bytes, memory.temp_size_in_bytes
    total = given + left - reused + scratch
    products: dict[str, float] = collections.defaultdict(float)
    wide: dict[str, float] = collections.defaultdict(float)
    kinds: dict[str, float] = collections.defaultdict(float)
    exchanged = 0.0
    for kernel in program.kernels:
        if kernel.kind in COLLECTIVES:
            # A sum is scattered and gathered; of the others the larger side travels.
            sides = kernel.read, kernel.written
            exchanged += kernel.times * (sum(sides) if kernel.kind == "all-reduce" else max(sides))
            continue
        kinds[kernel.kind] += 1000 * kernel.times * least_seconds(kernel, card)
        if kernel.flops:
            products[kernel.dtype] += kernel.times * kernel.flops / 1e12
            if kernel.dtype not in _HALF:
                wide[kernel.source] += kernel.times * kernel.flops / 1e12
    time_of_all = sum(kinds.values())
    return {
        "memory_gib": total / GIB,
        "state_gib": given / GIB,
        "scratch_gib": scratch / GIB,
        # Scalars of the log are what is left.
        "donated": left - reused < 2**16,
        "fits": holding(total),
        "products": _sorted(products),
        "not_half": dict(list(_sorted(wide).items())[:5]),
        "fused_attention": sum(k.times for k in program.kernels if k.kind == "fused attention"),
        "kernels": sum(kernel.times for kernel in program.kernels),
        "milliseconds": time_of_all,
        "by_kind": _sorted(kinds),
        "copies": kinds["move"] / time_of_all if time_of_all else 0.0,
        "host": program.notes,
        "exchanged_gib": exchanged / GIB,
        "exchange_milliseconds": 1000 * exchanged / card.link,
    }


def _sorted(found):
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def least_seconds(kernel: Kernel, card: Card) -> float:
    """The least time of a kernel, once: of products, bytes and random bits, and of its start."""
    rate = card.half if kernel.dtype in _HALF else card.single
    return max(
        kernel.flops / rate,
        (kernel.read + kernel.written) / card.bandwidth,
        kernel.integers / card.whole,
        _LAUNCH,
    )


def title(found: dict) -> str:
    """Says what a plan is of."""
    devices = found.get("devices", "1")
    over = f", devices: {devices}" if devices != "1" else ""
    return f"{found['config']}, {found['rows']} x {found['tokens']} tokens{over}"


def words(found: dict) -> str:
    """Says a plan in a line of a table."""
    shares = ", ".join(f"{value:.1f} TFLOP {dtype}" for dtype, value in found["products"].items())
    fused = "fused attention" if found["fused_attention"] else "attention not fused"
    host = "; ".join(f"{what}: {times}" for what, times in found["host"].items())
    return "; ".join(
        [
            f"{found['memory_gib']:.1f} GiB ({found['state_gib']:.1f} of it the state)",
            f"at least {found['milliseconds']:.0f} ms, {found['copies']:.0%} of it copies",
            shares,
            fused,
            f"fits {', '.join(found['fits']) or 'none of the cards'}",
            *(
                [
                    f"exchanges {found['exchanged_gib']:.1f} GiB, at least "
                    f"{found['exchange_milliseconds']:.0f} ms"
                ]
                if found["exchanged_gib"]
                else []
            ),
            *([] if found["donated"] else ["state not updated in place"]),
            *([host] if host else []),
        ]
    )
