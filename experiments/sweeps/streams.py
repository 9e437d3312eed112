"""Files made here from one of scored texts: streams that drift, and rows with their group."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dwa_jax import data
from dwa_jax.atomic_files import replacing
from dwa_jax.finetune import own_files
from dwa_jax.regular_files import check_regular

_SPLITS = ("train", "validation", "test")


def write(
    source: Path,
    folder: Path,
    seeds: Iterable[int],
    *,
    max_rows: int,
    fractions: tuple[float, float, float] = (0.5, 0.1, 0.4),
    noise: float = 0.3,
) -> None:
    """Writes FOLDER/SEED/{train,validation,test}.csv, the training rows as a stream.

    The stream is the training split in the order of score + noise * N(0, 1): it begins
    with mostly negative texts and ends with mostly positive ones. Validation and test
    keep the balance of the source. Streams that are there already stay.

    Args:
      source: CSV with columns text and score.
      folder: of the streams.
      seeds: one stream each; a seed settles split and order.
      max_rows: of the source, drawn by the seed.
      fractions: train, validation and test.
      noise: standard deviation of the disorder, in units of the score.

    Raises:
      ValueError: the source cannot be used, or a file that this did not write is in the way.
      OSError: something cannot be read or written.
    """
    rows, _ = data.read([str(source)])
    for seed in seeds:
        place = folder / str(seed)
        if all(check_regular(place / f"{name}.csv") for name in _SPLITS):
            continue
        place.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(seed)
        drawn = rows.take(np.sort(generator.permutation(len(rows))[:max_rows]))
        parts = data.split(drawn, fractions=fractions, seed=seed)
        train = parts["train"]
        disorder = generator.normal(size=len(train))
        parts["train"] = train.take(np.argsort(train.scores + noise * disorder))
        with own_files.placing(place) as stage:
            for name, part in parts.items():
                with (stage / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                    writer = csv.writer(file, lineterminator="\n")
                    writer.writerow(["text", "score"])
                    writer.writerows(zip(part.texts, part.scores.tolist(), strict=True))


def write_groups(source: Path, folder: Path, column: str) -> None:
    """Writes FOLDER/NAME.csv: text, score and group, what rows of one origin have in common.

    Args:
      source: CSV with columns text and score, and one of ids GROUP_NUMBER.
      folder: where to; a file that is there already stays.
      column: the ids.

    Raises:
      ValueError: the file has no such column.
    """
    target = folder / source.name
    if target.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or column not in rows[0]:
        raise ValueError(f"{source} has no column {column!r}")
    with replacing(target) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "score", "group"])
        for row in rows:
            writer.writerow([row["text"], row["score"], row[column].rpartition("_")[0]])
