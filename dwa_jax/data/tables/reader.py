"""What every reader of tables is: chunks of rows, with the cells of the wanted columns.

A chunk at a time, so that a file may be larger than the memory. Row numbers are what an editor
shows: the first physical line of the record, counted from 1 (so a CSV's header is row 1); for
Parquet, the hub and an array of JSON, whose records are no lines, the index plus 1.
"""

import collections
import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from dwa_jax.data.rows import BadRow, DataError
from dwa_jax.messages import quoted

CHUNK_ROWS = 4096
# (row number, row as the writer takes it, its cells or what is wrong with it, tells the share read
# where that is known)
Record = tuple[int, Any, Sequence[object] | BadRow, Callable[[], float] | None]

# What `dig` returns where a record holds nothing of that name.
ABSENT = object()


class MissingColumn(DataError):
    """A table lacks a column that was asked for."""


class Wanted(NamedTuple):
    """What is read of a table.

    Attributes:
      text: column that holds the texts; a row without it is bad.
      labels: further columns, of which a row may lack some.
      optional: those of them that a whole file may lack; their cells are then None.
      added: columns that will be written behind the table's, which it must not have.
      chunk_rows: rows of a chunk; the last one has fewer.
      whole: whether chunks keep of each row all that a writer needs to write it again.
    """

    text: str
    labels: Sequence[str] = ()
    optional: Sequence[str] = ()
    added: Sequence[str] = ()
    chunk_rows: int = CHUNK_ROWS
    whole: bool = False

    @property
    def columns(self) -> list[str]:
        """The text's, then the others."""
        return [self.text, *self.labels]


class Chunk(NamedTuple):
    """Consecutive rows of a table.

    Attributes:
      rows: as the format's writer takes them; nothing of use unless `whole` was wanted.
      cells: of each row one a column, or what is wrong with it.
      numbers: row numbers.
      share: of the table that has been read by its end; None where nobody knows.
    """

    rows: Any
    cells: list[Sequence[object] | BadRow]
    numbers: list[int]
    share: float | None

    def keep(self, kept: Sequence[int]) -> Any:
        """Returns the rows at these places."""
        if isinstance(self.rows, pa.RecordBatch):
            return self.rows.take(pa.array(kept, pa.int64()))
        return [self.rows[i] for i in kept]


class TableReader:
    """A table to be read.

    Attributes:
      name: for messages.
      suffix: the format that its rows are written in again.
      notes: what was found of the table that its name does not tell, a line each.
      header: what a writer begins with, once the first chunk is there: a CSV's names, a
        Parquet's schema; None where there is no such thing.
      delimiter: between a CSV's cells.
      quoted: whether a CSV's cell in quotes may hold delimiters and line ends.
    """

    suffix: str
    header: Any = None
    delimiter: str = ","
    quoted: bool = True

    def __init__(self, name: Any, wanted: Wanted):
        self.source, self.name, self.wanted = name, str(name), wanted
        self.notes: list[str] = []

    def chunks(self) -> Iterator[Chunk]:
        """Yields the rows in their order.

        Raises:
          DataError: the table cannot be read, lacks a column, or has one that will be added.
        """
        rows, cells, numbers = [], [], []
        share: Callable[[], float] | None = None
        end = None
        records = self.records()
        while True:
            try:
                number, row, found, share = next(records)
            except StopIteration:
                break
            except MissingColumn:
                raise  # what is wrong with every row comes before any of them
            except DataError as error:
                end = error
                break
            rows.append(row)
            cells.append(found)
            numbers.append(number)
            if len(numbers) == self.wanted.chunk_rows:
                yield Chunk(rows, cells, numbers, share and share())
                rows, cells, numbers = [], [], []
        if numbers:
            yield Chunk(rows, cells, numbers, share and share())
        if end is not None:
            raise end

    def records(self) -> Iterator[Record]:
        """Yields each row by itself, for readers whose `chunks` are made of them."""
        raise NotImplementedError

    def check_columns(self, there: Sequence[str], exact: bool = False) -> None:
        """Checks the names of a table's columns.

        Args:
          there: the names.
          exact: whether they are paths, of which the first part is not enough.

        Raises:
          MissingColumn: one that was asked for is not there.
          DataError: one is there twice, or one that will be added is there.
        """
        named = tell_apart(there)
        for column in self.wanted.columns:
            if (times := list(there).count(column)) > 1:
                raise DataError(
                    f"{self.name}: column {column!r} is there {times} times; "
                    f"say which by '{column}#1' to '{column}#{times}'"
                )
            known = column in named if exact else owner(column, named) is not None
            if not known and column not in self.wanted.optional:
                raise MissingColumn(f"{self.name}: no column {column!r}; {_listed(there, column)}")
        for column in self.wanted.added:
            if column in there:
                raise DataError(f"{self.name}: column {column!r} is there already; rename it")


