"""Which column of a table holds its labels: by its name, or by words that say sentiment.

Numbers, flags and words that nobody knows are labels where the column's name says so, and never
otherwise: "verified" looks like "positive or not", and a count of words like a scale from 0 to 100.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from dwa_jax.data import cells, labels

MOST_LABELS = 30
# Names, or parts of them, the likeliest first.
_NAMES = (
    *("sentiment_score", "score", "polarity", "compound", "sentiment", "rating", "stars"),
    *("overall", "label", "target", "class", "category", "gold", "opinion", "valence"),
    *("emotion", "mood", "y"),
)
# What is told of a label and is none: sentiment_confidence.
_OF_LABELS = re.compile(r"(?i)[_\W](user|date|time|timestamp|counts?|confidence|std|votes?)$")
_FLAGS = {"true", "false", "yes", "no"}
_EITHER = cells.Written(decimal_comma=True, percent=True)


def read_number(cell: object) -> float | None:
    """Returns what a cell may mean as a number, however it is written; None for none."""
    plain = cells.as_number(cell)
    found = plain if plain is not None else cells.as_number(cell, _EITHER)
    return found if found is not None and math.isfinite(found) else None


def are_numbers(values: Sequence[object]) -> bool:
    """Says whether a column holds numbers: most of its cells that do not mark a missing one."""
    read = [read_number(value) is not None for value in values if not cells.marks_missing(value)]
    return sum(read) > len(read) / 2


def rank(name: str, values: Sequence[object]) -> float:
    """Returns how much a column looks like labels; 0 for not at all.

    Args:
      name: the column's, or its path.
      values: cells that are not empty.
    """
    named, looks = _named(name), looks_like_labels(values)
    if not looks or not (named or _says_sentiment(values)):
        return 0.0
    return looks + named


def is_name(name: str) -> bool:
    """Says whether a column of this name, in lower case, is one of labels."""
    return name in _NAMES


def looks_like_labels(values: Sequence[object]) -> float:
    """Returns how much cells look like labels, whatever their column is called; 0 for not at all.

    Args:
      values: cells that are not empty.
    """
    if not values or isinstance(values[0], list):
        return 0.0
    if are_numbers(values):
        numbers = [found for value in values if (found := read_number(value)) is not None]
        whole = all(n == int(n) for n in numbers)
        # Numbers that count rows are no labels, nor are years.
        if whole and len(set(numbers)) == len(numbers) > 12:
            return 0.0
        inside = min(numbers) >= -1 and max(numbers) <= 1
        return 1.0 + inside * 0.5 + (whole and len(set(numbers)) <= 11) * 0.5
    words = {cells.as_label(value) for value in values}
    if labels.propose_map(words) or labels.propose_stars(words):
        return 2.5
    few = 2 <= len(words) <= min(MOST_LABELS, max(2, len(values) // 2))
    return 0.3 if few and max(map(len, words)) < 60 else 0.0


def best_for(known: Mapping[str, float], columns: Mapping[str, Sequence[object]]) -> str | None:
    """Returns the column that holds given label words, None where none does.

    Args:
      known: from `cells.label_map`.
      columns: name -> cells that are not empty.
    """
    shares = {
        name: sum(cells.as_label(value) in known for value in values) / len(values)
        for name, values in columns.items()
        if values and not isinstance(values[0], list)
    }
    best = max(shares, key=lambda name: (shares[name], _named(name)), default=None)
    return best if best is not None and shares[best] > 0.5 else None


def one_hot(columns: Mapping[str, Sequence[object]]) -> list[str]:
    """Returns columns that share a label between them: "pos", "neg" and "neu" of 0 and 1."""
    found = [
        name
        for name, values in columns.items()
        if labels.direction(cells.as_label(name)) is not None and are_numbers(values)
    ]
    return found if len(found) > 1 else []


def _named(name):
    last = name.rpartition(".")[2].casefold()
    if last in _NAMES:
        return 3.0 - _NAMES.index(last) / 20
    if _OF_LABELS.search(last):
        return 0.0
    place = next((i for i, part in enumerate(_NAMES[:-1]) if part in last), None)
    if place is not None:
        return 2.0 - place / 20
    # "bullish", of true and false.
    return 0.5 if (labels.direction(last.removeprefix("is_")) or 0) > 0 else 0.0


def _says_sentiment(values):
    words = {cells.as_label(value) for value in values}
    known = labels.propose_map(words) or labels.propose_stars(words)
    return bool(known) and not words <= _FLAGS and not are_numbers(values)
