"""Formats: a file (CSV, JSON Lines, Parquet) or a hub data set as numbered records.

Each reader yields `(row number, cells)`, or `(row number, BadRow)` where the
record itself cannot be read. Row numbers are what an editor shows: the first
physical line of the record, counted from 1 (so a CSV's header is row 1); for
Parquet and the hub, which have no lines, the index plus 1.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import functools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dwa_jax.data.rows import DataError, shorten

# Python decodes an invalid byte 0xNN to the code point 0xDCNN under "surrogateescape".
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_FIELD_LIMIT = 2**31 - 1  # the largest that every platform's C long holds


class BadRow(NamedTuple):
    """A record that cannot be read.

    Args:
        problem: what is wrong with it, in one line.
    """

    problem: str


Records = Iterator[tuple[int, Sequence[object] | BadRow]]


def records(source: str | Path, columns: Sequence[str]) -> Records:
    """Reads the given columns of a file or of a hub data set.

    Args:
        source: path ending in .csv, .jsonl or .parquet, or "hub:NAME[:SPLIT]".
        columns: the columns to return, in this order.

    Returns:
        Iterator of (row number, one cell a column or a BadRow).

    Raises:
        DataError: the file is missing, empty, of an unknown type or damaged, or lacks a column.
    """
    if isinstance(source, str) and source.startswith("hub:"):
        return _hub(source, columns)
    try:
        path = Path(source).expanduser()
    except RuntimeError as error:  # no such user
        raise DataError(f"{source}: cannot be opened: {_one_line(error)}") from None
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        known = ", ".join(_READERS)
        raise DataError(f"{source}: unknown file type {suffix!r}; known: {known}, hub:NAME")
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise DataError(f"{source}: no such file{_nearest_file(path)}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(f"{source}: cannot be opened: {_one_line(error)}") from None
    if path.is_dir():
        raise DataError(f"{source}: is a folder; name the files in it")
    if size == 0:
        raise DataError(f"{source}: the file is empty")
    return _READERS[suffix](path, columns)


def _csv(path: Path, columns: Sequence[str]) -> Records:
    previous_limit = csv.field_size_limit(_FIELD_LIMIT)
    try:
        with _open_text(path) as file:
            # Without `strict` a quote never closed swallows the rest of the file in silence.
            reader = csv.reader(file, strict=True)
            header = None
            while True:
                start = reader.line_num + 1
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    if "unexpected end of data" in str(error):
                        raise DataError(
                            f"{path}, row {start}: a quote opened here is never closed;"
                            ' write a quote inside a quoted cell as ""'
                        ) from None
                    cells = BadRow(_csv_problem(error, start, reader.line_num))
                if cells is None:
                    break
                if not cells:
                    continue
                if not isinstance(cells, BadRow):
                    problem = next(filter(None, map(_encoding_problem, cells)), None)
                    cells = BadRow(problem) if problem else cells
                if header is None:
                    if isinstance(cells, BadRow):
                        raise DataError(f"{path}, row {start}: {cells.problem}")
                    header = cells
                    _check_columns(path, header, columns)
                    chosen = [header.index(column) for column in columns]
                    continue
                if not isinstance(cells, BadRow):
                    if len(cells) == len(header):
                        cells = [cells[i] for i in chosen]
                    else:
                        cells = BadRow(
                            f"{len(cells)} cells where the header has {len(header)};"
                            " quote a cell that holds a comma"
                        )
                yield start, cells
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {_one_line(error)}") from None
    finally:
        csv.field_size_limit(previous_limit)


def _csv_problem(error: csv.Error, start: int, end: int) -> str:
    lines = f" (lines {start} to {end} read as one record)" if end > start else ""
    return f"not a CSV record: {_one_line(error)}{lines}"


def _jsonl(path: Path, columns: Sequence[str]) -> Records:
    # Only the last line tells whether a key is in no object at all, so rows are kept until then.
    found: list[tuple[int, Sequence[object] | BadRow]] = []
    seen: dict[str, None] = {}
    objects = 0
    parse = functools.partial(_parse_json, columns=columns)
    try:
        with _open_text(path) as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                value = parse(line.rstrip())
                if isinstance(value, dict):
                    objects += 1
                    seen.update(dict.fromkeys(value))
                    value = [value.get(column) for column in columns]
                elif not isinstance(value, BadRow):
                    kind = type(value).__name__
                    value = BadRow(f'a {kind} where an object {{"column": value}} is expected')
                found.append((number, value))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {_one_line(error)}") from None
    if objects:
        _check_columns(path, list(seen), columns)
    yield from found


def _parse_json(line: str, columns: Sequence[str]) -> object:
    problem = _encoding_problem(line)
    if problem:
        return BadRow(problem)

    def once(pairs):
        record = dict(pairs)
        if len(record) < len(pairs):
            # The parser itself would keep the last one in silence.
            keys = [key for key, _ in pairs]
            for column in columns:
                if keys.count(column) > 1:
                    raise ValueError(f"key {column!r} is there {keys.count(column)} times")
        return record

    try:
        return json.loads(line, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        return BadRow(f"not JSON: {error.msg} at character {error.pos + 1}")
    except (ValueError, RecursionError) as error:
        return BadRow(f"not JSON that can be read: {_one_line(error)}")


def _parquet(path: Path, columns: Sequence[str]) -> Records:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{path}: reading Parquet needs pyarrow (pip install pyarrow)") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names, columns)
            row = 0
            for batch in file.iter_batches(columns=list(columns)):
                arrays = [_cells(batch.column(column)) for column in columns]
                for cells in zip(*arrays, strict=True):
                    row += 1
                    bad = next((cell for cell in cells if isinstance(cell, BadRow)), None)
                    yield row, bad or cells
    except DataError:
        raise
    # On a damaged file pyarrow also raises what its own code trips over.
    except (pyarrow.ArrowException, OSError, ValueError, LookupError, ArithmeticError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {_one_line(error)}") from None


def _cells(array) -> list[object]:
    try:
        return array.to_pylist()
    except (ValueError, OverflowError):
        return [_cell(value) for value in array]


def _cell(value) -> object:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        return BadRow(f"byte {error.object[error.start]:#04x} is not UTF-8; write text as UTF-8")
    except (ValueError, OverflowError) as error:
        return BadRow(f"a cell cannot be read: {_one_line(error)}")


def _hub(source: str, columns: Sequence[str]) -> Records:
    name, _, split = source.removeprefix("hub:").partition(":")
    if not name:
        raise DataError(f"{source}: a hub data set is written hub:NAME or hub:NAME:SPLIT")
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"{source}: reading from the hub needs the extra 'hub' (pip install 'dwa_jax[hub]')"
        ) from None
    try:
        table = datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # the hub's client raises many unrelated kinds
        raise DataError(f"{source}: cannot be loaded: {_one_line(error)}") from None
    _check_columns(source, table.column_names, columns)
    rows, row = iter(table.select_columns(list(columns))), 0
    while True:
        row += 1
        try:
            record = next(rows, None)
        except Exception as error:  # as above
            raise DataError(f"{source}, row {row}: cannot be decoded: {_one_line(error)}") from None
        if record is None:
            return
        yield row, [record[column] for column in columns]


_READERS = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}


def _open_text(path: Path):
    # newline="" keeps line ends inside quoted cells; "surrogateescape" lets an invalid byte
    # through to the row it stands in, where a strict decoder would only name an offset.
    return open(path, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _encoding_problem(text: str) -> str | None:
    if "\0" in text:
        return "holds a NUL byte; save the file as UTF-8 text"
    if not text.isascii():
        byte = _ESCAPED_BYTE.search(text)
        if byte:
            return f"byte {ord(byte.group()) - 0xDC00:#04x} is not UTF-8; save the file as UTF-8"
    return None


def _check_columns(source: object, there: Sequence[str], wanted: Sequence[str]) -> None:
    for column in wanted:
        if there.count(column) > 1:
            raise DataError(f"{source}: column {column!r} is there {there.count(column)} times")
        if column not in there:
            folded = {name.casefold(): name for name in there}
            near = difflib.get_close_matches(column.casefold(), folded, n=1, cutoff=0.5)
            hint = f" (nearest: {shorten(folded[near[0]])})" if near else ""
            if len(there) == 1 and (separator := re.search("[;\t|]", there[0])):
                hint = f"; it looks separated by {separator.group()!r}, where a comma is expected"
            names = ", ".join(shorten(name) for name in there[:30]) or "none"
            more = f" and {len(there) - 30} more" if len(there) > 30 else ""
            raise DataError(f"{source}: no column {column!r}; there: {names}{more}{hint}")


def _nearest_file(path: Path) -> str:
    with contextlib.suppress(OSError):
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
        if near:
            return f" (nearest in that folder: {near[0]})"
    return ""


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
