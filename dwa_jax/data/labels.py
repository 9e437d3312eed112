"""What people write for sentiment: words with a direction and a degree, and scales."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable

from dwa_jax.data import cells

_NEGATIVE = "negative neg bearish bad sell down false no unfavorable unfavourable pessimistic -"
_POSITIVE = "positive pos bullish good buy up true yes favorable favourable optimistic +"
_NEUTRAL = "neutral neu mixed hold none objective flat neither"
_STRONG = ("very", "extremely", "strong", "strongly", "highly")
_WEAK = ("somewhat", "slightly", "weakly", "mildly", "moderately")

_STARS = re.compile(r"(\d{1,2})(?:\.0)?[ -]?(?:stars?|\*|out of \d+|/ ?\d+)")
# Ranges that scales have; the first that holds all scores and is not much wider is proposed.
_RANGES = (
    *((0, 1), (-1, 1), (1, 3), (0, 2), (-2, 2), (0, 3), (0, 4), (1, 5), (0, 5), (-3, 3), (1, 7)),
    *((-4, 4), (-5, 5), (1, 9), (1, 10), (0, 10), (-10, 10), (0, 100), (-100, 100)),
)


def direction(word: str) -> float | None:
    """Returns -1, -0.5, 0, 0.5 or 1 for a known word, else None; 0.5 is one without a degree.

    Args:
      word: as `cells.as_label` writes it.
    """
    parts = word.replace("_", " ").replace("-", " ").split() or [word]
    kind = parts[-1] if parts[-1] not in ("sentiment", "news") else parts[0]
    sign = next(
        (
            sign
            for sign, words in ((-1, _NEGATIVE), (0, _NEUTRAL), (1, _POSITIVE))
            if kind in words.split()
        ),
        None,
    )
    if sign is None or len(parts) > 2:
        return None
    if len(parts) == 2 and parts[0] in _STRONG:
        return float(sign)
    if len(parts) == 2 and parts[0] not in (*_WEAK, kind):
        return None
    return 0.25 * sign if parts[0] in _WEAK else 0.5 * sign


def propose_map(words: Iterable[str]) -> dict[str, float] | None:
    """Returns scores for label words that are all known, None where one is not.

    Args:
      words: distinct labels, as `cells.as_label` writes them.
    """
    found: dict[str, float] = {}
    for word in words:
        value = direction(word)
        if value is None:
            return None
        found[word] = value
    if len(set(found.values())) < 2:
        return None
    values = {abs(value) for value in found.values() if value}
    # The strongest there is counts whole, so that three words are -1, 0 and 1.
    scale = max(values, default=1.0)
    return {
        word: value / scale
        for word, value in sorted(found.items(), key=lambda item: (item[1], item[0]))
    }


def propose_stars(words: Iterable[str]) -> dict[str, float] | None:
    """Returns numbers for labels such as "4 stars", None where one is another.

    Args:
      words: distinct labels, as `cells.as_label` writes them.
    """
    found = {word: _STARS.fullmatch(word) for word in words}
    if len(found) < 2 or not all(found.values()):
        return None
    numbers = {word: float(match[1]) for word, match in found.items() if match}
    return dict(sorted(numbers.items(), key=lambda item: item[1]))


def propose_range(numbers: Iterable[float]) -> tuple[float, float] | None:
    """Returns (lowest, highest) of a usual scale for scores, None where they are in [-1, 1].

    Args:
      numbers: the file's, at least one.
    """
    occur = set(numbers)
    low, high = min(occur), max(occur)
    if -1 <= low < 0 and high <= 1:
        return None
    if len(occur) == 2 and all(number == int(number) for number in occur):
        return float(low), float(high)  # two sides, and no scale that is used at two places
    for bottom, top in _RANGES:
        # From 2 to 13 is no part of a scale to 100.
        if bottom <= low and top / 5 < high <= top and (bottom, top) != (-1, 1):
            return float(bottom), float(top)
    return math.floor(low) + 0.0, math.ceil(high) + 0.0 if high > low else high + 1.0


def write_map(found: dict[str, float]) -> str:
    """Returns a map in the form that the key `labels` takes."""
    if any(c in word for word in found for c in ",={"):
        return json.dumps(found)
    return ",".join(f"{word}={value:g}" for word, value in found.items())


def is_split(values: Iterable[object]) -> bool:
    """Tells whether all values name a split, and not all the same."""
    try:
        return len({cells.split_name(value) for value in values}) > 1
    except cells.BadCell:
        return False
