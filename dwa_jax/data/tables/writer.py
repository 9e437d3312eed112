"""Tables that are written in parts, as they were read, with more columns.

What was there comes out unchanged: the cells of a CSV, the text of a JSON object, the typed
columns of a Parquet file.
"""

import contextlib
import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from dwa_jax.data import compression
from dwa_jax.data.tables.reader import TableReader


class TableWriter:
    """Writes rows of a reader's chunks with further columns.

    Args:
      path: the file, or something that texts can be written to (not Parquet).
      reader: whose format it takes over, header and schema too.
      added: name -> type of each further column: float, int, str or list (JSON).
      name: that the file will have, whose ending says how it is compressed, and what stands
        between the cells of a CSV; "" as the table read, not compressed.
    """

    def __init__(self, path: Any, reader: TableReader, added: dict[str, type], name: str = ""):
        ending, compressed = compression.suffixes(Path(name))
        self._reader, self._added, self._begun = reader, added, False
        self._ending = ending
        self._files = contextlib.ExitStack()
        if not isinstance(path, Path):
            self._file = path
        elif reader.suffix == ".parquet":
            self._path = path
        else:
            stream = compression.create(path, compressed, self._files)
            self._file = self._files.enter_context(
                io.TextIOWrapper(stream, encoding="utf-8", newline="")
            )

    def write(self, rows: Any, values: dict[str, list]) -> None:
        """Writes rows with the values of the further columns.

        Args:
          rows: of a chunk.
          values: name -> one value a row; None and what is not finite stay empty.
        """
        self._begin()
        columns = [list(map(_plain, values[name])) for name in self._added]
        if self._reader.suffix == ".csv":
            for row, *more in zip(rows, *columns, strict=True):
                self._write_cells([*row, *map(_csv_cell, more)])
        elif self._reader.suffix == ".jsonl":
            for row, *more in zip(rows, *columns, strict=True):
                # Behind what is there, of which no character changes.
                added = json.dumps(dict(zip(self._added, more, strict=True)), ensure_ascii=False)
                self._file.write(f"{row[:-1].rstrip()}, {added[1:]}\n")
        else:
            arrays = [
                pa.array(map(_json_cell, column), field.type)
                for column, field in zip(columns, self._fields(), strict=True)
            ]
            schema = self._schema
            self._writer.write_batch(
                pa.RecordBatch.from_arrays([*rows.columns, *arrays], schema=schema)
            )

    def close(self) -> None:
        """Ends the file; one without rows gets its header or schema all the same."""
        self._begin()
        if self._reader.suffix != ".parquet":
            self._file.flush()
        self._files.close()

    def abandon(self) -> None:
        """Lets go of the file in the middle."""
        with contextlib.suppress(Exception):
            self._files.close()

    def _begin(self):
        if self._begun:
            return
        self._begun = True
        if self._reader.suffix == ".csv":
            self._write_cells = self._cells_writer()
            self._write_cells([*self._reader.header, *self._added])
        elif self._reader.suffix == ".parquet":
            there = self._reader.header
            self._schema = pa.schema([*there, *self._fields()], there.metadata)
            self._writer = self._files.enter_context(
                pyarrow.parquet.ParquetWriter(self._path, self._schema)
            )

    def _cells_writer(self):
        # The name says what is between the cells, and where it does not, the table read does.
        delimiter = self._reader.delimiter
        if self._ending == ".tsv":
            delimiter = "\t"
        elif self._ending == ".csv" and delimiter not in (",", ";", "|"):
            delimiter = ","
        if delimiter == self._reader.delimiter and not self._reader.quoted:
            return lambda cells: self._file.write(delimiter.join(map(str, cells)) + "\n")
        return csv.writer(self._file, lineterminator="\n", delimiter=delimiter).writerow

    def _fields(self):
        types = {float: pa.float64(), int: pa.int32(), str: pa.string(), list: pa.string()}
        return [pa.field(name, types[kind]) for name, kind in self._added.items()]


def _plain(value):
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv_cell(value):
    return "" if value is None else _json_cell(value)


def _json_cell(value):
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
