"""Scored texts: files and data sets -> Rows, with every bad cell named by file and row.

A label may be missing (an empty cell, a JSON null or an absent key), a row's
text may not, and a row must carry at least one label of those asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dwa_jax.data import cells, tables
from dwa_jax.data.rows import BadRow, DataError, Rows

_SHOWN_BAD_ROWS = 5


class LeftOut(NamedTuple):
    """A bad row that was skipped; as a string, one line that says so.

    Args:
        file: the file as it was given to `read`.
        row: its row number there (see `tables.reader`).
        problem: what is wrong with it.
    """

    file: str
    row: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}: {self.problem}"


def read(
    paths: str | Path | Sequence[str | Path],
    *,
    text_column: str = "text",
    score_column: str | None = "score",
    category_column: str | None = None,
    category_names: Sequence[str] | None = None,
    num_classes: int | None = None,
    score_range: tuple[float, float] | None = None,
    on_bad_row: str = "error",
    unscored: bool = False,
) -> tuple[Rows, list[LeftOut]]:
    """Reads scored texts from one or several files.

    Args:
        paths: one or several of: a path ending in .csv, .jsonl or .parquet, the first two
            also compressed (.csv.gz, .bz2, .xz, .zst); "hub:NAME", "hub:NAME:SPLIT" or
            "hub:NAME:CONFIG:SPLIT" for a data set of the Hugging Face hub (split "train"),
            where NAME may be a folder too, as `datasets` writes and reads them.
        text_column: the column that holds the text.
        score_column: the column that holds the score; None where there are no scores.
        category_column: the column that holds the category; None where there are no
            categories. With both None the texts are read without labels.
        category_names: K names; categories are then these names instead of integers.
        num_classes: K; an integer category must be below it. None where any will do.
        score_range: (lowest, highest) score of the files, rescaled linearly to [-1, 1];
            None where the scores are in [-1, 1] already.
        on_bad_row: "error" raises one error for all bad rows, "skip" leaves them out.
        unscored: whether a row may do without any label, and a file without the score column.

    Returns:
        The rows in the order of the files, and each row that was skipped.

    Raises:
        DataError: a file cannot be read or holds no usable row, a column is missing, or
            (unless skipped) a row is bad; it names the file and the row.
        ValueError: an option is not one of those above.
    """
    if on_bad_row not in ("error", "skip"):
        raise ValueError(f"on_bad_row is 'error' or 'skip', got {on_bad_row!r}")
    if category_names is not None and category_column is None:
        raise ValueError("category_names needs a category_column")
    if category_names is not None and len(set(category_names)) != len(category_names):
        raise ValueError(f"category_names must differ from each other, got {list(category_names)}")
    score_range = cells.check_range(score_range)
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    if not paths:
        raise DataError("no files given: name at least one .csv, .jsonl or .parquet file")

    labels = [c for c in (score_column, category_column) if c is not None]
    if len({text_column, *labels}) != len(labels) + 1:
        columns = [text_column, *labels]
        raise ValueError(f"text, score and category must be different columns, got {columns}")
    optional = [score_column] if unscored and score_column is not None else []
    wanted = tables.Wanted(text_column, labels, optional)
    texts: list[str] = []
    scores: list[float] = []
    categories: list[int] = []
    origin: list[tuple[str, int]] = []
    bad: list[LeftOut] = []

    def take(row):
        if isinstance(row, BadRow):
            raise cells.BadCell(row.problem)
        named: dict[str | None, object] = dict(zip(wanted.columns, row, strict=True))
        text = cells.text(named[text_column])
        score = cells.score(named.get(score_column), score_range)
        category = cells.category(named.get(category_column), category_names, num_classes)
        if labels and score is None and category is None and not unscored:
            raise cells.BadCell(f"no label: empty {' and '.join(map(repr, labels))}")
        texts.append(text)
        scores.append(math.nan if score is None else score)
        categories.append(-1 if category is None else category)

    for path in paths:
        # A file's name may hold bytes that are no UTF-8, which no message could be printed with.
        file = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
        rows_before, bad_before = len(texts), len(bad)
        try:
            for chunk in tables.open_table(path, wanted).chunks():
                for number, row in zip(chunk.numbers, chunk.cells, strict=True):
                    try:
                        take(row)
                    except cells.BadCell as problem:
                        bad.append(LeftOut(file, number, str(problem)))
                    else:
                        origin.append((file, number))
        except DataError as error:
            # A column that no row has is what is wrong with each of them. Otherwise the rows
            # found bad come before what ended the reading.
            if isinstance(error, tables.MissingColumn):
                del bad[bad_before:]
            if bad and on_bad_row == "error":
                raise DataError(f"{_listed(bad)}; {error}") from None
            raise
        if len(texts) == rows_before and len(bad) == bad_before:
            raise DataError(f"{file}: holds no rows")

    if bad and (on_bad_row == "error" or not texts):
        message = _listed(bad)
        raise DataError(message if on_bad_row == "error" else f"no good row is left: {message}")
    return (
        Rows(
            texts=texts,
            scores=np.asarray(scores, dtype=np.float64),
            categories=np.asarray(categories, dtype=np.int32),
            origin=origin,
        ),
        bad,
    )


def _listed(bad: list[LeftOut]) -> str:
    more = len(bad) - _SHOWN_BAD_ROWS
    return "; ".join(map(str, bad[:_SHOWN_BAD_ROWS])) + f"; and {more} more bad rows" * (more > 0)
