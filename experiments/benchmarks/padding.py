"""What padding costs: real texts in buckets, beside all of them padded to one length."""

from collections import Counter

import jax
import numpy as np

from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import read_corpus
from dwa_jax.finetune.model import load_model
from dwa_jax.finetune.setup import make_batches, make_setup
from experiments.benchmarks import timing

PADDED_TO = 512


def measure_padding(config: Config, rounds: int) -> dict:
    """Times a train step at every bucket's length and at `PADDED_TO`, for a run's own data.

    Args:
      config: a whole configuration; its batches are those of its training split.
      rounds: of timing.

    Returns:
      {"buckets": {length: steps an epoch}, "real_tokens", "computed_tokens", "fraction" of
      them that is real, "epoch_seconds", "padded_seconds", "ratio" of the two, "texts",
      "longest" tokens, "mean" tokens}.
    """
    corpus = read_corpus(config)
    model = load_model(config, corpus, jax.random.key(0))
    batches = make_batches(config, corpus, model)[0]["train"]
    real, computed = batches.token_counts(0)
    steps = Counter(batch["input_ids"].shape[1] for batch in batches.epoch(0))
    one = next(batches.epoch(0))
    longest = min(PADDED_TO, model.module.config.max_positions)
    run = make_setup(config, corpus, model, len(batches), jax.random.key(1))
    contenders = {}
    for length in [longest, *sorted(steps)]:
        stepper = _Stepper(run, _stretched(one, length, batches.pad_id))
        contenders[length] = timing.prepare_contender(stepper)
    times = timing.interleave(contenders, rounds)
    epoch = sum(times[length]["ms"] * count for length, count in steps.items()) / 1000
    padded = times[longest]["ms"] * len(batches) / 1000
    lengths = batches.lengths
    return {
        "texts": len(lengths),
        "mean": float(lengths.mean()),
        "longest": int(lengths.max()),
        "buckets": dict(sorted(steps.items())),
        "real_tokens": real,
        "computed_tokens": computed,
        "fraction": real / computed,
        "padded_to": longest,
        "epoch_seconds": epoch,
        "padded_seconds": padded,
        "ratio": epoch / padded,
    }


def _stretched(batch, length, pad_id):
    # What a step costs does not depend on which of its tokens are real.
    batch = {name: value for name, value in batch.items() if name != "row"}
    for name, fill in (("input_ids", pad_id), ("attention_mask", 0)):
        rows, old = batch[name].shape
        wide = np.full((rows, length), fill, batch[name].dtype)
        wide[:, : min(old, length)] = batch[name][:, :length]
        batch[name] = wide
    return batch


class _Stepper:
    # All lengths step the same state on, one after the other.
    def __init__(self, run, batch):
        self.run, self.batch = run, batch

    def __call__(self):
        self.run.state, _ = self.run.step(self.run.state, self.batch)
        jax.block_until_ready(self.run.state)
