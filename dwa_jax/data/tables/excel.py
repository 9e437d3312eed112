"""Excel: the first sheet of a workbook, whose rows are written again as those of a CSV."""

import warnings
import zipfile
from collections.abc import Iterator

from dwa_jax.data.rows import DataError
from dwa_jax.data.tables.reader import Record, TableReader, tell_apart
from dwa_jax.messages import one_line

# A workbook is a zip of XML, which shrinks to a tenth; what expands a thousand times is none.
_MOST_RATIO = 200
_ALWAYS_ALLOWED = 64 * 2**20


class ExcelReader(TableReader):
    """Reads an .xlsx file row by row."""

    suffix = ".csv"

    def records(self) -> Iterator[Record]:
        try:
            import openpyxl
        except ImportError:
            raise DataError(
                f"{self.name}: reading Excel needs the extra 'excel' (pip install 'dwa_jax[excel]')"
            ) from None
        book = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # styles and the like, which nobody asks for
                _check_size(self.source)
                book = openpyxl.load_workbook(self.source, read_only=True, data_only=True)
                sheet = book.worksheets[0]
                # What a file says of its own extent is wrong in many.
                sheet.reset_dimensions()
                rows = enumerate(sheet.iter_rows(values_only=True), 1)
            if len(book.worksheets) > 1:
                self.notes.append(f"sheet {sheet.title!r} read, of {len(book.worksheets)}")
            yield from self._rows(rows)
        except DataError:
            raise
        # On a damaged file openpyxl raises what the libraries below it trip over.
        except Exception as error:
            raise DataError(f"{self.name}: not a readable Excel file: {one_line(error)}") from None
        finally:
            if book is not None:
                book.close()

    def _rows(self, rows):
        places: list[int | None] = []
        for number, cells in rows:
            if all(cell is None for cell in cells):
                continue
            if self.header is None:
                header = ["" if cell is None else str(cell) for cell in cells]
                self.check_columns(header)
                self.header = header
                names = tell_apart(header)
                places = [names.index(n) if n in names else None for n in self.wanted.columns]
                continue
            width = len(self.header)
            cells = (*cells, *[None] * width)[:width]
            row = ["" if cell is None else str(cell) for cell in cells]
            yield number, row, [None if i is None else cells[i] for i in places], None
        if self.header is None and self.wanted.whole:
            raise DataError(f"{self.name}: the first sheet is empty")


def _check_size(path):
    with zipfile.ZipFile(path) as file:
        size = sum(part.file_size for part in file.infolist())
    if size > max(_ALWAYS_ALLOWED, _MOST_RATIO * path.stat().st_size):
        raise DataError(f"{path}: expands to more than {_MOST_RATIO} times its size")
