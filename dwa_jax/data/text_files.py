"""Text files, plain or compressed, opened so that a bad byte stays with its row."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from dwa_jax.data import compression, encodings
from dwa_jax.data.rows import DataError
from dwa_jax.messages import one_line


@contextlib.contextmanager
def open_text(
    path: Path, encoding: str = encodings.UTF_8
) -> Iterator[tuple[TextIO, Callable[[], float]]]:
    """Opens a file for reading.

    Args:
        path: the file; decompressed where its name ends so.
        encoding: Python's name of its encoding.

    Yields:
        The text with its line ends as they are and bytes that do not belong to the encoding as
        surrogates, and a function that returns the share of the file that has been read, in
        [0, 1].

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
            text = io.TextIOWrapper(stream, encoding=encoding, errors="surrogateescape", newline="")
            yield text, lambda: 1.0 if raw.closed else min(1.0, raw.tell() / size)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise DataError(f"{path}: cannot be read: {reason}") from None
    except UnicodeError as error:  # of an encoding whose units are more than a byte
        raise DataError(f"{path}: cannot be read as {encoding}: {one_line(error)}") from None


def encoding_problem(text: str, encoding: str = encodings.UTF_8) -> str | None:
    """Says what is wrong with the bytes that a text was read from; None where nothing is."""
    if "\0" in text:
        return "holds a NUL byte; save the file as UTF-8 text"
    if not text.isascii():
        byte = encodings.ESCAPED_BYTE.search(text)
        if byte:
            name = "UTF-8" if encoding == encodings.UTF_8 else encoding
            return f"byte {ord(byte.group()) - 0xDC00:#04x} is not {name}; save the file as UTF-8"
    return None
