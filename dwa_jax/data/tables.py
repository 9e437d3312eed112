"""Tables of texts that are read in parts: CSV, JSONL, Parquet, lines.

A source yields chunks, so that a file may be larger than the memory, and of each row all that
a sink needs to write it again. Row numbers are those of `dwa_jax.data.formats`: the first
physical line, counted from 1; for Parquet the index plus 1.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet

from dwa_jax.data import DataError, compression, formats, text_files
from dwa_jax.data.rows import BadRow, one_line

FORMATS = (".csv", ".jsonl", ".parquet")


class Chunk(NamedTuple):
    """Consecutive rows of a table.

    Attributes:
      rows: as the format's sink takes them.
      texts: of each row, or what is wrong with it.
      numbers: row numbers.
      share: of the table that has been read by its end; None where nobody knows.
    """

    rows: Any
    texts: list[str | BadRow]
    numbers: list[int]
    share: float | None

    def keep(self, kept: Sequence[int]) -> Any:
        """Returns the rows at these places."""
        if isinstance(self.rows, pa.RecordBatch):
            return self.rows.take(pa.array(kept, pa.int64()))
        return [self.rows[i] for i in kept]


def check_text(cell: object) -> str | BadRow:
    """Returns a text that can be predicted, or what is wrong with it."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return BadRow("the text is empty")
    if not isinstance(cell, str):
        return BadRow(f"the text {repr(cell)[:60]} is of type {type(cell).__name__}, not a string")
    problem = text_files.encoding_problem(cell)
    if problem is None:
        try:
            cell.encode("utf-8")
        except UnicodeEncodeError:
            problem = "holds half a surrogate pair"
    return cell if problem is None else BadRow(problem)


def open_source(path: Path, text_column: str, chunk_rows: int, added: Sequence[str]) -> "Source":
    """Opens a file.

    Args:
      path: ends in .csv or .jsonl, which may be compressed (see `dwa_jax.data.compression`),
        or in .parquet.
      text_column: that holds the texts.
      chunk_rows: rows of a chunk; the last one has fewer.
      added: columns that will be added, which the file must not have.

    Raises:
      DataError: there is no such file or it is of an unknown type.
    """
    try:
        suffix = check_name(path)
    except DataError as error:
        raise DataError(f"{error}; lines, a text each, go to standard input: < FILE") from None
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name a file in it")
    kinds = {".csv": CsvSource, ".jsonl": JsonlSource, ".parquet": ParquetSource}
    return kinds[suffix](path, text_column, chunk_rows, added)


def open_sources(paths: Sequence[Path], *options: Any) -> "Source":
    """Opens one file, or several to be read as one; see `open_source`.

    Raises:
      DataError: there is no such file, it is of an unknown type or of another than the first.
    """
    sources = [open_source(path, *options) for path in paths]
    return sources[0] if len(sources) == 1 else SeveralSources(sources)


def check_name(path: Path) -> str:
    """Returns the format that a file's name tells.

    Raises:
      DataError: none that is known.
    """
    suffix, compressed = compression.suffixes(path)
    if suffix not in FORMATS:
        raise DataError(
            f"{path}: unknown file type {suffix + compressed!r}; known: {', '.join(FORMATS)}"
        )
    if suffix == ".parquet" and compressed:
        raise DataError(f"{path}: Parquet is compressed inside; name a .parquet file")
    return suffix


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

    def records(self) -> Iterator[tuple[int, Any, str | BadRow, float | None]]:
        """Yields (row number, row, text, share) of each row."""
        raise NotImplementedError

    def check_columns(self, there: Sequence[str]) -> None:
        """Checks names of columns; the text's must be there once, those to be added must not."""
        if list(there).count(self.text_column) != 1:
            near = difflib.get_close_matches(self.text_column, there, n=1, cutoff=0.5)
            hint = f" (nearest: {near[0]!r})" if near else ""
            if len(there) == 1 and (separator := re.search("[;\t|]", there[0])):
                hint = f"; it looks separated by {separator.group()!r}, where a comma is expected"
            how = "twice" if self.text_column in there else "not there"
            names = ", ".join(map(repr, there[:30])) or "none"
            raise DataError(
                f"{self.path}: column {self.text_column!r} is {how}; there: {names}{hint}; "
                "name the text's with --text_column"
            )
        for column in self.added:
            if column in there:
                raise DataError(f"{self.path}: column {column!r} is there already; rename it")


class CsvSource(Source):
    """Rows are lists of cells; `columns` is the header, once the first chunk is there."""

    suffix = ".csv"

    def records(self) -> Iterator[tuple[int, Any, str | BadRow, float | None]]:
        with text_files.open_text(self.path) as (file, share):
            for start, cells in text_files.csv_records(self.path, file):
                if self.columns is None:
                    self.check_columns(cells)
                    self.columns = cells
                    at = cells.index(self.text_column)
                    continue
                text = cells if isinstance(cells, BadRow) else check_text(cells[at])
                yield start, cells, text, share()
        if self.columns is None:
            raise DataError(f"{self.path}: the file is empty; a CSV has a header")


