"""Text files: UTF-8, plain or compressed, opened so that a bad byte stays with its row."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from dwa_jax.data import compression
from dwa_jax.data.rows import BadRow, DataError
from dwa_jax.messages import one_line

# Python decodes an invalid byte 0xNN to the code point 0xDCNN under "surrogateescape".
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_FIELD_LIMIT = 2**31 - 1  # the largest that every platform's C long holds


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[tuple[TextIO, Callable[[], float]]]:
    """Opens a file for reading.

    Args:
        path: the file; decompressed where its name ends so.

    Yields:
        The text with its line ends as they are and bytes that are not UTF-8 as surrogates, and
        a function that returns the share of the file that has been read, in [0, 1].

    Raises:
        DataError: it cannot be read, or not to its end.
    """
    try:
        with path.open("rb") as raw:
            size = max(path.stat().st_size, 1)
            stream = compression.expand(raw, compression.suffixes(path)[1])
            # newline="" keeps line ends inside quoted cells; "surrogateescape" lets an invalid
            # byte through to the row it stands in, where a strict decoder would only name an
            # offset.
            text = io.TextIOWrapper(
                stream, encoding="utf-8-sig", errors="surrogateescape", newline=""
            )
            yield text, lambda: min(1.0, raw.tell() / size)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise DataError(f"{path}: cannot be read: {reason}") from None


def encoding_problem(text: str) -> str | None:
    """Says what is wrong with the bytes that a text was read from; None where nothing is."""
    if "\0" in text:
        return "holds a NUL byte; save the file as UTF-8 text"
    if not text.isascii():
        byte = _ESCAPED_BYTE.search(text)
        if byte:
            return f"byte {ord(byte.group()) - 0xDC00:#04x} is not UTF-8; save the file as UTF-8"
    return None


def csv_records(path: Path, file: TextIO) -> Iterator[tuple[int, list[str] | BadRow]]:
    """Reads the records of a CSV file, blank lines left out.

    Args:
        path: for messages.
        file: what `open_text` gives.

    Yields:
        (first physical line, cells): the header first, which is never bad, then records of as
        many cells, or what is wrong with them.

    Raises:
        DataError: the header is bad, or a quote is never closed.
    """
    previous_limit = csv.field_size_limit(_FIELD_LIMIT)
    try:
        # Without `strict` a quote never closed swallows the rest of the file in silence.
        reader = csv.reader(file, strict=True)
        header: list[str] | None = None
        while True:
            start = reader.line_num + 1
            try:
                cells: list[str] | BadRow | None = next(reader, None)
            except csv.Error as error:
                if "unexpected end of data" in str(error):
                    raise DataError(
                        f"{path}, row {start}: a quote opened here is never closed;"
                        ' write a quote inside a quoted cell as ""'
                    ) from None
                cells = BadRow(_csv_problem(error, start, reader.line_num))
            if cells is None:
                return
            if not cells:
                continue
            if not isinstance(cells, BadRow):
                problem = next(filter(None, map(encoding_problem, cells)), None)
                if problem:
                    cells = BadRow(problem)
                elif header is not None and len(cells) != len(header):
                    cells = BadRow(
                        f"{len(cells)} cells where the header has {len(header)};"
                        " quote a cell that holds a comma"
                    )
            if header is None:
                if isinstance(cells, BadRow):
                    raise DataError(f"{path}, row {start}: {cells.problem}")
                header = cells
            yield start, cells
    finally:
        csv.field_size_limit(previous_limit)


def _csv_problem(error: csv.Error, start: int, end: int) -> str:
    lines = f" (lines {start} to {end} read as one record)" if end > start else ""
    return f"not a CSV record: {one_line(error)}{lines}"
