"""Tables of texts, read and written in parts: one reader a format, one writer for all.

Text files may be compressed (.csv.gz, .jsonl.zst: see `dwa_jax.data.compression`); Parquet and
Excel are so inside.
"""

import contextlib
import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from dwa_jax.data import compression
from dwa_jax.data.rows import DataError
from dwa_jax.data.tables import disguised
from dwa_jax.data.tables.delimited import DelimitedReader
from dwa_jax.data.tables.excel import ExcelReader
from dwa_jax.data.tables.hub import HubReader
from dwa_jax.data.tables.json_objects import JsonReader
from dwa_jax.data.tables.layout import Layout
from dwa_jax.data.tables.lines import LinesReader
from dwa_jax.data.tables.parquet import ParquetReader
from dwa_jax.data.tables.reader import Chunk, MissingColumn, SeveralTables, TableReader, Wanted
from dwa_jax.data.tables.writer import TableWriter
from dwa_jax.messages import one_line

__all__ = [
    "ENDINGS",
    "FIND",
    "Chunk",
    "Layout",
    "LinesReader",
    "MissingColumn",
    "SeveralTables",
    "TableReader",
    "TableWriter",
    "UnknownFormat",
    "Wanted",
    "ending_of",
    "format_of",
    "open_table",
    "open_tables",
]

# Ending of a file's name -> format that its rows are written in again.
ENDINGS = {
    ".csv": ".csv",
    ".tsv": ".csv",
    ".txt": ".csv",
    ".jsonl": ".jsonl",
    ".ndjson": ".jsonl",
    ".json": ".jsonl",
    ".parquet": ".parquet",
    ".xlsx": ".csv",
}
# Nothing is known of a layout.
FIND = Layout()
# What is compressed inside.
_PACKED = {".parquet": "Parquet", ".xlsx": "Excel"}


def open_table(source: str | Path, wanted: Wanted, layout: Layout = FIND) -> TableReader:
    """Opens a file or a data set of the hub.

    Args:
      source: path with one of `ENDINGS`, and it may be .gz, .bz2, .xz or .zst behind it, or
        "hub:NAME[[:CONFIG]:SPLIT]".
      wanted: what is read of it; a data set of the hub cannot be read whole.
      layout: what is known of a text file's.

    Returns:
      Its reader; most of what may be wrong with a file is found by its `chunks`.

    Raises:
      DataError: the file is missing, empty or of an unknown type.
    """
    if isinstance(source, str) and source.startswith("hub:") and not wanted.whole:
        return HubReader(source, wanted)
    path = Path(os.path.expanduser(source))
    suffix = ending_of(path)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise DataError(f"{source}: no such file{_nearest_file(path)}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(f"{source}: cannot be opened: {one_line(error)}") from None
    if path.is_dir():
        raise DataError(f"{source}: is a folder; name the files in it")
    # No line at all may be what a program found nothing to write to; for texts to learn from
    # there is an error all the same.
    lines = ENDINGS[suffix] == ".jsonl"
    if size == 0 and not (wanted.whole and lines):
        raise DataError(f"{source}: the file is empty")
    if what := _disguise(source, path, suffix):
        raise DataError(f"{source}: is {what}")
    if suffix == ".parquet":
        return ParquetReader(path, wanted)
    if suffix == ".xlsx":
        return ExcelReader(path, wanted)
    layout = layout.check()
    if lines:
        return JsonReader(path, wanted, layout)
    table = DelimitedReader(path, wanted, layout)
    if suffix == ".txt" and wanted.whole and wanted.text and not table.has_header():
        texts = LinesReader(table.lines(), str(path), ".csv", wanted)
        texts.notes.append(f"no header names {wanted.text!r}; each line is a text")
        return texts
    return table


def open_tables(paths: Sequence[str | Path], wanted: Wanted, layout: Layout = FIND) -> TableReader:
    """Opens one file, or several to be read as one; see `open_table`.

    Raises:
      DataError: there is no such file, it is of an unknown type or of another than the first.
    """
    readers = [open_table(path, wanted, layout) for path in paths]
    return readers[0] if len(readers) == 1 else SeveralTables(readers)


class UnknownFormat(DataError):
    """A file's name does not tell what it holds."""


def ending_of(path: Path) -> str:
    """Returns the ending of a file's name that tells what it holds, one of `ENDINGS`.

    Raises:
      UnknownFormat: none that is known.
      DataError: a compressed one that is not.
    """
    ending, compressed = compression.suffixes(path)
    if ending not in ENDINGS:
        known = ", ".join(ENDINGS)
        raise UnknownFormat(
            f"{path}: unknown file type {ending + compressed!r}; known: {known}, hub:NAME"
        )
    if compressed and ending in _PACKED:
        raise DataError(
            f"{path}: {_PACKED[ending]} is compressed inside; decompress the file itself first"
        )
    return ending


def format_of(path: Path) -> str:
    """Returns the format that rows are written in to a file of this name; see `ENDINGS`."""
    return ENDINGS[ending_of(path)]


def _disguise(source, path, suffix):
    if compression.suffixes(path)[1]:
        return None
    try:
        return disguised.unmask(path, suffix)
    except OSError as error:
        raise DataError(f"{source}: cannot be opened: {one_line(error)}") from None


def _nearest_file(path: Path) -> str:
    with contextlib.suppress(OSError):
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
        if near:
            return f" (nearest in that folder: {near[0]})"
    return ""
