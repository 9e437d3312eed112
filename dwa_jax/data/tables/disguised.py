"""Files whose names say one thing and whose first bytes another, and what to do with them."""

from __future__ import annotations

from pathlib import Path

_HEAD = 1024
_EXPORT = "save the sheet as CSV"
# First bytes -> (what the file is, what would be right).
_KINDS = {
    b"PAR1": ("a Parquet file", "name it .parquet"),
    b"ARROW1": ("an Arrow file", "write it as Parquet"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", f"{_EXPORT} or .xlsx"),
    b"\x1f\x8b": ("compressed by gzip", "add .gz to its name"),
    b"BZh91AY&SY": ("compressed by bzip2", "add .bz2 to its name"),
    b"\xfd7zXZ\0": ("compressed by xz", "add .xz to its name"),
    b"\x28\xb5\x2f\xfd": ("compressed by Zstandard", "add .zst to its name"),
    b"SQLite format 3\0": ("an SQLite data base", "write its table as CSV"),
    b"%PDF-": ("a PDF", "take its table out into a CSV"),
    b"version https://git-lfs": ("a pointer of Git LFS", "git lfs pull fetches the file itself"),
    b"<!doctype html": ("a web page", "what it was saved from links to the file itself"),
    b"<html": ("a web page", "what it was saved from links to the file itself"),
    b"<?xml": ("XML", "write its table as CSV"),
}


def unmask(path: Path, ending: str) -> str | None:
    """Says what a file is, where that is not what its name says.

    Args:
      path: a file that can be read.
      ending: of its name, one of `tables.ENDINGS`, without a compression's.

    Returns:
      What it is and what to do, in words; None where nothing contradicts the name.

    Raises:
      OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"PK\x03\x04"):
        if ending == ".xlsx":
            return None
        if b"[Content_Types].xml" in head or b"docProps/" in head or b"xl/" in head:
            return f"an Excel workbook, and no {ending}: name it .xlsx, or {_EXPORT}"
        return f"a zip archive, and no {ending}: unpack it"
    if head.startswith(b"PAR1") and ending == ".parquet":
        return None
    for begins, (what, advice) in _KINDS.items():
        if head[: len(begins)].lower() == begins.lower():
            return f"{what}, and no {ending}: {advice}"
    return None
