"""JSON Lines: rows are the text of a JSON object each."""

import json
from collections.abc import Iterator

from dwa_jax.data import text_files
from dwa_jax.data.rows import BadRow
from dwa_jax.data.tables.reader import Record, TableReader
from dwa_jax.messages import one_line

# Names of keys that are kept for a message.
_MOST_NAMES = 1000


class JsonLinesReader(TableReader):
    """Reads a file of JSON objects, one a line."""

    suffix = ".jsonl"

    def records(self) -> Iterator[Record]:
        seen: dict[str, None] = {}
        columns, objects = self.wanted.columns, 0
        with text_files.open_text(self.source) as (file, share):
            for number, line in enumerate(file, 1):
                line = line.strip()
                if not line:
                    continue
                value = self._parse(line)
                if isinstance(value, BadRow):
                    yield number, line, value, share()
                    continue
                objects += 1
                if len(seen) < _MOST_NAMES:
                    seen.update(dict.fromkeys(value))
                else:
                    seen.update((name, None) for name in columns if name in value)
                yield number, line, self._cells(value), share()
        # Only the last line tells whether a key is in no object at all.
        if objects:
            self.check_columns(list(seen))

    def _cells(self, record):
        if self.wanted.text not in record:
            return BadRow(f"the text is empty: there is no key {self.wanted.text!r}")
        for column in self.wanted.added:
            if column in record:
                return BadRow(f"key {column!r} is there already; rename it")
        return [record.get(column) for column in self.wanted.columns]

    def _parse(self, line: str) -> dict | BadRow:
        problem = text_files.encoding_problem(line)
        if problem:
            return BadRow(problem)

        def once(pairs):
            record = dict(pairs)
            if len(record) < len(pairs):
                # The parser itself would keep the last one in silence.
                keys = [key for key, _ in pairs]
                for column in self.wanted.columns:
                    if keys.count(column) > 1:
                        raise ValueError(f"key {column!r} is there {keys.count(column)} times")
            return record

        try:
            value = json.loads(line, object_pairs_hook=once)
        except json.JSONDecodeError as error:
            return BadRow(f"not JSON: {error.msg} at character {error.pos + 1}")
        except (ValueError, RecursionError) as error:
            return BadRow(f"not JSON that can be read: {one_line(error)}")
        if not isinstance(value, dict):
            kind = type(value).__name__
            return BadRow(f'a {kind} where an object {{"column": value}} is expected')
        return value
