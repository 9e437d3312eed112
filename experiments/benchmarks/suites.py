"""What each suite of `experiments.benchmark` measures."""

import resource
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.benchmarks import cost, timing
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
    peers: Iterable[tuple[str, bool]],
    rounds: int,
    rate: float,
    note: Callable[[str], None] = lambda text: None,
) -> dict:
    """Times our methods and PyTorch's on the same weights and batch.

    Args:
      row: model and batch.
      methods: names in `METHODS`; the first is what the others are divided by.
      peers: (name in `peers.METHODS`, whether compiled).
      rounds: of timing.
      rate: of the device's matrix products, for the utilisation.
      note: told what did not work.

    Returns:
      {"row", "title", "contenders": {name: times}}; see `timing.interleave`. Ours have
      "tokens_per_second", "flops" and "utilisation" as well.
    """
    model = make_model(row.shape, row.rank, jnp.dtype(row.dtype))
    batch = make_batch(row.shape, row.rows, row.tokens)
    contenders = {}
    for name in methods:
        runner = Runner(model, METHODS[name], batch)
        contenders[name] = timing.prepare_contender(runner.run)
    states: dict[bool, object] = {}
    for name, compiled in peers:
        from experiments.benchmarks import peers as torch_peers

        constant = name == "constant"
        if constant not in states:
            states[constant] = peer_state(model, name)
        label = f"PyTorch {name}" + (", compiled" if compiled else "")
        try:
            peer = torch_peers.Peer(model, states[constant], batch, name, compiled=compiled)
            contenders[label] = timing.prepare_contender(peer.run)
        except Exception as error:  # whatever a compiler may raise
            note(f"{label}: not measured, {type(error).__name__}: {str(error).splitlines()[0]}")
    times = timing.interleave(contenders, rounds)
    for name, values in times.items():
        values["tokens_per_second"] = row.rows * row.tokens / (values["ms"] / 1000)
        if name in METHODS:
            values["flops"] = cost.step_flops(model, METHODS[name], row.rows, row.tokens)
            values["utilisation"] = values["flops"] / (values["ms"] / 1000) / rate
    return {"row": row._asdict(), "title": row.title, "contenders": times}


def peak_gib() -> float:
    """Returns this process's peak resident memory, or the GPU's peak."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
