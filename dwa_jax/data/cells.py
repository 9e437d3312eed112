"""Cells: what a text, a score and a category may be, for training and for predicting alike."""

import difflib
import math
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real

import numpy as np

from dwa_jax.data.rescaling import rescale
from dwa_jax.messages import quoted

_MAX_CATEGORY = np.iinfo(np.int32).max


class BadCell(Exception):
    """What is wrong with one cell, in one line."""


def text(cell: object) -> str:
    """Returns a text that a model can read.

    Raises:
        BadCell: it is missing, no string, or holds what is no character.
    """
    if cell is None:
        raise BadCell("the text is empty")
    if not isinstance(cell, str):
        raise BadCell(f"the text {quoted(cell)} is of type {type(cell).__name__}, not a string")
    if not cell.strip():
        raise BadCell("the text is empty")
    if "\0" in cell:
        raise BadCell(f"the text {quoted(cell)} holds a NUL character")
    try:
        cell.encode("utf-8")
    except UnicodeEncodeError:
        raise BadCell(f"the text {quoted(cell)} holds half a surrogate pair") from None
    return cell


def check_range(score_range: tuple[float, float] | None) -> tuple[float, float]:
    """Returns (lowest, highest) of a file's scores; None is (-1, 1).

    Raises:
        ValueError: it is not two finite numbers in their order.
    """
    if score_range is None:
        return (-1.0, 1.0)
    try:
        low, high = (float(bound) for bound in score_range)
    except (TypeError, ValueError):
        raise ValueError(f"score_range is (lowest, highest), got {score_range!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"score_range is (lowest, highest) with lowest < highest, got {low, high}")
    return low, high


def score(cell: object, score_range: tuple[float, float]) -> float | None:
    """Returns a score rescaled to [-1, 1], or None where it is missing.

    Args:
        cell: a number, or a string that holds one.
        score_range: (lowest, highest) that it may be.

    Raises:
        BadCell: it is no number, or outside the range.
    """
    if is_missing(cell):
        return None
    low, high = score_range
    value = number(cell)
    if value is None:
        raise BadCell(f"score {quoted(cell)} is not a number")
    if not math.isfinite(value):
        raise BadCell(f"score {quoted(cell)} is not finite; leave a missing one empty")
    if not low <= value <= high:
        raise BadCell(f"score {quoted(cell)} is outside [{low:g}, {high:g}] (see score_range)")
    return rescale(value, low, high)


def category(cell: object, names: Sequence[str] | None, num_classes: int | None) -> int | None:
    """Returns a category in [0, K), or None where it is missing.

    Args:
        cell: a name, or an integer in any form.
        names: K that the cell is one of; None where it is an integer.
        num_classes: K, which an integer must be below; None where any will do.

    Raises:
        BadCell: it is none of them.
    """
    if is_missing(cell):
        return None
    if names is not None:
        name = cell.strip() if isinstance(cell, str) else cell
        if isinstance(name, str) and name in names:
            return list(names).index(name)
        near = difflib.get_close_matches(name[:100] if isinstance(name, str) else "", names, n=1)
        hint = f" (nearest: {near[0]!r})" if near else ""
        known = ", ".join(map(repr, names))
        raise BadCell(f"category {quoted(cell)} is not one of {known}{hint}")
    value = number(cell)
    # 2.0 counts as 2: a table tool that meets an empty cell writes the whole column as floats.
    if value is None or not 0 <= value <= _MAX_CATEGORY or value != int(value):
        raise BadCell(f"category {quoted(cell)} is not an integer >= 0")
    if num_classes is not None and value >= num_classes:
        raise BadCell(f"category {int(value)} is not below num_classes={num_classes}")
    return int(value)


def number(cell: object) -> float | None:
    """Returns the cell as a float, None where it is missing or no number."""
    if isinstance(cell, str):
        # float() would take digit groups such as 1_000, which no data file means.
        if "_" in cell:
            return None
    elif isinstance(cell, bool) or not isinstance(cell, Real | Decimal):
        return None
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return None


def is_missing(cell: object) -> bool:
    """Tells whether a cell holds nothing: None, or a string of white space."""
    return cell is None or (isinstance(cell, str) and not cell.strip())
