"""Tables of texts, read and written in parts: one reader a format, one writer for all.

CSV and JSON Lines may be compressed (.csv.gz, .jsonl.zst: see `dwa_jax.data.compression`);
Parquet is so inside.
"""

import contextlib
import difflib
from collections.abc import Sequence
from pathlib import Path

from dwa_jax.data import compression
from dwa_jax.data.rows import DataError
from dwa_jax.data.tables.delimited import CsvReader
from dwa_jax.data.tables.hub import HubReader
from dwa_jax.data.tables.json_lines import JsonLinesReader
from dwa_jax.data.tables.lines import LinesReader
from dwa_jax.data.tables.parquet import ParquetReader
from dwa_jax.data.tables.reader import Chunk, MissingColumn, SeveralTables, TableReader, Wanted
from dwa_jax.data.tables.writer import TableWriter
from dwa_jax.messages import one_line

__all__ = [
    "FORMATS",
    "Chunk",
    "LinesReader",
    "MissingColumn",
    "SeveralTables",
    "TableReader",
    "TableWriter",
    "UnknownFormat",
    "Wanted",
    "format_of",
    "open_table",
    "open_tables",
]

_READERS = {".csv": CsvReader, ".jsonl": JsonLinesReader, ".parquet": ParquetReader}
FORMATS = tuple(_READERS)


def open_table(source: str | Path, wanted: Wanted) -> TableReader:
    """Opens a file or a data set of the hub.

    Args:
      source: path ending in .csv or .jsonl (either with .gz, .bz2, .xz or .zst behind it) or in
        .parquet, or "hub:NAME[[:CONFIG]:SPLIT]".
      wanted: what is read of it; a data set of the hub cannot be read whole.

    Returns:
      Its reader; most of what may be wrong with a file is found by its `chunks`.

    Raises:
      DataError: the file is missing, empty or of an unknown type.
    """
    if isinstance(source, str) and source.startswith("hub:") and not wanted.whole:
        return HubReader(source, wanted)
    try:
        path = Path(source).expanduser()
    except RuntimeError as error:  # no such user
        raise DataError(f"{source}: cannot be opened: {one_line(error)}") from None
    suffix = format_of(path)
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
    if size == 0 and not (wanted.whole and suffix == ".jsonl"):
        raise DataError(f"{source}: the file is empty")
    return _READERS[suffix](path, wanted)


def open_tables(paths: Sequence[str | Path], wanted: Wanted) -> TableReader:
    """Opens one file, or several to be read as one; see `open_table`.

    Raises:
      DataError: there is no such file, it is of an unknown type or of another than the first.
    """
    readers = [open_table(path, wanted) for path in paths]
    return readers[0] if len(readers) == 1 else SeveralTables(readers)


class UnknownFormat(DataError):
    """A file's name does not tell what it holds."""


def format_of(path: Path) -> str:
    """Returns the format that a file's name tells, one of `FORMATS`.

    Raises:
      UnknownFormat: none that is known.
      DataError: a compressed one that is not.
    """
    suffix, compressed = compression.suffixes(path)
    if suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise UnknownFormat(
            f"{path}: unknown file type {suffix + compressed!r}; known: {known}, hub:NAME"
        )
    if suffix == ".parquet" and compressed:
        raise DataError(f"{path}: Parquet is compressed inside; decompress the file itself first")
    return suffix


def _nearest_file(path: Path) -> str:
    with contextlib.suppress(OSError):
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
        if near:
            return f" (nearest in that folder: {near[0]})"
    return ""
