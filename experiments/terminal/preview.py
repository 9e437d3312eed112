"""What a run would work on: rows, classes, token lengths, padding. Nothing is written."""

import jax
import numpy as np

from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import counts, read_corpus
from dwa_jax.finetune.model import load_model, only_here
from dwa_jax.finetune.setup import make_batches
from experiments.terminal.console import Terminal

_BINS = 8
_BAR = 40


def preview(config: Config, console: Terminal) -> None:
    """Prints what a configuration's data come to.

    Args:
      config: the whole configuration.
      console: where to print.

    Raises:
      ValueError: something of the user's is not usable; one line says what.
    """
    corpus = read_corpus(config)
    # The key that a run would take, so that a trunk from scratch has its tokenizer.
    model = load_model(config, corpus, jax.random.split(jax.random.key(config.seed))[0])
    batches, notes = make_batches(config, corpus, model)
    for note in [*corpus.notes, *notes, *only_here(model)]:
        console.note(f"note: {note}")
    rows = {}
    for split, found in counts(corpus, config.num_classes).items():
        rows[split] = f"{found['count']} rows; by class " + ", ".join(map(str, found["by_class"]))
        if missing := found["count"] - sum(found["by_class"]):
            rows[split] += f"; {missing} without one"
    if corpus.thresholds is not None:
        rows["thresholds"] = ", ".join(f"{value:+.3f}" for value in corpus.thresholds)
    console.table("rows", rows)
    train = batches["train"]
    console.table("tokens of a training text", histogram(train.lengths))
    real, computed = train.token_counts(0)
    steps = len(train)
    console.table(
        "an epoch",
        {
            "steps": f"{steps} of {config.batch_size} rows; {steps * config.epochs} in all",
            "shapes": ", ".join(f"{rows} x {tokens}" for rows, tokens in train.shapes),
            "tokens": f"{real:,} real of {computed:,} computed: {1 - real / computed:.0%} padding",
        },
    )


def histogram(lengths: np.ndarray) -> dict[str, str]:
    """Returns rows of a histogram for a terminal: range of lengths -> bar and count.

    Args:
      lengths: (N,) tokens a text.
    """
    edges = np.unique(np.linspace(lengths.min(), lengths.max() + 1, _BINS + 1).round().astype(int))
    counts, _ = np.histogram(lengths, edges)
    rows = {}
    for low, high, count in zip(edges[:-1], edges[1:] - 1, counts, strict=True):
        bar = "#" * round(_BAR * count / counts.max())
        rows[f"{low} to {high}" if high > low else f"{low}"] = f"{bar} {count}".strip()
    middle, most = np.percentile(lengths, (50, 95))
    rows["median, 95 %, longest"] = f"{middle:.0f}, {most:.0f}, {lengths.max()}"
    return rows
