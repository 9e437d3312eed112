"""What each suite of `experiments.benchmark` measures."""

import contextlib
import resource
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.benchmarks import accounts, alone, cost, timing
from experiments.benchmarks.ours import METHODS, Runner, make_batch, make_model, peer_state


class Row(NamedTuple):
    """A model and a batch.

    Attributes:
      shape: one of `shapes.names()`.
      rank: of LoRA; 0 trains everything.
      rows: B.
      tokens: T.
      dtype: what the trunk computes in.
    """

    shape: str
    rank: int
    rows: int
    tokens: int
    dtype: str = "float32"

    @property
    def title(self) -> str:
        """What a reader calls it."""
        what = f"LoRA rank {self.rank}" if self.rank else "full"
        half = "" if self.dtype == "float32" else f", {self.dtype}"
        return f"{self.shape}, {what}, {self.rows} x {self.tokens} tokens{half}"


SMALL = ("roberta-small", "qwen2-small", "llama-small")


def step_rows(gpu: bool) -> list[Row]:
    """Returns the rows of the suite `step`: small on a CPU, the papers' models on a GPU."""
    if gpu:
        return [
            Row(shape, rank, 8, tokens, "bfloat16")
            for shape in ("roberta-large", "qwen2-0.5b")
            for rank in (0, 128)
            for tokens in (64, 512)
        ]
    # Short texts, where records save most, and long ones, where they save least.
    sizes = [("minilm", 8, 16), ("minilm", 8, 24), ("minilm", 8, 64)]
    sizes += [("roberta-wide", 8, 16), ("roberta-wide", 8, 64), ("roberta-wide", 4, 512)]
    small = [Row(shape, rank, 8, 64) for rank in (0, 128) for shape in SMALL]
    return [*small, *(Row(shape, 0, rows, tokens) for shape, rows, tokens in sizes)]


def lora_rows(gpu: bool) -> list[Row]:
    """Returns the rows of the suite `lora`: ranks and lengths of one model."""
    shape, rows, dtype = ("qwen2-0.5b", 8, "bfloat16") if gpu else ("llama-small", 4, "float32")
    return [
        Row(shape, rank, rows, tokens, dtype) for tokens in (32, 128, 512) for rank in (8, 128, 512)
    ]


def compare_contenders(
    row: Row,
    methods: Iterable[str],
    peers: Iterable[tuple[str, str]],
    rounds: int,
    rate: float,
    note: Callable[[str], None] = lambda text: None,
    *,
    alone: bool = False,
) -> dict:
    """Times our methods and PyTorch's on the same weights and batch.

    Args:
      row: model and batch.
      methods: names in `METHODS`; the first is what the others are divided by.
      peers: (name in `peers.METHODS`, one of `peers.MODES`).
      rounds: of timing.
      rate: of the device's matrix products, for the utilisation.
      note: told what did not work.
      alone: each contender in a process of its own, and rounds in which others used 5 % of the
        CPU thrown away; as many at a time as memory holds, the first among them each time.

    Returns:
      {"row", "title", "contenders": {name: times}, "thrown_away", "counted_busy"}; see
      `timing.interleave` and `accounts.Neighbours`. Ours have "tokens_per_second", "flops" and
      "utilisation" as well.
    """
    wanted = {name: (name, "ours") for name in methods}
    for name, mode in peers:
        wanted[f"PyTorch {name}" + ("" if mode == "eager" else f", {mode}")] = (name, mode)
    compare = _in_processes if alone else _in_this_process
    found = compare(row, wanted, rounds, note)
    for name, values in found["contenders"].items():
        values["tokens_per_second"] = row.rows * row.tokens / (values["ms"] / 1000)
        if name in METHODS:
            model = make_model(row.shape, row.rank, jnp.dtype(row.dtype), evaluate=jax.eval_shape)
            values["flops"] = cost.step_flops(model, METHODS[name], row.rows, row.tokens)
            values["utilisation"] = values["flops"] / (values["ms"] / 1000) / rate
    return {"row": row._asdict(), "title": row.title, **found}


def _in_this_process(row, wanted, rounds, note):
    model = make_model(row.shape, row.rank, jnp.dtype(row.dtype))
    batch = make_batch(row.shape, row.rows, row.tokens)
    contenders = {}
    states: dict[bool, object] = {}
    for label, (name, mode) in wanted.items():
        if mode == "ours":
            contenders[label] = timing.prepare_contender(Runner(model, METHODS[name], batch).run)
            continue
        from experiments.benchmarks import peers as torch_peers

        constant = name == "constant"
        if constant not in states:
            states[constant] = peer_state(model, name)
        try:
            peer = torch_peers.Peer(model, states[constant], batch, name, mode)
            contenders[label] = timing.prepare_contender(peer.run)
        except Exception as error:  # whatever a compiler may raise
            note(f"{label}: not measured, {type(error).__name__}: {str(error).splitlines()[0]}")
    return {"contenders": timing.interleave(contenders, rounds)}


def _in_processes(row, wanted, rounds, note):
    request = {**row._asdict()}
    first, *others = wanted
    found: dict = {"contenders": {}, "thrown_away": 0, "counted_busy": 0}
    with contextlib.ExitStack() as stack:

        def start(label, stack):
            name, mode = wanted[label]
            process = alone.Process(**request, method=name, mode=mode)
            stack.callback(process.end)
            return process

        base = start(first, stack)
        for group in _that_fit(row, others) or [[]]:
            with contextlib.ExitStack() as of_group:
                processes = {first: base}
                for label in group:
                    try:
                        processes[label] = start(label, of_group)
                    except ValueError as error:
                        note(f"{label}: not measured, {error}")
                judge = accounts.Neighbours(rounds, [one.pid for one in processes.values()])
                contenders = {label: one.contender for label, one in processes.items()}
                times = timing.interleave(contenders, rounds, neighbours=judge)
            found["contenders"] = (
                times
                | found["contenders"]
                | {label: times[label] for label in processes if label != first}
            )
            found["thrown_away"] += judge.thrown_away
            found["counted_busy"] += judge.counted_busy
    found["contenders"] = {
        label: found["contenders"][label] for label in wanted if label in found["contenders"]
    }
    return found


def _that_fit(row, labels):
    """Divides contenders into groups that memory holds beside the first."""
    free = accounts.free_bytes()
    model = make_model(row.shape, row.rank, jnp.dtype(row.dtype), evaluate=jax.eval_shape)
    weights = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(model.params))
    # Parameters, gradients of two tasks, both moments, and what a step needs beside them.
    size = 6 * weights + 3 * 2**29
    fit = len(labels) if free is None else max(1, int(0.8 * free / size) - 1)
    return [labels[i : i + fit] for i in range(0, len(labels), fit)]


def peak_gib() -> float:
    """Returns this process's peak resident memory, or the GPU's peak."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
