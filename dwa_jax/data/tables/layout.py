"""How a text file of cells is laid out: encoding, delimiter, quotes, header; found or given.

A delimiter is found by what is known of the file: the names that its header must have, or the
number of cells that a record without a header must have. Python's `csv.Sniffer` asks for neither,
and on prose it finds letters.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dwa_jax.data import encodings
from dwa_jax.data.tables.reader import tell_apart
from dwa_jax.data.text_files import open_text

# What may stand between cells, and what those do in whose cells quotes mean nothing.
_QUOTED = (",", ";", "\t", "|")
_SAMPLE_RECORDS = 200
_SAMPLE_CHARACTERS = 2**20


class Layout(NamedTuple):
    """What is given of a text file's layout.

    Attributes:
      delimiter: between cells; "" finds it. One that is none of , ; tab | separates lines from
        the right, and quotes mean nothing to it: "@" in `up 5 % @home@positive`.
      encoding: Python's name; "" finds it.
      columns: names of all columns of a file without a header, in order; () where it has one.
    """

    delimiter: str = ""
    encoding: str = ""
    columns: Sequence[str] = ()

    def check(self) -> Layout:
        """Returns it with the encoding's name as it is used.

        Raises:
          ValueError: an encoding is unknown, a delimiter is none, or columns repeat.
        """
        if any(c in self.delimiter for c in '"\r\n\0'):
            raise ValueError(f"delimiter={self.delimiter!r} cannot stand between cells")
        columns = tuple(self.columns)
        if len(columns) == 1 and isinstance(columns[0], str):
            # What --config.columns=text,score comes to, without the quotes and brackets.
            columns = tuple(name.strip() for name in columns[0].split(","))
        if len(set(columns)) < len(columns) or not all(isinstance(c, str) for c in columns):
            raise ValueError(f"columns={columns} must be names that differ from each other")
        return self._replace(encoding=encodings.check(self.encoding), columns=columns)


class Found(NamedTuple):
    """A layout with nothing left open.

    Attributes:
      encoding: Python's name.
      delimiter: between cells.
      quoted: whether a cell in quotes may hold delimiters and line ends.
      columns: names of a file without a header; None where it has one.
      indexed: whether records have one cell more than the header, their number, before them.
      notes: what was found and is not what one would expect of the file's name.
    """

    encoding: str = encodings.UTF_8
    delimiter: str = ","
    quoted: bool = True
    columns: tuple[str, ...] | None = None
    indexed: bool = False
    notes: tuple[str, ...] = ()


def find_layout(path: Path, given: Layout, usual: str, wanted: Sequence[str]) -> Found:
    """Finds what is not given of a file's layout.

    Args:
      path: the file.
      given: what is given.
      usual: delimiter of files with this ending.
      wanted: columns that the file must have.

    Raises:
      DataError: the file cannot be read.
    """
    notes = []
    encoding = given.encoding or encodings.find_encoding(path)
    if not given.encoding and encoding != encodings.UTF_8:
        notes.append(encodings.remark(encoding))
    with open_text(path, encoding) as (file, _):
        sample = file.read(_SAMPLE_CHARACTERS)
    candidates = [given.delimiter] if given.delimiter else list(dict.fromkeys([usual, *_QUOTED]))
    if given.columns:
        if not given.delimiter:
            candidates.append("@")
        width = len(given.columns)
        best = max(candidates, key=lambda d: _share(sample, d, width))
        if best not in candidates[:1]:
            notes.append(f"cells separated by {best!r}")
    else:
        headers: dict[str, list[str]] = {d: next(iter(sampled(sample, d)), []) for d in candidates}
        names = {d: {*headers[d], *tell_apart(headers[d])} for d in candidates}
        best = next((d for d in candidates if names[d].issuperset(wanted)), candidates[0])
        if len(headers[best]) == 1 and not names[best].issuperset(wanted):
            # Whatever is missing, the message can list what is there.
            best = max(candidates, key=lambda d: len(headers[d]))
        if best != candidates[0]:
            notes.append(f"cells separated by {best!r}")
        width = len(headers[best])
    quoted = best in _QUOTED
    if best == "\t" and _share(sample, best, width) < 1 == _share(sample, best, width, False):
        # Text that was never meant for a spreadsheet: "Quote in tweet<TAB>positive.
        quoted = False
        notes.append("quotes taken as they are")
    indexed = not given.columns and _indexed(sample, best, quoted, width)
    if indexed:
        notes.append("records have a number before the first column, left out")
    columns = tuple(given.columns) or None
    return Found(encoding, best, quoted, columns, indexed, tuple(notes))


def split_line(line: str, delimiter: str, width: int) -> list[str]:
    """Splits a line in whose cells quotes mean nothing; from the right but for tabs.

    Args:
      line: with or without its end.
      delimiter: between cells.
      width: number of cells, further delimiters belong to the first; 0 where it is unknown.
    """
    line = line.rstrip("\r\n")
    if width and delimiter != "\t":
        return line.rsplit(delimiter, width - 1)
    return line.split(delimiter)


@contextlib.contextmanager
def long_cells() -> Iterator[None]:
    """Lets the csv module read cells of any length; the limit is the whole process's."""
    previous = csv.field_size_limit(2**31 - 1)  # the largest that every platform's C long holds
    try:
        yield
    finally:
        csv.field_size_limit(previous)


def likeliest(sample: str, usual: str, width: int = 0) -> str:
    """Returns the delimiter that makes the most even table of a file's beginning.

    Args:
      sample: the beginning.
      usual: delimiter of files with this ending, which wins a tie.
      width: number of columns; 0 where nobody knows.
    """

    def evenness(delimiter):
        widths = [len(cells) for cells in sampled(sample, delimiter, width=width or 2)]
        if not widths:
            return 0.0
        common = width or max(set(widths), key=widths.count)
        return widths.count(common) / len(widths) if common > 1 else 0.0

    candidates = list(dict.fromkeys([usual, *_QUOTED, "@"]))
    return max(candidates, key=lambda d: round(evenness(d), 2))


def sampled(
    sample: str, delimiter: str, quoted: bool | None = None, width: int = 0
) -> list[list[str]]:
    """Returns the first records of a file's beginning; [] for one that cannot be read.

    Args:
      sample: the beginning.
      delimiter: between cells.
      quoted: whether quotes mean something; None where the delimiter says.
      width: number of cells, where they are split from the right.
    """
    lines = io.StringIO(sample, newline="")
    cut = len(sample) == _SAMPLE_CHARACTERS
    found: list[list[str]] = []
    if quoted is None:
        quoted = delimiter in _QUOTED
    if not quoted:
        for line in lines:
            if line.strip("\r\n"):
                found.append(split_line(line, delimiter, width))
    else:
        with long_cells():
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            while len(found) < _SAMPLE_RECORDS:
                try:
                    cells = next(reader)
                except StopIteration:
                    break
                except csv.Error:
                    cells = None
                if cells != []:
                    found.append(cells or [])
    # The last record may go on behind the sample.
    return found[: -1 if cut and len(found) > 1 else None][:_SAMPLE_RECORDS]


def _share(sample, delimiter, width, quoted=None):
    found = sampled(sample, delimiter, quoted, width)
    return sum(len(cells) == width for cells in found) / max(len(found), 1)


def _indexed(sample, delimiter, quoted, width):
    records = sampled(sample, delimiter, quoted)[1:]
    if len(records) < 2 or any(len(cells) != width + 1 for cells in records):
        return False
    numbers = {cells[0] for cells in records}
    return all(n.isdecimal() for n in numbers) and len(numbers) == len(records)
