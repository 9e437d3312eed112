"""Scored texts: files and data sets -> Rows, with every bad cell named by file and row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dwa_jax.data import tables
from dwa_jax.data.columns import Columns, LeftOut, listed
from dwa_jax.data.rows import BadRow, DataError, Rows


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
    columns = Columns(
        text=text_column,
        score=score_column,
        category=category_column,
        category_names=category_names,
        num_classes=num_classes,
        score_range=score_range,
        unscored=unscored,
    )
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    if not paths:
        raise DataError("no files given: name at least one .csv, .jsonl or .parquet file")
    optional = [score_column] if unscored and score_column is not None else []
    wanted = tables.Wanted(text_column, columns.labels, optional)
    # A file's name may hold bytes that are no UTF-8, which no message could be printed with.
    files = [str(path).encode("utf-8", "backslashreplace").decode("utf-8") for path in paths]
    bad: list[LeftOut] = []
    parts = (
        (file, _records(path, wanted, bad, on_bad_row))
        for file, path in zip(files, paths, strict=True)
    )
    return columns.collect(parts, bad, on_bad_row), bad


def _records(
    path: str | Path, wanted: tables.Wanted, bad: list[LeftOut], on_bad_row: str
) -> Iterator[tuple[int, Sequence[object] | BadRow]]:
    before = len(bad)
    try:
        for chunk in tables.open_table(path, wanted).chunks():
            yield from zip(chunk.numbers, chunk.cells, strict=True)
    except DataError as error:
        # A column that no row has is what is wrong with each of them. Otherwise the rows found
        # bad come before what ended the reading.
        if isinstance(error, tables.MissingColumn):
            del bad[before:]
        if bad and on_bad_row == "error":
            raise DataError(f"{listed(bad)}; {error}") from None
        raise
