"""Parquet: rows are record batches, so that columns keep their types."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from dwa_jax.data.rescaling import as_written
from dwa_jax.data.rows import BadRow, DataError
from dwa_jax.data.tables.reader import ABSENT, Chunk, TableReader, dig, owner
from dwa_jax.messages import one_line


class ParquetReader(TableReader):
    """Reads a Parquet file."""

    suffix = ".parquet"

    def chunks(self) -> Iterator[Chunk]:
        try:
            with pyarrow.parquet.ParquetFile(self.source) as file:
                yield from self._chunks(file)
        except DataError:
            raise
        # On a damaged file pyarrow also raises what its own code trips over.
        except (pa.ArrowException, OSError, ValueError, LookupError, ArithmeticError) as error:
            raise DataError(
                f"{self.name}: not a readable Parquet file: {one_line(error)}"
            ) from None

    def _chunks(self, file):
        there, wanted = file.schema_arrow.names, self.wanted
        self.check_columns(there)
        self.header = file.schema_arrow
        total, row = max(file.metadata.num_rows, 1), 0
        of = {name: owner(name, there) for name in wanted.columns}
        named = None if wanted.whole else [name for name in there if name in of.values()]
        for batch in file.iter_batches(wanted.chunk_rows, columns=named):
            columns = [
                [None] * len(batch)
                if top is None
                else _inside(_cells(batch.column(top)), top, name)
                for name, top in of.items()
            ]
            rows: list[Any] = [
                next((cell for cell in cells if isinstance(cell, BadRow)), cells)
                for cells in zip(*columns, strict=True)
            ]
            numbers = list(range(row + 1, row + 1 + len(batch)))
            row += len(batch)
            yield Chunk(batch, rows, numbers, row / total)


def _inside(cells: list[object], top: str, name: str) -> list[object]:
    if name == top:
        return cells
    found = [c if isinstance(c, BadRow) else dig({top: c}, name) for c in cells]
    return [None if cell is ABSENT else cell for cell in found]


def _cells(array: Any) -> list[object]:
    # As Python's values, with a BadRow for each that cannot be one.
    try:
        values = array.to_pylist()
        if pa.types.is_float32(array.type):
            return [value if value is None else as_written(value) for value in values]
        return values
    except (ValueError, OverflowError):
        return [_cell(value) for value in array]


def _cell(value: Any) -> object:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        return BadRow(
            f"byte {error.object[error.start]:#04x} is not UTF-8; write text as UTF-8", True
        )
    except (ValueError, OverflowError) as error:
        return BadRow(f"a cell cannot be read: {one_line(error)}", True)
