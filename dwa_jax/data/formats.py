"""Formats: a file (CSV, JSON Lines, Parquet) or a hub data set as numbered records.

CSV and JSON Lines may be compressed (.csv.gz, .jsonl.zst: see `compression`); Parquet is so
inside.

Each reader yields `(row number, cells)`, or `(row number, BadRow)` where the
record itself cannot be read. Row numbers are what an editor shows: the first
physical line of the record, counted from 1 (so a CSV's header is row 1); for
Parquet and the hub, which have no lines, the index plus 1.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dwa_jax.data import compression, text_files
from dwa_jax.data.rows import BadRow, DataError, one_line, shorten

Records = Iterator[tuple[int, Sequence[object] | BadRow]]


def records(source: str | Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Records:
    """Reads the given columns of a file or of a hub data set.

    Args:
        source: path ending in .csv, .jsonl (either with .gz, .bz2, .xz or .zst behind it) or
            .parquet, or "hub:NAME[[:CONFIG]:SPLIT]".
        columns: the columns to return, in this order.
        optional: those of them that need not be there; their cells are then None.

    Returns:
        Iterator of (row number, one cell a column or a BadRow).

    Raises:
        DataError: the file is missing, empty, of an unknown type or damaged, or lacks a column.
    """
    if isinstance(source, str) and source.startswith("hub:"):
        return _hub(source, columns, optional)
    try:
        path = Path(source).expanduser()
    except RuntimeError as error:  # no such user
        raise DataError(f"{source}: cannot be opened: {one_line(error)}") from None
    suffix, compressed = compression.suffixes(path)
    if suffix not in _READERS:
        known = ", ".join(_READERS)
        raise DataError(
            f"{source}: unknown file type {suffix + compressed!r}; known: {known}, hub:NAME"
        )
    if suffix == ".parquet" and compressed:
        raise DataError(f"{source}: Parquet is compressed inside; decompress the file itself first")
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise DataError(f"{source}: no such file{_nearest_file(path)}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(f"{source}: cannot be opened: {one_line(error)}") from None
    if path.is_dir():
        raise DataError(f"{source}: is a folder; name the files in it")
    if size == 0:
        raise DataError(f"{source}: the file is empty")
    return _READERS[suffix](path, columns, optional)


def _csv(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Records:
    chosen: list[int | None] | None = None
    with text_files.open_text(path) as (file, _):
        for start, cells in text_files.csv_records(path, file):
            if isinstance(cells, BadRow):
                yield start, cells
            elif chosen is None:
                _check_columns(path, cells, columns, optional)
                chosen = [cells.index(column) if column in cells else None for column in columns]
            else:
                yield start, [None if i is None else cells[i] for i in chosen]


def _jsonl(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Records:
    # Only the last line tells whether a key is in no object at all, so rows are kept until then.
    found: list[tuple[int, Sequence[object] | BadRow]] = []
    seen: dict[str, None] = {}
    objects = 0
    parse = functools.partial(_parse_json, columns=columns)
    with text_files.open_text(path) as (file, _):
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
    if objects:
        _check_columns(path, list(seen), columns, optional)
    yield from found


def _parse_json(line: str, columns: Sequence[str]) -> object:
    problem = text_files.encoding_problem(line)
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
        return BadRow(f"not JSON that can be read: {one_line(error)}")


def _parquet(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Records:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{path}: reading Parquet needs pyarrow (pip install pyarrow)") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            there = file.schema_arrow.names
            _check_columns(path, there, columns, optional)
            row = 0
            for batch in file.iter_batches(columns=[c for c in columns if c in there]):
                arrays = [
                    parquet_cells(batch.column(column)) if column in there else [None] * len(batch)
                    for column in columns
                ]
                for cells in zip(*arrays, strict=True):
                    row += 1
                    bad = next((cell for cell in cells if isinstance(cell, BadRow)), None)
                    yield row, bad or cells
    except DataError:
        raise
    # On a damaged file pyarrow also raises what its own code trips over.
    except (pyarrow.ArrowException, OSError, ValueError, LookupError, ArithmeticError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {one_line(error)}") from None


def parquet_cells(array: Any) -> list[object]:
    """Returns an Arrow array as Python values, with a BadRow for each that cannot be one."""
    try:
        return array.to_pylist()
    except (ValueError, OverflowError):
        return [_cell(value) for value in array]


def _cell(value: Any) -> object:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        return BadRow(f"byte {error.object[error.start]:#04x} is not UTF-8; write text as UTF-8")
    except (ValueError, OverflowError) as error:
        return BadRow(f"a cell cannot be read: {one_line(error)}")


def _hub(source: str, columns: Sequence[str], optional: Sequence[str]) -> Records:
    # A colon inside brackets is part of the split: train[:100].
    name, *choice = re.split(r":(?![^\[]*\])", source.removeprefix("hub:"))
    if not name or len(choice) > 2:
        raise DataError(
            f"{source}: a hub data set is written hub:NAME, hub:NAME:SPLIT or hub:NAME:CONFIG:SPLIT"
        )
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"{source}: reading from the hub needs the extra 'hub' (pip install 'dwa_jax[hub]')"
        ) from None
    try:
        if (Path(name) / "state.json").exists():  # what Dataset.save_to_disk writes
            if choice:
                raise ValueError("it is one saved data set, without configurations and splits")
            table = datasets.load_from_disk(name)
        else:
            *config, split = choice or ["train"]
            table = datasets.load_dataset(name, *config, split=split or "train")
    except Exception as error:  # the hub's client raises many unrelated kinds
        raise DataError(f"{source}: cannot be loaded: {one_line(error)}") from None
    _check_columns(source, table.column_names, columns, optional)
    there = [column for column in columns if column in table.column_names]
    rows, row = iter(table.select_columns(there)), 0
    while True:
        row += 1
        try:
            record = next(rows, None)
        except Exception as error:  # as above
            raise DataError(f"{source}, row {row}: cannot be decoded: {one_line(error)}") from None
        if record is None:
            return
        yield row, [record.get(column) for column in columns]


_READERS = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}


def _check_columns(
    source: object, there: Sequence[str], wanted: Sequence[str], optional: Sequence[str]
) -> None:
    for column in wanted:
        if there.count(column) > 1:
            raise DataError(f"{source}: column {column!r} is there {there.count(column)} times")
        if column not in there and column not in optional:
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
