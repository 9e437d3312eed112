"""What a file that nobody has described may hold: columns, layout, labels and range, proposed.

Only the dry run asks for it: training reads what it is told.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet

from dwa_jax.data import cells, encodings, label_columns, labels, tables
from dwa_jax.data.rows import BadRow, DataError
from dwa_jax.data.tables import hub, layout
from dwa_jax.data.text_files import open_text

_ROWS = 1000
# Parts of names, the likeliest first.
_TEXTS = (
    *("text", "tweet", "sentence", "headline", "title", "review", "content", "comment"),
    *("message", "body", "phrase", "summary", "news", "description"),
)
_SPLITS = ("split", "fold", "partition", "subset", "set")


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
      DataError: the file cannot be read, or nothing in it looks like texts or like labels.
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
    if given.get("score_column") != "" and not given.get("category_column"):
        others = {name: values for name, values in columns.items() if name not in taken}
        _guess_labels(source, given, others, names, found)
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
            found.reasons.append(f"it is no UTF-8; {encodings.remark(encoding)}")
            form = form._replace(encoding=encoding)
    if tables.ENDINGS[ending] == ".csv" and ending != ".xlsx":
        form = _find_layout(path, ending, form, found)
    wanted = tables.Wanted("", optional=("",), whole=True)
    reader = tables.open_table(source, wanted, form)
    records, wrong = [], ""
    for number, row, read, _ in itertools.islice(reader.records(), _ROWS):
        if not isinstance(read, BadRow) or read.whole:
            records.append(row)
        elif not wrong:
            wrong = f"row {number}: {read.problem}"
    if wrong and not records:
        raise DataError(f"{source}: no row can be read; {wrong}")
    if reader.suffix == ".jsonl":
        return _flat([json.loads(record) for record in records])
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
    if any(name in _TEXTS or label_columns.is_name(name) for name in names):
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
    text = max(columns, key=lambda name: _words_each(columns[name]))
    names = {text: "text"}
    others = {
        name: label_columns.looks_like_labels(column)
        for name, column in columns.items()
        if name != text
    }
    label = max(others, key=lambda name: others[name], default=None)
    if label is not None and others[label]:
        names[label] = "label"
    return tuple(names.get(name, name) for name in columns)


def _words_each(values):
    texts = [" ".join(v) if isinstance(v, list) else v for v in values]
    texts = [t for t in texts if isinstance(t, str)]
    if not texts or any(cells.as_number(t) is not None for t in texts[:20]):
        return 0.0
    return sum(len(t.split()) for t in texts) / len(values)


def _text_column(source, columns):
    words = {name: _words_each(values) for name, values in columns.items()}
    best, named = 0.0, ""
    for name, count in words.items():
        rank = next((i for i, part in enumerate(_TEXTS) if part in name.casefold()), None)
        distinct = len({str(value) for value in columns[name]}) / max(len(columns[name]), 1)
        value = min(count, 12) * (0.2 + distinct) + (8 - rank / 4 if rank is not None else 0)
        if count and value > best and not name.casefold().endswith(("id", "url", "link")):
            best, named = value, name
    if not named:
        raise DataError(f"{source}: no column looks like texts; there: {_listed(columns)}")
    return named


def _guess_labels(source, given, columns, there, found):
    name = given.get("score_column")
    if name is None:
        name = _label_column(source, given, columns, there)
        if name != "score":
            found.keys["score_column"] = name
    elif name not in columns:
        return  # reading says so, and what is there
    values = _all(source, given, found, name)
    what = f"{source}: column {name!r}"
    if given.get("labels"):
        known = cells.label_map(given["labels"])
        words = map(cells.as_label, values)
        _scale(given, found, what, [known[word] for word in words if word in known])
    elif label_columns.are_numbers(values):
        _numbers(given, found, what, name, values)
    else:
        _words(given, found, what, name, values)


def _label_column(source, given, columns, there):
    if given.get("labels"):
        best = label_columns.best_for(cells.label_map(given["labels"]), columns)
        if best is None:
            raise DataError(
                f"{source}: no column holds the words of labels={cells.quoted(given['labels'])}; "
                f"there: {_listed(there)}"
            )
        return best
    ranks = {name: label_columns.rank(name, values) for name, values in columns.items()}
    best = max(ranks, key=lambda name: ranks[name], default=None)
    shared = label_columns.one_hot(columns)
    if best in shared:
        raise DataError(
            f"{source}: columns {_listed(shared)} share the label between them; write into one "
            "column which of them is highest, and name that: --config.score_column=NAME"
        )
    if best is not None and ranks[best]:
        return best
    words = f"{source}: no column looks like scores or labels by its name or words"
    looks = {n: label_columns.looks_like_labels(v) for n, v in columns.items() if n.strip()}
    likely = max(looks, key=lambda name: looks[name], default=None)
    if likely is None or not looks[likely]:
        raise DataError(f"{words}; there: {_listed(there)}")
    raise DataError(
        f"{words}; there: {_listed(there)}; if it is {likely!r}, say so: "
        f"{shlex.quote(f'--config.score_column={likely}')}"
    )


def _listed(columns):
    return ", ".join(map(repr, columns))[:300]


def _numbers(given, found, what, name, values):
    _leave_out(found, name, [value for value in values if cells.marks_missing(value)])
    values = [value for value in values if label_columns.read_number(value) is not None]
    strings = [value for value in values if isinstance(value, str)]
    if any(value.strip().endswith("%") for value in strings):
        found.keys["percent"] = True
    if any("," in value for value in strings):
        found.keys["decimal_comma"] = True
        found.reasons.append(f"{name!r} has decimal commas")
    written = cells.Written("decimal_comma" in found.keys, "percent" in found.keys)
    numbers = [n for value in values if (n := cells.as_number(value, written)) is not None]
    if not numbers:
        raise DataError(f"{what} is written in several ways: {cells.quoted(values[0])}")
    _scale(given, found, what, numbers)


def _words(given, found, what, name, values):
    words = list(dict.fromkeys(map(cells.as_label, values)))
    missing = [value for value in values if cells.marks_missing(value)]
    # "none" and "-" may be labels, too.
    if missing and not labels.propose_map(words):
        _leave_out(found, name, missing)
        values = [value for value in values if not cells.marks_missing(value)]
        words = list(dict.fromkeys(map(cells.as_label, values)))
    if len(words) > label_columns.MOST_LABELS:
        raise DataError(f"{what} holds {len(words)} different words, no scores or categories")
    if proposed := labels.propose_map(words):
        found.keys["labels"] = labels.write_map(proposed)
        found.reasons.append(f"the words of {name!r} are known ones, given scores from -1 to 1")
        return _classes(given, found, what, proposed.values())
    if stars := labels.propose_stars(words):
        found.keys["labels"] = labels.write_map(stars)
        found.reasons.append(f"the words of {name!r} count stars")
        return _scale(given, found, what, stars.values())
    order = f"the words of {name!r} have no known order"
    scored = ",".join(f"{word}=..." for word in words[:3]) + ",..." * (len(words) > 3)
    if given.get("score_column"):
        raise DataError(
            f"{what}: {order}; give each a score, --config.labels={scored!r}, or take them as "
            f"categories: --config.score_column= --config.category_column={name}"
        )
    found.keys |= {"score_column": "", "category_column": name, "tasks": ("classification",)}
    found.keys["monitor"] = "f1_macro"
    found.keys["category_names"] = tuple(dict.fromkeys(str(value).strip() for value in values))
    found.reasons.append(f"{order}; put category_names into theirs, or give labels={scored!r}")
    return _classes(given, found, what, found.keys["category_names"])


def _leave_out(found, name, missing):
    if missing:
        found.reasons.append(
            f"{len(missing)} cells of {name!r} are {cells.quoted(missing[0])} or the like, without "
            "a label; their rows are left out"
        )
        found.keys["on_bad_row"] = "skip"


def _scale(given, found, what, numbers):
    if not given.get("score_range") and numbers:
        proposed = labels.propose_range(numbers)
        if proposed:
            found.keys["score_range"] = proposed
            found.reasons.append(
                f"scores lie between {min(numbers):g} and {max(numbers):g}; taken as a scale from "
                f"{proposed[0]:g} to {proposed[1]:g}"
            )
    _classes(given, found, what, numbers)


def _classes(given, found, what, values):
    distinct = set(values)
    if len(distinct) < 2:
        same = "".join(f" ({cells.quoted(value)})" for value in distinct)
        raise DataError(f"{what}: all labels are the same{same}: there is nothing to learn")
    if "num_classes" not in given and (len(distinct) < 5 or "category_names" in found.keys):
        found.keys["num_classes"] = len(distinct)


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
