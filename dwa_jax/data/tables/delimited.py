"""Cells between delimiters, CSV above all: rows are lists of cells, under a header."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from dwa_jax.data import compression, text_files
from dwa_jax.data.rows import BadRow, DataError
from dwa_jax.data.tables import layout
from dwa_jax.data.tables.layout import Found, Layout
from dwa_jax.data.tables.reader import Record, TableReader, Wanted, tell_apart
from dwa_jax.messages import one_line


class DelimitedReader(TableReader):
    """Reads a file of cells between delimiters.

    Args:
      path: the file.
      wanted: what is read of it.
      given: what is known of its layout.
    """

    suffix = ".csv"

    def __init__(self, path: Path, wanted: Wanted, given: Layout):
        super().__init__(path, wanted)
        self._given = given

    def lines(self) -> Iterator[str]:
        """Yields the file's lines, with their ends."""
        found = self._find()
        with text_files.open_text(self.source, found.encoding) as (file, _):
            yield from file

    def has_header(self) -> bool:
        """Tells whether the text's column is named, in the file or by what is given.

        Raises:
          DataError: the file cannot be read.
        """
        found = self._find()
        if found.columns:
            return True
        with text_files.open_text(self.source, found.encoding) as (file, _):
            try:
                _, cells = next(delimited_records(self.name, file, found), (0, []))
            except DataError:  # a quote that is never closed: no table
                return False
            return self.wanted.text in cells

    def _find(self):
        wanted = self.wanted
        required = [name for name in wanted.columns if name not in wanted.optional]
        ending = compression.suffixes(self.source)[0]
        usual = "\t" if ending in (".tsv", ".txt") else ","
        return layout.find_layout(self.source, self._given, usual, required)

    def records(self) -> Iterator[Record]:
        found = self._find()
        self.notes += found.notes
        self.delimiter, self.quoted = found.delimiter, found.quoted
        columns = self.wanted.columns
        places: list[int | None] = []
        with text_files.open_text(self.source, found.encoding) as (file, share):
            for start, cells in delimited_records(self.name, file, found):
                if isinstance(cells, BadRow):
                    yield start, None, cells, share
                elif self.header is None:
                    self.check_columns(cells)
                    self.header = cells
                    names = tell_apart(cells)
                    places = [names.index(n) if n in names else None for n in columns]
                else:
                    yield start, cells, [None if i is None else cells[i] for i in places], share
        if self.header is None and self.wanted.whole:
            raise DataError(f"{self.name}: the file is empty; a CSV has a header")


def delimited_records(
    name: str, file: TextIO, found: Found
) -> Iterator[tuple[int, list[str] | BadRow]]:
    """Reads the records of a table, blank lines left out.

    Args:
        name: for messages.
        file: what `text_files.open_text` gives.
        found: its layout.

    Yields:
        (first physical line, cells): the header first, which is never bad and is the layout's
        where the file has none, then records of as many cells, or what is wrong with them.

    Raises:
        DataError: the header is bad, or a quote is never closed.
    """
    header = list(found.columns) if found.columns else None
    if header:
        yield 0, header
    cells: list[str] | BadRow
    for start, cells in _quoted(name, file, found) if found.quoted else _plain(file, found):
        if not isinstance(cells, BadRow):
            cells = _checked(cells, header, found)
        if header is None:
            if isinstance(cells, BadRow):
                raise DataError(f"{name}, row {start}: {cells.problem}")
            header = cells
        yield start, cells


def _checked(cells, header, found):
    for cell in cells:
        problem = text_files.encoding_problem(cell, found.encoding)
        if problem:
            return BadRow(problem)
    if header is None:
        return cells
    if found.indexed and len(cells) == len(header) + 1:
        return cells[1:]
    if len(cells) != len(header):
        of = "the header has" if found.columns is None else "there are"
        names = "" if found.columns is None else " columns"
        what = "a comma" if found.delimiter == "," else repr(found.delimiter)
        advice = f"; quote a cell that holds {what}" if found.quoted else ""
        return BadRow(f"{len(cells)} cells where {of} {len(header)}{names}{advice}")
    return cells


def _plain(file, found):
    width = len(found.columns) if found.columns else 0
    for number, line in enumerate(file, 1):
        if line.strip("\r\n"):
            cells = layout.split_line(line, found.delimiter, width)
            width = width or len(cells)
            yield number, cells


def _quoted(name, file, found):
    with layout.long_cells():
        # Without `strict` a quote never closed swallows the rest of the file in silence.
        reader = csv.reader(file, strict=True, delimiter=found.delimiter)
        while True:
            start = reader.line_num + 1
            try:
                cells: list[str] | BadRow | None = next(reader, None)
            except csv.Error as error:
                if "unexpected end of data" in str(error):
                    raise DataError(
                        f"{name}, row {start}: a quote opened here is never closed;"
                        ' write a quote inside a quoted cell as ""'
                    ) from None
                cells = BadRow(_csv_problem(error, start, reader.line_num))
            if cells is None:
                return
            if cells:
                yield start, cells


def _csv_problem(error: csv.Error, start: int, end: int) -> str:
    lines = f" (lines {start} to {end} read as one record)" if end > start else ""
    return f"not a CSV record: {one_line(error)}{lines}"
