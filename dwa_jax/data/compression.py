"""Compression: files that hold a table in compressed form, told by the ends of their names.

gzip, bzip2 and xz are Python's own; Zstandard is pyarrow's, which writes no checksums (the
`zstd` program does, and they are checked).
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from dwa_jax.messages import one_line

SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
# Tables of text shrink to a half or an eighth. A file of a few kilobytes can be made that
# expands a million times, and would fill the memory where a plain one of its size never does.
_MOST_RATIO = 200
_ALWAYS_ALLOWED = 64 * 2**20


def suffixes(path: Path) -> tuple[str, str]:
    """Tells a file's format and compression by its name.

    Args:
        path: the file.

    Returns:
        (suffix of the format, suffix of the compression), in lower case: (".csv", ".gz") for
        `data.csv.gz`; "" for what is not there.
    """
    last = path.suffix.lower()
    if last in SUFFIXES:
        return Path(path.stem).suffix.lower(), last
    return last, ""


def expand(raw: BinaryIO, compression: str) -> BinaryIO:
    """Returns what a compressed file holds, as a stream that is read in parts.

    Args:
        raw: the file, open for reading.
        compression: one of `SUFFIXES`, or "" for a plain file.

    Returns:
        The stream. Reading it raises OSError, with one line, where the file is cut short or
        damaged, or expands to more than 64 MiB and 200 times its size.
    """
    if not compression:
        return raw
    stream: Any
    if compression == ".gz":
        stream = gzip.GzipFile(fileobj=raw)
    elif compression == ".bz2":
        stream = bz2.BZ2File(raw)
    elif compression == ".xz":
        stream = lzma.LZMAFile(raw)  # noqa: SIM115
    else:
        import pyarrow

        stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), "zstd")
    most = max(_ALWAYS_ALLOWED, _MOST_RATIO * os.fstat(raw.fileno()).st_size)
    return io.BufferedReader(_Bounded(stream, compression, most))


class _Bounded(io.RawIOBase):
    """A decompressed stream that ends in an error after so many bytes."""

    def __init__(self, stream: Any, compression: str, most: int):
        self._stream, self._compression, self._left = stream, compression, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            found = self._stream.read(len(buffer))
        # What each of the libraries raises on a file that is cut short or damaged.
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise OSError(f"not a whole {self._compression} file: {one_line(error)}") from None
        self._left -= len(found)
        if self._left < 0:
            raise OSError(
                f"expands to more than {_MOST_RATIO} times its size; if that is what it should"
                " hold, decompress it first"
            )
        buffer[: len(found)] = found
        return len(found)


def create(path: Path, compression: str, files: contextlib.ExitStack) -> BinaryIO:
    """Makes a file that compresses what is written to it.

    Args:
        path: of a file that is not there.
        compression: one of `SUFFIXES`, or "" for a plain file.
        files: takes what has to be closed; the file is whole once that is.

    Returns:
        The stream to write to.

    Raises:
        OSError: it cannot be made.
    """
    raw = files.enter_context(path.open("xb"))
    stream: Any = raw
    if compression == ".gz":
        # Neither name nor time: the same rows are the same bytes under every name.
        stream = gzip.GzipFile("", "wb", fileobj=raw, mtime=0)
    elif compression == ".bz2":
        stream = bz2.BZ2File(raw, "wb")
    elif compression == ".xz":
        stream = lzma.LZMAFile(raw, "wb")  # noqa: SIM115
    elif compression == ".zst":
        import pyarrow

        stream = pyarrow.CompressedOutputStream(pyarrow.PythonFile(raw, "w"), "zstd")
    return files.enter_context(stream)