def tell_apart(header: Sequence[str]) -> list[str]:
    """Returns the names by which columns are asked for: "n#1" and "n#2" where two are "n"."""
    counts = collections.Counter(header)
    seen: collections.Counter[str] = collections.Counter()
    names = []
    for name in header:
        seen[name] += 1
        names.append(f"{name}#{seen[name]}" if counts[name] > 1 else name)
    return names


def owner(name: str, there: Sequence[str]) -> str | None:
    """Returns the column that a name or path is of: "info" for "info.0.score"; None for none."""
    while name not in there:
        name, dot, _ = name.rpartition(".")
        if not dot:
            return None
    return name


def dig(record: Any, path: str) -> Any:
    """Returns a value inside nested objects and lists.

    Args:
      record: of JSON's types.
      path: a key, or keys and places with dots between, as in "info.0.sentiment_score".

    Returns:
      The value; `ABSENT` where there is none.
    """
    if isinstance(record, dict) and path in record:
        return record[path]
    value, rest = record, path
    while rest:
        part, _, rest = rest.partition(".")
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return ABSENT
    return value


def _listed(there, missing):
    folded = {name.casefold(): name for name in there}
    near = difflib.get_close_matches(missing.casefold(), folded, n=1, cutoff=0.5)
    hint = f" (nearest: {quoted(folded[near[0]])})" if near else ""
    names = ", ".join(quoted(name) for name in there[:30]) or "none"
    more = f" and {len(there) - 30} more" if len(there) > 30 else ""
    return f"there: {names}{more}{hint}"


class SeveralTables(TableReader):
    """Files of one format and of the same columns, one behind the other."""

    def __init__(self, readers: Sequence[TableReader]):
        first = readers[0]
        super().__init__(first.source, first.wanted)
        self.suffix, self._readers = first.suffix, readers
        for reader in readers[1:]:
            if reader.suffix != self.suffix:
                raise DataError(
                    f"{reader.name} is {reader.suffix} and {first.name} {first.suffix}: name files "
                    "of one type, for they have one output"
                )

    def chunks(self) -> Iterator[Chunk]:
        sizes = [reader.source.stat().st_size for reader in self._readers]
        for place, reader in enumerate(self._readers):
            self.name = reader.name
            for chunk in reader.chunks():
                self._check_same(reader)
                read = sum(sizes[:place]) + sizes[place] * (chunk.share or 0)
                yield chunk._replace(share=read / max(sum(sizes), 1))
            # Also of a file without rows.
            self._check_same(reader)
            self.notes += [note for note in reader.notes if note not in self.notes]

    def _check_same(self, reader):
        if self.header is None:
            self.header = reader.header
            self.delimiter, self.quoted = reader.delimiter, reader.quoted
        elif self.header != reader.header:
            raise DataError(
                f"{reader.name}: its columns are not those of {self._readers[0].name}, and one "
                "output cannot hold both"
            )
