"""CSV: rows are lists of cells, under a header."""

from collections.abc import Iterator

from dwa_jax.data import text_files
from dwa_jax.data.rows import BadRow, DataError
from dwa_jax.data.tables.reader import Record, TableReader


class CsvReader(TableReader):
    """Reads a CSV file."""

    suffix = ".csv"

    def records(self) -> Iterator[Record]:
        places: list[int | None] = []
        with text_files.open_text(self.source) as (file, share):
            for start, cells in text_files.csv_records(self.source, file):
                if isinstance(cells, BadRow):
                    yield start, None, cells, share()
                elif self.header is None:
                    self.check_columns(cells)
                    self.header = cells
                    names = self.wanted.columns
                    places = [cells.index(name) if name in cells else None for name in names]
                else:
                    yield start, cells, [None if i is None else cells[i] for i in places], share()
        if self.header is None and self.wanted.whole:
            raise DataError(f"{self.name}: the file is empty; a CSV has a header")
