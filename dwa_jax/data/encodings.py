"""Encodings: what the bytes of a text file stand for, found by its whole beginning or given.

Found are UTF-8, what a byte order mark tells, UTF-16 without one by its zero bytes, and cp1252
(Windows' Latin-1, which is what nearly every other file of Western text is). Detectors that know
a hundred code pages name one of them at random for a file of a few words; whoever has another
code page gives it.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import BinaryIO

from dwa_jax.data import compression
from dwa_jax.data.rows import DataError
from dwa_jax.messages import one_line

UTF_8 = "utf-8-sig"  # with or without a mark
# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 4096
_CHUNK = 2**20
_MOST = 2**26
# What Python makes of an invalid byte 0xNN under "surrogateescape": the code point 0xDCNN.
ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_NOT_ASCII = re.compile("[^\x00-\x7f]")


def check(name: str) -> str:
    """Returns the name of an encoding, or "" as it is.

    Raises:
        ValueError: there is no such encoding of text.
    """
    try:
        if not name or codecs.lookup(name)._is_text_encoding:
            return UTF_8 if name and codecs.lookup(name).name == "utf-8" else name
    except (LookupError, ValueError):
        pass
    raise ValueError(
        f"encoding={name!r} is none that is known; for instance utf-8, utf-16, cp1252, latin-1"
    )


def remark(encoding: str) -> str:
    """Returns what is to be told of an encoding that was found and is not UTF-8."""
    if encoding != "latin-1":
        return f"read as {encoding}"
    # Only what cp1252 leaves undefined makes it latin-1, where that is no character either.
    return (
        "read as latin-1, in which some of its bytes are control characters; if texts look wrong, "
        "name the file's own encoding, as in encoding=shift-jis"
    )


def find_encoding(path: Path) -> str:
    """Tells how a text file is encoded.

    Args:
        path: the file; decompressed where its name ends so.

    Returns:
        Python's name of the encoding.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as raw:
            return _find(compression.expand(raw, compression.suffixes(path)[1]))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from None


def _find(stream: BinaryIO) -> str:
    chunk = stream.read(_SAMPLE)
    for mark, name in _MARKS:
        if chunk.startswith(mark):
            return name
    even, odd = chunk[::2].count(0), chunk[1::2].count(0)
    half = len(chunk) // 2
    if half and max(even, odd) > 0.7 * half and min(even, odd) < 0.05 * half:
        return "utf-16-le" if odd > even else "utf-16-be"
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    read = wrong = right = 0
    undefined = False
    while chunk and read < _MOST:
        read += len(chunk)
        if not chunk.isascii() or decoder.getstate()[0]:
            text = decoder.decode(chunk)
            escaped = len(ESCAPED_BYTE.findall(text))
            wrong += escaped
            right += len(_NOT_ASCII.findall(text)) - escaped
            undefined = undefined or re.search(b"[\x81\x8d\x8f\x90\x9d]", chunk) is not None
        chunk = stream.read(_CHUNK)
    # A damaged byte or two leave a file of UTF-8 what it is, and its rows are named.
    if wrong <= right:
        return UTF_8
    return "latin-1" if undefined else "cp1252"
