"""Tables of texts that are read in parts: CSV, JSONL, Parquet, lines.

A source yields chunks, so that a file may be larger than the memory, and of each row all that
a sink needs to write it again. Row numbers are those of `dwa_jax.data.formats`: the first
physical line, counted from 1; for Parquet the index plus 1.
"""

import contextlib
import csv
import difflib
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet

from dwa_jax.data import DataError

FORMATS = (".csv", ".jsonl", ".parquet")
# Python decodes an invalid byte 0xNN to the code point 0xDCNN under "surrogateescape".
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_FIELD_LIMIT = 2**31 - 1


class Bad(NamedTuple):
    """What is wrong with a row, in one line."""

    problem: str


class Chunk(NamedTuple):
    """Consecutive rows of a table.

    Attributes:
      rows: as the format's sink takes them.
      texts: of each row, or what is wrong with it.
      numbers: row numbers.
      share: of the table that has been read by its end; None where nobody knows.
    """

    rows: Any
    texts: list[str | Bad]
    numbers: list[int]
    share: float | None

    def keep(self, kept: Sequence[int]) -> Any:
        """Returns the rows at these places."""
        if isinstance(self.rows, pa.RecordBatch):
            return self.rows.take(pa.array(kept, pa.int64()))
        return [self.rows[i] for i in kept]


def check_text(cell: object) -> str | Bad:
    """Returns a text that can be predicted, or what is wrong with it."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return Bad("the text is empty")
    if not isinstance(cell, str):
        return Bad(f"the text {repr(cell)[:60]} is of type {type(cell).__name__}, not a string")
    return _encoding_problem(cell) or cell


def open_source(path: Path, text_column: str, chunk_rows: int, added: Sequence[str]) -> "Source":
    """Opens a file.

    Args:
      path: ends in .csv, .jsonl or .parquet.
      text_column: that holds the texts.
      chunk_rows: rows of a chunk; the last one has fewer.
      added: columns that will be added, which the file must not have.

    Raises:
      DataError: there is no such file or it is of an unknown type.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise DataError(f"{path}: unknown file type {suffix!r}; known: {', '.join(FORMATS)}")
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name a file in it")
    kinds = {".csv": CsvSource, ".jsonl": JsonlSource, ".parquet": ParquetSource}
    return kinds[suffix](path, text_column, chunk_rows, added)


class Source:
    """A table to be read; `suffix` is the format of its rows."""

    suffix: str
    columns: Any = None

    def __init__(self, path: Path, text_column: str, chunk_rows: int, added: Sequence[str]):
        self.path, self.text_column, self.chunk_rows = path, text_column, chunk_rows
        self.added = added

    def chunks(self) -> Iterator[Chunk]:
        """Yields the rows in their order.

        Raises:
          DataError: the file cannot be read, lacks the text column, or has one of those that
            will be added.
        """
        rows, texts, numbers, share = [], [], [], None
        for number, row, text, share in self.records():
            rows.append(row)
            texts.append(text)
            numbers.append(number)
            if len(rows) == self.chunk_rows:
                yield Chunk(rows, texts, numbers, share)
                rows, texts, numbers = [], [], []
        if rows:
            yield Chunk(rows, texts, numbers, share)

    def records(self) -> Iterator[tuple[int, Any, str | Bad, float | None]]:
        """Yields (row number, row, text, share) of each row."""
        raise NotImplementedError

    def check_columns(self, there: Sequence[str]) -> None:
        """Checks names of columns; the text's must be there once, those to be added must not."""
        if list(there).count(self.text_column) != 1:
            near = difflib.get_close_matches(self.text_column, there, n=1, cutoff=0.5)
            hint = f" (nearest: {near[0]!r})" if near else ""
            how = "twice" if self.text_column in there else "not there"
            names = ", ".join(map(repr, there[:30])) or "none"
            raise DataError(
                f"{self.path}: column {self.text_column!r} is {how}; there: {names}{hint}; "
                "name the text's with --text_column"
            )
        for column in self.added:
            if column in there:
                raise DataError(f"{self.path}: column {column!r} is there already; rename it")


