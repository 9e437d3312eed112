"""What a run would work on: rows, classes, token lengths, padding. Nothing is written.

Of a file that it has not been told about it guesses what it holds, shows three rows as it
understands them, and prints the whole command that trains on it.
"""

import os
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from dwa_jax.data import cells
from dwa_jax.data.guess import guess
from dwa_jax.finetune import corpus as corpora
from dwa_jax.finetune import loop, run
from dwa_jax.finetune.config import Config, changed
from dwa_jax.finetune.corpus import IN_MEMORY, Corpus, counts, divide, read_rows
from experiments.terminal.console import Terminal

_BINS = 8
_BAR = 40
_SHOWN_ROWS = 3
# What the guess may fill in.
_GUESSED = (
    *(
        "text_column",
        "score_column",
        "category_column",
        "category_names",
        "labels",
        "tasks",
        "monitor",
    ),
    *("score_range", "num_classes", "delimiter", "encoding", "columns", "decimal_comma"),
    *("percent", "split_column", "group_column", "time_column", "on_bad_row"),
)


def preview(config: Config, console: Terminal, arguments: Sequence[str] = ()) -> Config:
    """Prints what a configuration's data come to.

    Args:
      config: the whole configuration.
      console: where to print.
      arguments: the command line that it came from, for the command that is printed.

    Returns:
      The configuration with what was guessed filled in.

    Raises:
      ValueError: something of the user's is not usable; one line says what.
    """
    keys: dict[str, Any] = {}
    if config.train and config.train != IN_MEMORY:
        keys = _guess(config, arguments, console)
        config = Config.of(config, **keys)
    run.check_choices(config)
    uncut = read_rows(config)
    all_folds = config
    if config.folds and not config.fold:
        config = Config.of(config, fold=1)
    corpus = divide(config, uncut)
    if config.train:
        console.table("rows as understood", as_understood(corpus, config))
        console.note("to train: " + command_of(arguments, keys))
    # All that the run would do before its first step, so that what it refuses is refused here.
    _, batches, _, notes = run.prepare(config, corpus)
    for note in [*corpus.notes, *notes]:
        console.note(f"note: {note}")
    rows: dict[str, str] = {}
    folds: dict[str, str] = {}
    for fold in range(2, all_folds.folds + 1) if config != all_folds else ():
        one = Config.of(all_folds, fold=fold)
        other = divide(one, uncut)  # what a later fold would refuse is refused here
        loop.check_monitor(one, other)
        sizes = [f"{split} {len(other.rows[split])}" for split in ("train", "validation", "test")]
        folds[f"fold {fold}"] = ", ".join(sizes)
    for split, found in counts(corpus, config.num_classes).items():
        rows[split] = f"{found['count']} rows; by class " + ", ".join(map(str, found["by_class"]))
        if missing := found["count"] - sum(found["by_class"]):
            rows[split] += f"; {missing} without one"
    if corpus.thresholds is not None:
        rows["thresholds"] = ", ".join(f"{value:+.3f}" for value in corpus.thresholds)
    console.table("rows of fold 1" if folds else "rows", rows)
    if folds:
        console.table("rows of the others", folds)
    train = batches["train"]
    console.table("tokens of a training text", length_histogram(train.lengths))
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
    return all_folds


def _guess(config, arguments, console):
    # Keys that differ from their defaults or are written on the command line are as they are.
    said = {key for key in changed(config) if key in _GUESSED}
    for argument in arguments:
        key = argument.removeprefix("--config.").partition("=")[0]
        if argument.startswith("--config.") and key in _GUESSED:
            said.add(key)
    given = {key: getattr(config, key) for key in said}
    if config.label_with:
        given.setdefault("score_column", config.score_column)  # which may not be there
    found = guess(corpora.expand_names(config.train, "train")[0], given)
    for reason in found.reasons:
        console.note(f"note: guessed: {reason}")
    return {key: value for key, value in found.keys.items() if key not in said}


def command_of(arguments: Sequence[str], keys: dict[str, Any]) -> str:
    """Returns the command that trains with what was guessed.

    Args:
      arguments: the dry run's.
      keys: configuration key -> value.
    """
    kept = [a for a in arguments if a.partition("=")[0].lstrip("-") != "dry_run"]
    added = [f"--config.{key}={value}" for key, value in keys.items()]
    return shlex.join(["python", "-m", "experiments.main", *kept, *added])


def as_understood(corpus: Corpus, config: Config) -> dict[str, str]:
    """Returns the first rows: file and row -> text and labels, in the file's range and ours.

    Args:
      corpus: of the run.
      config: its configuration.
    """
    first = []
    for split, rows in corpus.rows.items():
        first += [(*where, split, i) for i, where in enumerate(rows.origin)]
    told = {}
    for file, number, split, i in sorted(first, key=lambda row: row[:2])[:_SHOWN_ROWS]:
        rows = corpus.rows[split]
        parts = [cells.quoted(rows.texts[i], 70)]
        score = rows.scores[i]
        if not np.isnan(score):
            parts.append(f"score {score:g}")
            if config.score_range:
                parts[-1] += f" ({cells.restore(score, config.score_range):g} in the file)"
        category = corpus.categories[split][i]
        if category >= 0:
            name = config.category_names[category] if config.category_names else ""
            parts.append(f"category {category} {name}".strip())
        told[f"{os.path.basename(file)}, row {number}"] = ", ".join(parts)
    return told


def length_histogram(lengths: np.ndarray) -> dict[str, str]:
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
