"""JSON: rows are the text of an object each, one a line, or the elements of one array."""

import contextlib
import io
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from dwa_jax.data import compression, encodings, text_files
from dwa_jax.data.rows import BadRow, DataError
from dwa_jax.data.tables.layout import Layout
from dwa_jax.data.tables.reader import ABSENT, Record, TableReader, Wanted, dig
from dwa_jax.messages import one_line, quoted

# Names of keys that are kept for a message.
_MOST_NAMES = 1000
_PART = 2**16  # characters read at once
_LONGEST = 2**28  # characters of an element
_WHOLE = 2**26  # characters of a file that are looked at as one
_SPACE = re.compile(r"[ \t\r\n]*")


class JsonReader(TableReader):
    """Reads a file of JSON objects.

    Args:
      path: the file; an array of objects where its first character is "[" and its name does not
        say lines.
      wanted: what is read of it; a column may be a path, such as "info.0.score".
      given: what is known of its layout.
    """

    suffix = ".jsonl"

    def __init__(self, path: Path, wanted: Wanted, given: Layout):
        super().__init__(path, wanted)
        self._given = given

    def records(self) -> Iterator[Record]:
        encoding = self._given.encoding or encodings.find_encoding(self.source)
        if encoding not in (self._given.encoding, encodings.UTF_8):
            self.notes.append(encodings.remark(encoding))
        self._encoding = encoding
        seen: dict[str, None] = {}
        objects = 0
        with text_files.open_text(self.source, encoding) as (file, share):
            for number, text in self._objects(file):
                value = self._parse(text)
                if isinstance(value, BadRow):
                    yield number, text, value, share
                    continue
                objects += 1
                cells = [dig(value, name) for name in self.wanted.columns]
                if len(seen) < _MOST_NAMES:
                    seen.update(dict.fromkeys(value))
                for name, cell in zip(self.wanted.columns, cells, strict=True):
                    if cell is not ABSENT:
                        seen[name] = None
                yield number, text, self._checked(value, cells), share
        # Only the last row tells whether a key is in no object at all.
        if objects:
            self.check_columns(list(seen), exact=True)

    def _objects(self, file):
        begun = ""
        if compression.suffixes(self.source)[0] == ".json":
            begun = file.read(_PART)
            if begun.lstrip().startswith("["):
                yield from enumerate(_Array(self.name, file, begun).elements(), 1)
                return
            begun += file.readline()
            if len(begun) < _LONGEST and _is_cut(begun):
                begun += file.read(_WHOLE)
                self._check_no_object(begun)
        lines = itertools.chain(io.StringIO(begun, newline=""), file)
        for number, line in enumerate(lines, 1):
            line = line.strip()
            if line:
                yield number, line

    def _check_no_object(self, text):
        # One object over all of the file is no row, but holds them in some way.
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError):
            return
        if isinstance(whole, dict) and (shape := _shape(whole, self.wanted.text)):
            raise DataError(f"{self.name}: is one JSON object {shape}")

    def _checked(self, record, cells):
        if cells[0] is ABSENT:
            return BadRow(f"the text is empty: there is no key {self.wanted.text!r}", whole=True)
        for column in self.wanted.added:
            if column in record:
                return BadRow(f"key {column!r} is there already; rename it")
        return [None if cell is ABSENT else cell for cell in cells]

    def _parse(self, text: str) -> dict | BadRow:
        problem = text_files.encoding_problem(text, self._encoding)
        if problem:
            return BadRow(problem)

        def once(pairs):
            record = dict(pairs)
            if len(record) < len(pairs):
                # The parser itself would keep the last one in silence.
                keys = [key for key, _ in pairs]
                for column in self.wanted.columns:
                    for key in {column, *column.split(".")}:
                        if keys.count(key) > 1:
                            raise ValueError(f"key {key!r} is there {keys.count(key)} times")
            return record

        try:
            value = json.loads(text, object_pairs_hook=once)
        except json.JSONDecodeError as error:
            return BadRow(f"not JSON: {error.msg} at character {error.pos + 1}")
        except (ValueError, RecursionError) as error:
            return BadRow(f"not JSON that can be read: {one_line(error)}")
        if not isinstance(value, dict):
            kind = type(value).__name__
            return BadRow(f'a {kind} where an object {{"column": value}} is expected')
        return value


