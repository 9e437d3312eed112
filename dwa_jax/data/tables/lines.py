"""Texts, one a line, as the rows of another format with one column."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from dwa_jax.data.rows import BadRow
from dwa_jax.data.tables.reader import Chunk, Record, TableReader
from dwa_jax.data.text_files import encoding_problem


class LinesReader(TableReader):
    """Reads lines.

    Args:
      lines: with or without their ends.
      name: for messages.
      suffix: the format that the rows are made for.
      wanted: whose text column the lines become.
    """

    def __init__(self, lines: Iterable[str], name: str, suffix: str, wanted: Any):
        super().__init__(name, wanted)
        self.suffix, self._lines = suffix, lines
        schema = pa.schema([(wanted.text, pa.string())])
        self.header = {".csv": [wanted.text], ".jsonl": None, ".parquet": schema}[suffix]

    def records(self) -> Iterator[Record]:
        for number, line in enumerate(self._lines, 1):
            text = line.rstrip("\r\n")
            problem = encoding_problem(text)
            yield number, text, BadRow(problem) if problem else [text], None

    def chunks(self) -> Iterator[Chunk]:
        for chunk in super().chunks():
            rows: Any
            if self.suffix == ".csv":
                rows = [[text] for text in chunk.rows]
            elif self.suffix == ".jsonl":
                rows = [
                    json.dumps({self.wanted.text: text}, ensure_ascii=False) for text in chunk.rows
                ]
            else:
                # A text that is no text is refused or left out, so what stands for it is never
                # written.
                valid = ["" if isinstance(cells, BadRow) else cells[0] for cells in chunk.cells]
                rows = pa.RecordBatch.from_arrays([pa.array(valid, pa.string())], self.header.names)
            yield chunk._replace(rows=rows)
