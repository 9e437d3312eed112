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
from dwa_jax.data.tables import Source


class Sink:
    """Writes rows of a source with further columns.

    Args:
      path: the file, or something that texts can be written to (not Parquet).
      source: whose format it takes over, header and schema too.
      added: name -> type of each further column: float, int, str or list (JSON).
      compressed: how the file is, in the words of `dwa_jax.data.compression`; "" for not at all.
      spreadsheet_safe: puts an apostrophe before cells of a CSV that a spreadsheet would run.
    """

    def __init__(
        self,
        path: Any,
        source: Source,
        added: dict[str, type],
        compressed: str = "",
        spreadsheet_safe: bool = False,
    ):
        self._source, self._added, self._begun = source, added, False
        self._mark = marked if spreadsheet_safe else lambda cell: cell
        self._files = contextlib.ExitStack()
        if not isinstance(path, Path):
            self._file = path
        elif source.suffix == ".parquet":
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
        if self._source.suffix == ".csv":
            for row, *more in zip(rows, *columns, strict=True):
                self._csv.writerow(map(self._mark, [*row, *map(_csv_cell, more)]))
        elif self._source.suffix == ".jsonl":
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
        if self._source.suffix != ".parquet":
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
        if self._source.suffix == ".csv":
            self._csv = csv.writer(self._file, lineterminator="\n")
            self._csv.writerow(map(self._mark, [*self._source.columns, *self._added]))
        elif self._source.suffix == ".parquet":
            there = self._source.columns
            self._schema = pa.schema([*there, *self._fields()], there.metadata)
            self._writer = self._files.enter_context(
                pyarrow.parquet.ParquetWriter(self._path, self._schema)
            )

    def _fields(self):
        types = {float: pa.float64(), int: pa.int32(), str: pa.string(), list: pa.string()}
        return [pa.field(name, types[kind]) for name, kind in self._added.items()]


def marked(cell: Any) -> Any:
    """Puts an apostrophe before a text that a spreadsheet would take for a formula.

    Those begin with =, +, -, @, a tab or a carriage return, and are no number.
    """
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _plain(value):
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv_cell(value):
    return "" if value is None else _json_cell(value)


def _json_cell(value):
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
