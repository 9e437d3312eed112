"""Sources: files of scored texts -> Rows, with every bad cell named by file and row.

A label may be missing (an empty cell, a JSON null or an absent key), a row's
text may not, and a row must carry at least one label of those asked for.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dwa_jax.data.formats import Records, records
from dwa_jax.data.rescaling import as_written, rescale
from dwa_jax.data.rows import BadRow, DataError, Rows, shorten

_SHOWN_BAD_ROWS = 5
_MAX_CATEGORY = np.iinfo(np.int32).max


class LeftOut(NamedTuple):
    """A bad row that was skipped; as a string, one line that says so.

    Args:
        file: the file as it was given to `read`.
        row: its row number there (see `formats`).
        problem: what is wrong with it.
    """

    file: str
    row: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}: {self.problem}"


class _Problem(Exception):
    """What is wrong with one cell."""


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
    _check_range(score_range)
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    if not paths:
        raise DataError("no files given: name at least one .csv, .jsonl or .parquet file")

    columns = [c for c in (text_column, score_column, category_column) if c is not None]
    if len(set(columns)) != len(columns):
        raise ValueError(f"text, score and category must be different columns, got {columns}")
    optional = [score_column] if unscored and score_column is not None else []
    # A file's name may hold bytes that are no UTF-8, which no message could be printed with.
    files = [str(path).encode("utf-8", "backslashreplace").decode("utf-8") for path in paths]
    bad: list[LeftOut] = []
    rows, bad = collect(
        (
            (file, _until_unreadable(path, columns, optional, bad, on_bad_row))
            for file, path in zip(files, paths, strict=True)
        ),
        columns,
        bad,
        text_column=text_column,
        score_column=score_column,
        category_column=category_column,
        category_names=category_names,
        num_classes=num_classes,
        score_range=score_range,
        on_bad_row=on_bad_row,
        unscored=unscored,
    )
    return rows, bad


def collect(
    parts: Iterable[tuple[str, Iterable[tuple[int, Sequence[object] | BadRow]]]],
    columns: Sequence[str],
    bad: list[LeftOut] | None = None,
    *,
    text_column: str,
    score_column: str | None,
    category_column: str | None,
    category_names: Sequence[str] | None = None,
    num_classes: int | None = None,
    score_range: tuple[float, float] | None = None,
    on_bad_row: str = "error",
    unscored: bool = False,
) -> tuple[Rows, list[LeftOut]]:
    """Checks records and makes rows of them.

    Args:
        parts: (name for messages, its records: (row number, one cell a column or a BadRow)).
        columns: names of the cells, in their order.
        bad: where rows that are left out are added; a new list by default.
        text_column: as in `read`, and so the others.
        score_column: see `read`.
        category_column: see `read`.
        category_names: see `read`.
        num_classes: see `read`.
        score_range: see `read`.
        on_bad_row: see `read`.
        unscored: see `read`.

    Returns:
        The rows in their order, and each one that was left out.

    Raises:
        DataError: a part has no row, or (unless skipped) a row is bad.
    """
    low_high = _check_range(score_range)
    bad = [] if bad is None else bad
    texts: list[str] = []
    scores: list[float] = []
    categories: list[int] = []
    origin: list[tuple[str, int]] = []
    for file, records_of in parts:
        rows_before, bad_before = len(texts), len(bad)
        for row, cells in records_of:
            try:
                if isinstance(cells, BadRow):
                    raise _Problem(cells.problem)
                named: dict[str | None, object] = dict(zip(columns, cells, strict=True))
                text = _text(named[text_column])
                score = _score(named.get(score_column), low_high)
                category = _category(named.get(category_column), category_names, num_classes)
                if len(columns) > 1 and score is None and category is None and not unscored:
                    empty = " and ".join(repr(column) for column in columns[1:])
                    raise _Problem(f"no label: empty {empty}")
            except _Problem as problem:
                bad.append(LeftOut(file, row, str(problem)))
                continue
            texts.append(text)
            scores.append(math.nan if score is None else score)
            categories.append(-1 if category is None else category)
            origin.append((file, row))
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


def _until_unreadable(
    path: str | Path,
    columns: Sequence[str],
    optional: Sequence[str],
    bad: list[LeftOut],
    on_bad_row: str,
) -> Records:
    # Where a file cannot be read, or not to its end, the rows found bad until then come first.
    try:
        yield from records(path, columns, optional)
    except DataError as error:
        if bad and on_bad_row == "error":
            raise DataError(f"{_listed(bad)}; {error}") from None
        raise


def _listed(bad: list[LeftOut]) -> str:
    more = len(bad) - _SHOWN_BAD_ROWS
    return "; ".join(map(str, bad[:_SHOWN_BAD_ROWS])) + f"; and {more} more bad rows" * (more > 0)


def _check_range(score_range: tuple[float, float] | None) -> tuple[float, float]:
    if score_range is None:
        return (-1.0, 1.0)
    try:
        low, high = (float(bound) for bound in score_range)
    except (TypeError, ValueError):
        raise ValueError(f"score_range is (lowest, highest), got {score_range!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"score_range is (lowest, highest) with lowest < highest, got {low, high}")
    return low, high


def _text(cell: object) -> str:
    if cell is None:
        raise _Problem("the text is empty")
    if not isinstance(cell, str):
        raise _Problem(f"the text {shorten(cell)} is of type {type(cell).__name__}, not a string")
    if not cell.strip():
        raise _Problem("the text is empty")
    if "\0" in cell:
        raise _Problem(f"the text {shorten(cell)} holds a NUL character")
    try:
        cell.encode("utf-8")
    except UnicodeEncodeError:
        raise _Problem(f"the text {shorten(cell)} holds half a surrogate pair") from None
    return cell


def _number(cell: object) -> float | None:
    """Returns the cell as a float, None where it is missing or no number."""
    if isinstance(cell, str):
        # float() would take digit groups such as 1_000, which no data file means.
        if "_" in cell:
            return None
    elif isinstance(cell, bool) or not isinstance(cell, Real | Decimal):
        return None
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return None


def _score(cell: object, score_range: tuple[float, float]) -> float | None:
    if _is_missing(cell):
        return None
    low, high = score_range
    score = _number(cell)
    if score is None:
        raise _Problem(f"score {shorten(cell)} is not a number")
    if not math.isfinite(score):
        raise _Problem(f"score {shorten(cell)} is not finite; leave a missing one empty")
    score = as_written(score)
    if not low <= score <= high:
        raise _Problem(f"score {shorten(cell)} is outside [{low:g}, {high:g}] (see score_range)")
    return rescale(score, low, high)


def _category(cell: object, names: Sequence[str] | None, num_classes: int | None) -> int | None:
    if _is_missing(cell):
        return None
    if names is not None:
        name = cell.strip() if isinstance(cell, str) else cell
        if isinstance(name, str) and name in names:
            return list(names).index(name)
        near = difflib.get_close_matches(name[:100] if isinstance(name, str) else "", names, n=1)
        hint = f" (nearest: {near[0]!r})" if near else ""
        known = ", ".join(map(repr, names))
        raise _Problem(f"category {shorten(cell)} is not one of {known}{hint}")
    number = _number(cell)
    # 2.0 counts as 2: a table tool that meets an empty cell writes the whole column as floats.
    if number is None or not 0 <= number <= _MAX_CATEGORY or number != int(number):
        raise _Problem(f"category {shorten(cell)} is not an integer >= 0")
    if num_classes is not None and number >= num_classes:
        raise _Problem(f"category {int(number)} is not below num_classes={num_classes}")
    return int(number)


def _is_missing(cell: object) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())