def _is_cut(begun):
    # Whether the first line is no object of its own, or the only one.
    first, _, rest = begun.strip().partition("\n")
    if rest.strip():
        with contextlib.suppress(ValueError, RecursionError):
            return not isinstance(json.loads(first), dict)
    return True


def _shape(whole, text):
    # How an object holds rows, and what would be right; "" where it may be a row itself.
    expected = "; an array of objects is expected, or an object a line"
    if isinstance(whole.get(text), str):
        return ""
    for key, value in whole.items():
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            key = quoted(key, 30)
            return f"with the rows in its array {key}{expected}: write that array as the file"
    pandas = "; pandas writes that by to_json(FILE, orient='records')"
    if {"columns", "data"} <= set(whole):
        return f"as pandas' orient='split' writes it{expected}{pandas}"
    if whole and all(isinstance(value, dict) for value in whole.values()):
        how = "an object a row" if all(key.isdecimal() for key in whole) else "an object a column"
        return f"with {how}{expected}{pandas}"
    return ""


class _Array:
    """The elements of an array of JSON, each as its text in one line, read part by part."""

    # Boundaries alone are found here: what a string may not hold is the element's own fault.
    _decoder = json.JSONDecoder(strict=False)

    def __init__(self, name: str, file: TextIO, begun: str):
        self._name, self._file, self._text = name, file, begun
        self._at, self._line, self._ended = 0, 1, False

    def elements(self) -> Iterator[str]:
        """Yields the text of each.

        Raises:
          DataError: the array has no end, or something that is no JSON in it.
        """
        self._space()
        self._at += 1  # [
        if self._space() == "]":
            self._at += 1
        else:
            while True:
                self._space()
                end = self._find_end()
                text = self._text[self._at : end]
                # Line ends stand between tokens; in a string they would be no JSON.
                yield re.sub("[\r\n]+[ \t]*", " ", text)
                self._line += _line_ends(text)
                self._at = end
                mark = self._space()
                self._at += 1
                if mark == "]":
                    break
                if mark != ",":
                    raise self._wrong(f"',' or ']' is expected, not {mark!r}")
        if self._space():
            raise self._wrong("something follows the array's end")

    def _wrong(self, what):
        return DataError(f"{self._name}, line {self._line}: not a JSON array: {what}")

    def _more(self, least=_PART):
        # Forgets what is done with, and reads on; tells whether there was anything.
        part = self._file.read(least)
        if part.endswith("\r"):
            part += self._file.read(1)
        self._text, self._at = self._text[self._at :] + part, 0
        self._ended = not part
        return not self._ended

    def _space(self):
        # Skips white space; returns the character behind it, "" at the end of the file.
        while True:
            found = _SPACE.match(self._text, self._at)
            end = found.end() if found else self._at
            self._line += _line_ends(self._text[self._at : end])
            self._at = end
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _find_end(self):
        while True:
            try:
                _, end = self._decoder.raw_decode(self._text, self._at)
                # A number may go on behind what has been read.
                if end < len(self._text) or self._ended:
                    return end
            except json.JSONDecodeError as error:
                cut = len(self._text) - error.pos < 16 or error.msg.startswith("Unterminated")
                if self._ended or not cut:
                    raise self._wrong(one_line(error)) from None
            except (ValueError, RecursionError) as error:
                raise self._wrong(one_line(error)) from None
            size = len(self._text) - self._at
            if size > _LONGEST:
                raise self._wrong("an element is longer than 256 MiB")
            self._more(max(_PART, size))


def _line_ends(text):
    return text.count("\n") + text.count("\r") - text.count("\r\n")
