"""What a file that nobody has described may hold: columns, layout, labels and range, proposed.

Only the dry run asks for it: training reads what it is told.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet

from dwa_jax.data import cells, encodings, labels, tables
from dwa_jax.data.rows import BadRow, DataError
from dwa_jax.data.tables import hub, layout
from dwa_jax.data.text_files import open_text

_ROWS = 1000
_MOST_LABELS = 30
# Parts of names, the likeliest first.
_TEXTS = (
    *("text", "tweet", "sentence", "headline", "title", "review", "content", "comment"),
    *("message", "body", "phrase", "summary", "news", "description"),
)
_SCORES = (
    *("sentiment_score", "score", "polarity", "compound", "sentiment", "rating", "stars"),
    *("label", "target", "class", "category", "gold", "opinion", "y"),
)
_SPLITS = ("split", "fold", "partition", "subset", "set")
_NO_LABELS = re.compile(r"(?i)(^|_)(id|ids|index|unnamed.*|user|date|time|timestamp|count)$|^$")


@dataclass
class Guess:
    """What a table seems to hold.

    Attributes:
      keys: configuration key -> value, for those that must differ from their defaults.
      reasons: what led there, a line each.
    """

    keys: dict[str, Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


def guess(source: str, given: Mapping[str, Any]) -> Guess:
    """Guesses what a table holds.

    Args:
      source: a file or a data set of the hub.
      given: keys that are said already, which stay as they are.

    Returns:
      Keys that are not given; none of a column that fits.

    Raises:
      DataError: the file cannot be read, or nothing in it looks like a text.
    """
    found = Guess()
    names, rows = _peek(source, given, found)
    if not rows:
        raise DataError(f"{source}: holds no rows")
    columns = {
        name: [value for row in rows if (value := row[i]) not in (None, "")]
        for i, name in enumerate(names)
    }
    text = given.get("text_column") or _text_column(source, columns)
    if text != "text":
        found.keys["text_column"] = text
    taken = {text, *(given.get(key) for key in ("split_column", "group_column", "time_column"))}
    if not given.get("split_column"):
        for name, values in columns.items():
            if name.casefold() in _SPLITS and name not in taken and labels.is_split(values):
                found.keys["split_column"] = name
                taken.add(name)
    if given.get("score_column") is None and not given.get("category_column"):
        _label_column(source, given, columns, taken, found)
    return found


def _peek(
    source: str, given: Mapping[str, Any], found: Guess
) -> tuple[list[str], list[list[object]]]:
    # Names of all columns, paths in nested ones, and the first rows.
    if source.startswith("hub:"):
        table = hub.load(source)
        return _flat([table[i] for i in range(min(_ROWS, len(table)))])
    path = Path(os.path.expanduser(source))
    ending = tables.ending_of(path)
    tables.open_table(source, tables.Wanted(""))  # for what it says of files that are not there
    if ending == ".parquet":
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                batch = next(file.iter_batches(_ROWS), None)
            return ([], []) if batch is None else _flat(batch.to_pylist())
        except (pyarrow.ArrowException, OSError, ValueError):
            next(tables.open_table(source, tables.Wanted("")).chunks(), None)  # says what is wrong
            raise
    form = layout.Layout(
        given.get("delimiter", ""), given.get("encoding", ""), given.get("columns", ())
    ).check()
    if ending != ".xlsx" and not form.encoding:
        encoding = encodings.find_encoding(path)
        if encoding != encodings.UTF_8:
            found.keys["encoding"] = encoding
            found.reasons.append(f"it is no UTF-8, and reads as {encoding}")
            form = form._replace(encoding=encoding)
    if tables.ENDINGS[ending] == ".csv" and ending != ".xlsx":
        form = _find_layout(path, ending, form, found)
    wanted = tables.Wanted("", optional=("",), whole=True)
    reader = tables.open_table(source, wanted, form)
    records = [
        row
        for _, row, cells_, _ in itertools.islice(reader.records(), _ROWS)
        if row is not None and not (reader.suffix == ".csv" and isinstance(cells_, BadRow))
    ]
    if reader.suffix == ".jsonl":
        parsed = []
        for text in records:
            try:
                parsed.append(json.loads(text))
            except (ValueError, RecursionError):
                continue
        return _flat([record for record in parsed if isinstance(record, dict)])
    return layout.tell_apart(reader.header or []), records


def _flat(records: Sequence[dict]) -> tuple[list[str], list[list[object]]]:
    # {"info": [{"score": 1}]} has the path info.0.score.
    flat = [dict(_leaves(record, "")) for record in records]
    names = list(dict.fromkeys(itertools.chain.from_iterable(flat)))[:200]
    return names, [[record.get(name) for name in names] for record in flat]


def _leaves(value, path, depth=0):
    inner: Any = ()
    if depth < 6 and isinstance(value, dict):
        inner = value.items()
    elif depth < 6 and isinstance(value, list) and not all(isinstance(v, str) for v in value):
        inner = enumerate(value[:3])
    for key, part in inner:
        yield from _leaves(part, f"{path}.{key}" if path else str(key), depth + 1)
    if not inner and path and not isinstance(value, dict):
        yield path, value


def _find_layout(path, ending, form, found):
    with open_text(path, form.encoding or encodings.UTF_8) as (file, _):
        sample = file.read(2**20)
    usual = "\t" if ending in (".tsv", ".txt") else ","
    if not form.delimiter:
        delimiter = layout.likeliest(sample, usual, len(form.columns))
        if delimiter != usual:
            found.keys["delimiter"] = delimiter
            found.reasons.append(f"its cells are separated by {delimiter!r}")
        form = form._replace(delimiter=delimiter)
    if not form.columns:
        records = layout.sampled(sample, form.delimiter)
        if records and not _is_header(records):
            columns = _name(records)
            found.keys["columns"] = columns
            found.reasons.append("its first row is no header; names are made up")
            form = form._replace(columns=columns)
    return form


def _is_header(records):
    first, rest = records[0], [row for row in records[1:] if len(row) == len(records[0])]
    names = [name.strip().casefold() for name in first]
    if any(cells.as_number(cell) is not None for cell in first if cell.strip()):
        return False
    if any(name in _TEXTS or name in _SCORES for name in names):
        return True
    if any(len(name.split()) > 4 or labels.direction(name) for name in names) or not rest:
        return False
    below = list(zip(*rest, strict=True))
    return any(
        all(cells.as_number(c) is not None for c in column if c.strip())
        and any(map(str.strip, column))
        for column in below
    ) or not any(cell in set(column) for cell, column in zip(first, below, strict=True))


def _name(records):
    # The column of texts is "text", of labels "label", others by their place.
    width = len(records[0])
    rows = [row for row in records if len(row) == width]
    below = [[cell for cell in column if cell] for column in zip(*rows, strict=True)]
    columns = {f"column_{i + 1}": column for i, column in enumerate(below)}
    text = max(columns, key=lambda name: _words(columns[name]))
    others = {name: _label_rank(name, column) for name, column in columns.items() if name != text}
    label = max(others, key=lambda name: others[name], default=None)
    return tuple({text: "text", label: "label"}.get(name, name) for name in columns)


def _words(values):
    texts = [" ".join(v) if isinstance(v, list) else v for v in values]
    texts = [t for t in texts if isinstance(t, str)]
    if not texts or any(cells.as_number(t) is not None for t in texts[:20]):
        return 0.0
    return sum(len(t.split()) for t in texts) / len(values)


def _text_column(source, columns):
    words = {name: _words(values) for name, values in columns.items()}
    best, named = 0.0, ""
    for name, count in words.items():
        rank = next((i for i, part in enumerate(_TEXTS) if part in name.casefold()), None)
        distinct = len({str(value) for value in columns[name]}) / max(len(columns[name]), 1)
        value = min(count, 12) * (0.2 + distinct) + (8 - rank / 4 if rank is not None else 0)
        if count and value > best and not name.casefold().endswith(("id", "url", "link")):
            best, named = value, name
    if not named:
        raise DataError(
            f"{source}: no column looks like texts; there: {', '.join(map(repr, columns))[:300]}"
        )
    return named


def _label_rank(name, values):
    # How much a column looks like labels; 0 for not at all.
    if not values or isinstance(values[0], list):
        return 0.0
    last = name.rpartition(".")[2].casefold()
    place = next((i for i, part in enumerate(_SCORES) if part == last), None)
    if place is None:
        place = next((i + 20 for i, part in enumerate(_SCORES[:-1]) if part in last), None)
    if place is None and _NO_LABELS.search(last):
        return 0.0
    named = 3.0 - place / 20 if place is not None else 0.0
    words = {cells.as_label(value) for value in values}
    numeric = all(_number(value) is not None for value in values)
    if numeric:
        numbers = [_number(value) for value in values]
        whole = all(n == int(n) for n in numbers)
        # Numbers that count rows are no labels, nor are years.
        if whole and len(set(numbers)) == len(numbers) > 12:
            return 0.0
        inside = min(numbers) >= -1 and max(numbers) <= 1
        return 1.0 + named + inside * 0.5 + (whole and len(words) <= 11) * 0.5
    if labels.propose_map(words):
        return 2.5 + named
    if named and len(words) <= min(_MOST_LABELS, max(2, len(values) // 2)):
        return named
    few = 2 <= len(words) <= min(8, len(values) // 3)
    return 0.3 if few and max(map(len, words)) < 25 else 0.0


_EITHER = cells.Written(decimal_comma=True, percent=True)


def _number(value):
    plain = cells.as_number(value)
    found = plain if plain is not None else cells.as_number(value, _EITHER)
    return found if found is not None and math.isfinite(found) else None


def _label_column(source, given, columns, taken, found):
    ranks = {n: _label_rank(n, v) for n, v in columns.items() if n not in taken}
    name = max(ranks, key=lambda n: ranks[n], default=None)
    if name is None or not ranks[name]:
        raise DataError(
            f"{source}: no column looks like scores or labels; there: "
            f"{', '.join(map(repr, columns))[:300]}; name one with score_column or category_column"
        )
    values = _all(source, given, found, name)
    if all(_number(value) is not None for value in values):
        return _numbers(given, found, name, values)
    words = list(dict.fromkeys(map(cells.as_label, values)))
    proposed = labels.propose_map(words)
    if proposed and not given.get("labels"):
        found.keys["labels"] = labels.write_map(proposed)
        found.reasons.append(f"the words of {name!r} are known ones, given scores from -1 to 1")
        _classes(given, found, len(set(proposed.values())))
        if name != "score":
            found.keys["score_column"] = name
        return None
    stars = labels.propose_stars(words)
    if stars and not given.get("labels"):
        found.keys |= {"labels": labels.write_map(stars), "score_column": name}
        found.keys["score_range"] = labels.propose_range(min(stars.values()), max(stars.values()))
        found.reasons.append(f"the words of {name!r} count stars")
        _classes(given, found, len(stars))
        return None
    if len(words) > _MOST_LABELS:
        raise DataError(
            f"{source}: column {name!r} holds {len(words)} different words, no scores or categories"
        )
    found.keys |= {"score_column": "", "category_column": name, "tasks": ("classification",)}
    found.keys["monitor"] = "f1_macro"
    found.keys["category_names"] = tuple(dict.fromkeys(str(value).strip() for value in values))
    found.reasons.append(
        f"the words of {name!r} have no known order; put category_names into theirs"
    )
    _classes(given, found, len(found.keys["category_names"]))
    return None


def _numbers(given, found, name, values):
    if name != "score":
        found.keys["score_column"] = name
    strings = [value for value in values if isinstance(value, str)]
    if any(value.strip().endswith("%") for value in strings):
        found.keys["percent"] = True
    if any("," in value for value in strings):
        found.keys["decimal_comma"] = True
        found.reasons.append(f"{name!r} has decimal commas")
    written = cells.Written("decimal_comma" in found.keys, "percent" in found.keys)
    found_numbers = (cells.as_number(value, written) for value in values)
    numbers = [n for n in found_numbers if n is not None and math.isfinite(n)]
    if not numbers:
        raise DataError(f"column {name!r} is written in several ways: {cells.quoted(values[0])}")
    if not given.get("score_range") and not given.get("labels"):
        proposed = labels.propose_range(min(numbers), max(numbers))
        if proposed:
            found.keys["score_range"] = proposed
            found.reasons.append(
                f"scores lie between {min(numbers):g} and {max(numbers):g}; taken as a scale from "
                f"{proposed[0]:g} to {proposed[1]:g}"
            )
    _classes(given, found, len(set(numbers)))


def _classes(given, found, distinct):
    if distinct < 2:
        raise DataError("all labels are the same: there is nothing to learn")
    if "num_classes" not in given and (distinct < 5 or "category_names" in found.keys):
        found.keys["num_classes"] = distinct


def _all(source, given, found, name):
    # Every cell of one column, so that no label or extreme is missed.
    keys = {**found.keys, **given}
    form = layout.Layout(
        keys.get("delimiter", ""), keys.get("encoding", ""), keys.get("columns", ())
    )
    wanted = tables.Wanted(keys.get("text_column", "text"), (name,), (name,))
    values = []
    for chunk in tables.open_table(source, wanted, form).chunks():
        for row in chunk.cells:
            if not isinstance(row, BadRow) and not cells.is_missing(row[1]):
                values.append(row[1])
    if not values:
        raise DataError(f"{source}: column {name!r} is empty")
    return values
