"""Scored texts: files and data sets -> Rows, with every bad cell named by file and row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dwa_jax.data import cells, tables
from dwa_jax.data.columns import Columns, LeftOut, listed
from dwa_jax.data.rows import BadRow, DataError, Rows

_ADVICE = "; on_bad_row=skip leaves bad rows out"


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
    labels: Mapping[Any, float] | str | None = None,
    decimal_comma: bool = False,
    percent: bool = False,
    split_column: str | None = None,
    group_column: str | None = None,
    time_column: str | None = None,
    time_format: str = "",
    layout: tables.Layout = tables.FIND,
    note: Callable[[str], None] | None = None,
) -> tuple[Rows, list[LeftOut]]:
    """Reads scored texts from one or several files.

    Args:
        paths: one or several of: a path ending in .csv, .tsv, .txt, .json, .jsonl, .ndjson
            (each may be compressed: .csv.gz, .bz2, .xz, .zst), .parquet or .xlsx; "hub:NAME",
            "hub:NAME:SPLIT" or "hub:NAME:CONFIG:SPLIT" for a data set of the Hugging Face hub
            (split "train"), where NAME may be a folder too, as `datasets` writes and reads them.
        text_column: the column that holds the text, a string or a list of them; in nested data
            a path, such as "info.0.title"; of several columns of one name "text#2". So the
            other columns.
        score_column: the column that holds the score; None where there are no scores.
        category_column: the column that holds the category; None where there are no
            categories. With both None the texts are read without labels.
        category_names: K names; categories are then these names instead of integers.
        num_classes: K; an integer category must be below it. None where any will do.
        score_range: (lowest, highest) score of the files, rescaled linearly to [-1, 1];
            None where the scores are in [-1, 1] already.
        on_bad_row: "error" raises one error for all bad rows, "skip" leaves them out.
        unscored: whether a row may do without any label, and a file without the score column.
        labels: {"negative": -1, "positive": 1}: scores of label words, in `score_range`; without
            a score column the categories, ordered by these numbers.
        decimal_comma: whether 0,5 is a half.
        percent: whether 45% is 0.45.
        split_column: the column that says "train", "validation" or "test", or None.
        group_column: the column whose value rows share that belong together, or None.
        time_column: the column that holds a row's time, or None.
        time_format: how times are written, as `datetime.strptime` takes it; "" for ISO 8601, what
            mail and Twitter write, and numbers.
        layout: what is known of text files; the rest is found.
        note: told, in a line each, what was found that the files' names do not tell.

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
        labels=labels,
        written=cells.Written(decimal_comma, percent),
        split=split_column,
        group=group_column,
        time=time_column,
        time_format=time_format,
    )
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    if not paths:
        raise DataError("no files given: name at least one .csv, .jsonl or .parquet file")
    optional = [score_column] if unscored and score_column is not None else []
    wanted = tables.Wanted(text_column, columns.names[1:], optional)
    layout = layout.check()
    # A file's name may hold bytes that are no UTF-8, which no message could be printed with.
    files = [str(path).encode("utf-8", "backslashreplace").decode("utf-8") for path in paths]
    bad: list[LeftOut] = []
    parts = (
        (file, _records(path, wanted, layout, bad, on_bad_row, note))
        for file, path in zip(files, paths, strict=True)
    )
    return columns.collect(parts, bad, on_bad_row, note, _ADVICE), bad


def _records(
    path: str | Path,
    wanted: tables.Wanted,
    layout: tables.Layout,
    bad: list[LeftOut],
    on_bad_row: str,
    note: Callable[[str], None] | None,
) -> Iterator[tuple[int, Sequence[object] | BadRow]]:
    before = len(bad)
    try:
        table = tables.open_table(path, wanted, layout)
        for chunk in table.chunks():
            yield from zip(chunk.numbers, chunk.cells, strict=True)
        if note is not None and table.notes:
            note(f"{table.name}: {', '.join(table.notes)}")
    except DataError as error:
        # A column that no row has is what is wrong with each of them. Otherwise the rows found
        # bad come before what ended the reading.
        if isinstance(error, tables.MissingColumn):
            del bad[before:]
        if bad and on_bad_row == "error":
            raise DataError(f"{listed(bad)}; {error}") from None
        raise