class JsonlSource(Source):
    """Rows are the text of a JSON object each."""

    suffix = ".jsonl"

    def records(self) -> Iterator[tuple[int, Any, str | BadRow, float | None]]:
        with text_files.open_text(self.path) as (file, share):
            for number, line in enumerate(file, 1):
                line = line.strip()
                if line:
                    yield number, line, self._text(line), share()

    def _text(self, line):
        problem = text_files.encoding_problem(line)
        if problem:
            return BadRow(problem)
        try:
            record = json.loads(line, object_pairs_hook=list)
            # Pairs, so that a key that is there twice is seen.
            if not isinstance(record, list) or not line.startswith("{"):
                return BadRow('not an object {"column": value}')
        except json.JSONDecodeError as error:
            return BadRow(f"not JSON: {error.msg} at character {error.pos + 1}")
        except (ValueError, RecursionError):
            return BadRow("not JSON that can be read")
        keys = [key for key, _ in record]
        for column in self.added:
            if column in keys:
                return BadRow(f"key {column!r} is there already; rename it")
        if keys.count(self.text_column) != 1:
            how = "twice" if self.text_column in keys else "not there"
            return BadRow(f"key {self.text_column!r} is {how}")
        return check_text(dict(record)[self.text_column])


class ParquetSource(Source):
    """Rows are record batches; `columns` is the schema, once the first chunk is there."""

    suffix = ".parquet"

    def chunks(self) -> Iterator[Chunk]:
        try:
            with pyarrow.parquet.ParquetFile(self.path) as file:
                self.check_columns(file.schema_arrow.names)
                self.columns = file.schema_arrow
                total, row = max(file.metadata.num_rows, 1), 0
                for batch in file.iter_batches(batch_size=self.chunk_rows):
                    numbers = list(range(row + 1, row + 1 + len(batch)))
                    row += len(batch)
                    column = formats.parquet_cells(batch.column(self.text_column))
                    texts = [c if isinstance(c, BadRow) else check_text(c) for c in column]
                    yield Chunk(batch, texts, numbers, row / total)
        except DataError:
            raise
        # On a damaged file pyarrow also raises what its own code trips over.
        except (pa.ArrowException, OSError, ValueError, LookupError, ArithmeticError) as error:
            raise DataError(
                f"{self.path}: not a readable Parquet file: {one_line(error)}"
            ) from None


class SeveralSources(Source):
    """Files of one format and of the same columns, one behind the other."""

    def __init__(self, sources: Sequence[Source]):
        first = sources[0]
        super().__init__(first.path, first.text_column, first.chunk_rows, first.added)
        self.suffix, self._sources = first.suffix, sources
        for source in sources[1:]:
            if source.suffix != self.suffix:
                raise DataError(
                    f"{source.path} is {source.suffix} and {first.path} {first.suffix}: name files "
                    "of one type, for they have one output"
                )

    def chunks(self) -> Iterator[Chunk]:
        sizes = [source.path.stat().st_size for source in self._sources]
        for place, source in enumerate(self._sources):
            # What errors name.
            self.path = source.path
            for chunk in source.chunks():
                self._check_same(source)
                read = sum(sizes[:place]) + sizes[place] * (chunk.share or 0)
                yield chunk._replace(share=read / max(sum(sizes), 1))
            # Also of a file without rows.
            self._check_same(source)

    def _check_same(self, source):
        if self.columns is None:
            self.columns = source.columns
        elif self.columns != source.columns:
            raise DataError(
                f"{source.path}: its columns are not those of {self._sources[0].path}, and one "
                "output cannot hold both"
            )


class LinesSource(Source):
    """Texts, one a line, as the rows of another format with one column."""

    def __init__(
        self, lines: Iterable[str], name: str, suffix: str, text_column: str, chunk_rows: int
    ):
        super().__init__(Path(name), text_column, chunk_rows, ())
        self.name, self.suffix, self._lines = name, suffix, lines
        schema = pa.schema([(text_column, pa.string())])
        self.columns = {".csv": [text_column], ".jsonl": None, ".parquet": schema}[suffix]

    def records(self) -> Iterator[tuple[int, Any, str | BadRow, float | None]]:
        for number, line in enumerate(self._lines, 1):
            text = line.rstrip("\r\n")
            yield number, text, check_text(text), None

    def chunks(self) -> Iterator[Chunk]:
        for chunk in super().chunks():
            rows: Any
            if self.suffix == ".csv":
                rows = [[text] for text in chunk.rows]
            elif self.suffix == ".jsonl":
                rows = [
                    json.dumps({self.text_column: text}, ensure_ascii=False) for text in chunk.rows
                ]
            else:
                # A text that is no text is refused or left out, so what stands for it is never
                # written.
                valid = ["" if isinstance(text, BadRow) else text for text in chunk.texts]
                rows = pa.RecordBatch.from_arrays(
                    [pa.array(valid, pa.string())], self.columns.names
                )
            yield chunk._replace(rows=rows)