@contextlib.contextmanager
def _text_file(path):
    # The raw file tells how much has been read.
    try:
        with path.open("rb") as raw:
            size = max(path.stat().st_size, 1)
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
            yield text, lambda: min(1.0, raw.tell() / size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


class CsvSource(Source):
    """Rows are lists of cells; `columns` is the header, once the first chunk is there."""

    suffix = ".csv"

    def records(self):
        previous = csv.field_size_limit(_FIELD_LIMIT)
        try:
            with _text_file(self.path) as (file, share):
                # Without `strict` a quote never closed swallows the rest of the file in silence.
                reader = csv.reader(file, strict=True)
                while True:
                    start = reader.line_num + 1
                    try:
                        cells = next(reader, None)
                    except csv.Error as error:
                        if "unexpected end of data" in str(error):
                            raise DataError(
                                f"{self.path}, row {start}: a quote opened here is never closed"
                            ) from None
                        cells = Bad(f"not a CSV record: {error}")
                    if cells is None:
                        break
                    if not cells:
                        continue
                    if not isinstance(cells, Bad):
                        cells = next(filter(None, map(_encoding_problem, cells)), cells)
                    if self.columns is None:
                        if isinstance(cells, Bad):
                            raise DataError(f"{self.path}, row {start}: {cells.problem}")
                        self.check_columns(cells)
                        self.columns = cells
                        at = cells.index(self.text_column)
                        continue
                    if not isinstance(cells, Bad) and len(cells) != len(self.columns):
                        cells = Bad(
                            f"{len(cells)} cells where the header has {len(self.columns)}; "
                            "quote a cell that holds a comma"
                        )
                    text = cells if isinstance(cells, Bad) else check_text(cells[at])
                    yield start, cells, text, share()
            if self.columns is None:
                raise DataError(f"{self.path}: the file is empty; a CSV has a header")
        finally:
            csv.field_size_limit(previous)


class JsonlSource(Source):
    """Rows are the text of a JSON object each."""

    suffix = ".jsonl"

    def records(self):
        with _text_file(self.path) as (file, share):
            for number, line in enumerate(file, 1):
                line = line.strip()
                if line:
                    yield number, line, self._text(line), share()

    def _text(self, line):
        problem = _encoding_problem(line)
        if problem:
            return problem
        try:
            record = json.loads(line, object_pairs_hook=list)
            # Pairs, so that a key that is there twice is seen.
            if not isinstance(record, list) or not line.startswith("{"):
                return Bad('not an object {"column": value}')
        except json.JSONDecodeError as error:
            return Bad(f"not JSON: {error.msg} at character {error.pos + 1}")
        except (ValueError, RecursionError):
            return Bad("not JSON that can be read")
        keys = [key for key, _ in record]
        for column in self.added:
            if column in keys:
                return Bad(f"key {column!r} is there already; rename it")
        if keys.count(self.text_column) != 1:
            how = "twice" if self.text_column in keys else "not there"
            return Bad(f"key {self.text_column!r} is {how}")
        return check_text(dict(record)[self.text_column])


class ParquetSource(Source):
    """Rows are record batches; `columns` is the schema, once the first chunk is there."""

    suffix = ".parquet"

    def chunks(self):
        try:
            with pyarrow.parquet.ParquetFile(self.path) as file:
                self.check_columns(file.schema_arrow.names)
                self.columns = file.schema_arrow
                total, row = max(file.metadata.num_rows, 1), 0
                for batch in file.iter_batches(batch_size=self.chunk_rows):
                    numbers = list(range(row + 1, row + 1 + len(batch)))
                    row += len(batch)
                    texts = [check_text(c) for c in _cells(batch.column(self.text_column))]
                    yield Chunk(batch, texts, numbers, row / total)
        except DataError:
            raise
        # On a damaged file pyarrow also raises what its own code trips over.
        except (pa.ArrowException, OSError, ValueError, LookupError, ArithmeticError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{self.path}: not a readable Parquet file: {reason}") from None


def _cells(array):
    try:
        return array.to_pylist()
    except (ValueError, OverflowError):
        return [_cell(value) for value in array]


def _cell(value):
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return "\udc80"  # which no text may hold
    except (ValueError, OverflowError):
        return float("nan")


class LinesSource(Source):
    """Texts, one a line, as the rows of another format with one column."""

    def __init__(self, lines, name: str, suffix: str, text_column: str, chunk_rows: int):
        super().__init__(Path(name), text_column, chunk_rows, ())
        self.name, self.suffix, self._lines = name, suffix, lines
        schema = pa.schema([(text_column, pa.string())])
        self.columns = {".csv": [text_column], ".jsonl": None, ".parquet": schema}[suffix]

    def records(self):
        for number, line in enumerate(self._lines, 1):
            text = line.rstrip("\r\n")
            yield number, text, check_text(text), None

    def chunks(self):
        for chunk in super().chunks():
            if self.suffix == ".csv":
                rows = [[text] for text in chunk.rows]
            elif self.suffix == ".jsonl":
                rows = [
                    json.dumps({self.text_column: text}, ensure_ascii=False) for text in chunk.rows
                ]
            else:
                # A text that is no text is refused or left out, so what stands for it is never
                # written.
                valid = ["" if isinstance(text, Bad) else text for text in chunk.texts]
                rows = pa.RecordBatch.from_arrays(
                    [pa.array(valid, pa.string())], self.columns.names
                )
            yield chunk._replace(rows=rows)


def _encoding_problem(text):
    if "\0" in text:
        return Bad("holds a NUL character; save the file as UTF-8 text")
    if not text.isascii():
        byte = _ESCAPED_BYTE.search(text)
        if byte:
            value = ord(byte.group()) - 0xDC00
            return Bad(f"byte {value:#04x} is not UTF-8; save the file as UTF-8")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            return Bad("holds half a surrogate pair")
    return None
