"""Cells: what a text, a score and a category may be, for training and for predicting alike."""

import datetime
import difflib
import email.utils
import itertools
import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from dwa_jax.data.rescaling import rescale
from dwa_jax.messages import quoted

_MAX_CATEGORY = np.iinfo(np.int32).max


# What programs write where there is no value.
_MISSING = ("n/a", "na", "#n/a", "#na", "nan", "null", "none", "nil", "missing", "-", "--", "?")
# 1.234.567,8
_GROUPED = re.compile(r"[-+]?\d{1,3}(\.\d{3})+(,\d*)?%?")
_SPLITS = {
    "train": "train",
    "training": "train",
    **dict.fromkeys(("validation", "valid", "val", "dev", "development", "eval"), "validation"),
    "test": "test",
    "testing": "test",
}


class Written(NamedTuple):
    """How a file writes numbers.

    Args:
        decimal_comma: 0,5 is a half, and points may group digits.
        percent: 45% is 0.45; a number without a sign stays what it is.
    """

    decimal_comma: bool = False
    percent: bool = False


PLAIN = Written()


class BadCell(Exception):
    """What is wrong with one cell, in one line."""


def text(cell: object) -> str:
    """Returns a text that a model can read; a list of strings is joined by spaces.

    Raises:
        BadCell: it is missing, no string, or holds what is no character.
    """
    if isinstance(cell, list) and all(isinstance(part, str) for part in cell):
        cell = " ".join(cell)
    if cell is None:
        raise BadCell("the text is empty")
    if not isinstance(cell, str):
        raise BadCell(f"the text {quoted(cell)} is of type {type(cell).__name__}, not a string")
    if not cell.strip():
        raise BadCell("the text is empty")
    if is_blank(cell):
        raise BadCell(f"the text {quoted(cell)} holds nothing that can be read")
    check_characters(cell)
    return cell


def is_blank(text: str) -> bool:
    """Says whether a text holds nothing but space and characters that are not read."""
    # A letter or digit says it at once, and nearly every text begins with one.
    if text[:1].isalnum():
        return False
    return not any(is_read(character) and not character.isspace() for character in text)


def is_read(character: str) -> bool:
    """Says whether a character is more than an accent, a control or of no width."""
    return unicodedata.category(character) not in ("Mn", "Cc", "Cf")


def check_characters(text: str) -> None:
    """Checks that a text can be tokenized and written.

    Raises:
        BadCell: it holds what is no character.
    """
    if "\0" in text:
        raise BadCell(f"the text {quoted(text)} holds a NUL character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadCell(f"the text {quoted(text)} holds half a surrogate pair") from None


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


def score(
    cell: object,
    score_range: tuple[float, float],
    labels: Mapping[str, float] | None = None,
    written: Written = PLAIN,
) -> float | None:
    """Returns a score rescaled to [-1, 1], or None where it is missing.

    Args:
        cell: a number, a string that holds one, or a label.
        score_range: (lowest, highest) that it may be.
        labels: scores by label, from `label_map`; None where cells are numbers.
        written: how numbers are.

    Raises:
        BadCell: it is no number, or outside the range.
    """
    if is_missing(cell):
        return None
    low, high = score_range
    value = as_number(cell, written) if labels is None else mapped(cell, labels)
    if value is None:
        raise BadCell(f"score {quoted(cell)} is not a number{_key(cell)}")
    if not math.isfinite(value):
        raise BadCell(f"score {quoted(cell)} is not finite; leave a missing one empty")
    if not low <= value <= high:
        raise BadCell(f"score {quoted(cell)} is outside [{low:g}, {high:g}] (see score_range)")
    return rescale(value, low, high)


def restore(value: float, score_range: tuple[float, float]) -> float:
    """Returns a score of [-1, 1] in the range that it was rescaled from, to 15 digits.

    Args:
        value: in [-1, 1]; a float counts as the shortest decimal that it is the nearest float to.
        score_range: (lowest, highest).
    """
    share, low, high = (Fraction(repr(float(x))) for x in (value, *score_range))
    return float(f"{float(low + (share + 1) / 2 * (high - low)):.15g}")


def _key(cell):
    # Which key would read it.
    if not isinstance(cell, str) or marks_missing(cell):
        return _if_missing(cell)
    if cell.strip().endswith("%") and as_number(cell, Written(True, True)) is not None:
        return " (see percent)"
    if as_number(cell, Written(decimal_comma=True)) is not None:
        return " (see decimal_comma)"
    # A letter by itself is a slip in a column of numbers, and a word may be a label.
    return " (see labels)" if cell.strip().isalpha() and len(cell.strip()) > 1 else ""


def _if_missing(cell):
    return "; leave a missing one empty" if marks_missing(cell) else ""


def label_map(labels: Mapping[Any, float] | str) -> dict[str, float]:
    """Returns labels in the form in which cells are looked up.

    Args:
        labels: {"negative": -1, "positive": 1}, or the text "negative=-1, positive=1" or the
            mapping in JSON. Case and white space around a label do not matter.

    Raises:
        ValueError: it is no mapping to finite numbers, or two labels are one.
    """
    wrong = f"labels={quoted(labels, 200)} must map words to numbers, as in negative=-1, positive=1"
    if isinstance(labels, str):
        try:
            if labels.lstrip().startswith("{"):
                labels = json.loads(labels)
            else:
                pairs = [part.rpartition("=") for part in labels.split(",") if part.strip()]
                labels = {word: float(value) for word, _, value in pairs}
        except ValueError:
            raise ValueError(wrong) from None
    if not isinstance(labels, Mapping) or not labels:
        raise ValueError(wrong)
    found: dict[str, float] = {}
    for word, value in labels.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise ValueError(wrong)
        if as_label(word) in found or not as_label(word):
            raise ValueError(f"{wrong}; {word!r} is there twice, or is none")
        found[as_label(word)] = float(value)
    return found


def as_label(cell: object) -> str:
    """Returns the form in which a cell is a label: "Positive " is "positive", 4.0 is "4"."""
    if isinstance(cell, bool):
        return str(cell).casefold()
    value = as_number(cell)
    if value is not None and value == value // 1:
        return str(int(value))
    return " ".join(str(cell).split()).casefold()


def mapped(cell: object, labels: Mapping[str, float]) -> float:
    """Returns a label's number.

    Raises:
        BadCell: it is not among them.
    """
    word = as_label(cell)
    if word not in labels:
        near = difflib.get_close_matches(word[:100], labels, n=1)
        hint = f" (nearest: {near[0]!r})" if near else _if_missing(cell)
        known = ", ".join(map(repr, itertools.islice(labels, 30)))
        raise BadCell(f"label {quoted(cell)} is not one of {known}{hint}")
    return labels[word]


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
        hint = f" (nearest: {near[0]!r})" if near else _if_missing(cell)
        known = ", ".join(map(repr, names))
        raise BadCell(f"category {quoted(cell)} is not one of {known}{hint}")
    value = as_number(cell)
    # 2.0 counts as 2: a table tool that meets an empty cell writes the whole column as floats.
    if value is None or not 0 <= value <= _MAX_CATEGORY or value != int(value):
        named = " (see category_names)" if value is None and isinstance(cell, str) else ""
        named = _if_missing(cell) or named
        raise BadCell(f"category {quoted(cell)} is not an integer >= 0{named}")
    if num_classes is not None and value >= num_classes:
        raise BadCell(f"category {int(value)} is not below num_classes={num_classes}")
    return int(value)


def as_number(cell: object, written: Written = PLAIN) -> float | None:
    """Returns the cell as a float, None where it is missing or no number."""
    if isinstance(cell, str):
        # float() would take digit groups such as 1_000, which no data file means.
        if "_" in cell:
            return None
        cell = cell.strip().replace("\u2212", "-")
        if written.decimal_comma:
            if _GROUPED.fullmatch(cell):
                cell = cell.replace(".", "")
            cell = cell.replace(",", ".") if cell.count(",") == 1 else cell
        if written.percent and cell.endswith("%"):
            try:
                return float(Decimal(cell[:-1].strip()) / 100)
            except ArithmeticError:
                return None
    elif isinstance(cell, bool) or not isinstance(cell, Real | Decimal):
        return None
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return None


def split_name(cell: object) -> str:
    """Returns "train", "validation" or "test" for what people call them.

    Raises:
        BadCell: it is none of them.
    """
    name = _SPLITS.get(as_label(cell)) if not is_missing(cell) else None
    if name is None:
        raise BadCell(f"split {quoted(cell)} is not train, validation or test")
    return name


def check_time_format(form: str) -> str:
    """Returns a form of times, "" for those that are known.

    Raises:
        ValueError: it is no form of `datetime.strptime` that has a year.
    """
    if form:
        try:
            moment = datetime.datetime(2024, 3, 31)
            read = datetime.datetime.strptime(moment.strftime(form), form)
        except ValueError:
            read = None
        if read is None or read.year != 2024:
            raise ValueError(
                f"time_format={form!r} is no form of a date with a year; one is '%d/%m/%Y %H:%M'"
            )
    return form


def time(cell: object, form: str = "") -> float:
    """Returns a time in seconds, so that times can be ordered.

    Args:
        cell: a date or time, an ISO 8601 string, what mail and Twitter write, or a number.
        form: how a string is written, as `datetime.strptime` takes it; "" for one of those.

    Raises:
        BadCell: it is none of them.
    """
    value = as_number(cell)
    if value is not None and math.isfinite(value) and not form:
        return value
    found: Any = cell
    if form and isinstance(cell, str | int):
        found = _parse_by(str(cell).strip(), form)
    elif isinstance(cell, str):
        found = _parse_time(cell.strip())
    if isinstance(found, datetime.date) and not isinstance(found, datetime.datetime):
        found = datetime.datetime(found.year, found.month, found.day)
    if not isinstance(found, datetime.datetime):
        if is_missing(cell):
            raise BadCell("the time is empty")
        if form:
            raise BadCell(f"the time {quoted(cell)} is not written as time_format={form!r}")
        fits = [one for one in _FORMS if isinstance(cell, str) and _parse_by(cell.strip(), one)]
        advice = (
            f"say which way it is written: time_format={' or '.join(map(repr, fits))}"
            if fits
            else "write 2024-03-31 or 2024-03-31T14:05:00, or say how it is written by time_format"
        )
        raise BadCell(f"the time {quoted(cell)} is none that can be read; {advice}")
    zone = found.tzinfo or datetime.UTC
    return (found.replace(tzinfo=zone) - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) / (
        datetime.timedelta(seconds=1)
    )


# Forms in which a day and a month may be taken for each other, or that only some countries write.
_FORMS = (
    *("%d/%m/%Y", "%m/%d/%Y", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%m/%d/%Y %I:%M %p"),
    *("%d.%m.%Y", "%d.%m.%Y %H:%M", "%d-%m-%Y", "%m-%d-%Y", "%d/%m/%y", "%m/%d/%y"),
    *("%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d %B %Y", "%d-%b-%y", "%b %d, %Y %I:%M %p"),
    *("%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "%m %d, %Y"),
)


def _parse_by(text, form):
    try:
        return datetime.datetime.strptime(text, form)
    except ValueError:
        return None


def _parse_time(text):
    for form in (text, text.replace("/", "-") if text[:4].isdecimal() else ""):
        try:
            return datetime.datetime.fromisoformat(form)
        except ValueError:
            continue
    try:
        # Twitter's Wed Aug 27 13:08:45 +0000 2008.
        return datetime.datetime.strptime(text, "%a %b %d %H:%M:%S %z %Y")
    except ValueError:
        pass
    try:
        return email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def marks_missing(cell: object) -> bool:
    """Tells whether a cell is what programs write where there is no value: "N/A", nan."""
    if isinstance(cell, str):
        return cell.strip().casefold() in _MISSING
    return isinstance(cell, float) and math.isnan(cell)


def is_missing(cell: object) -> bool:
    """Tells whether a cell holds nothing: None, or a string of white space."""
    return cell is None or (isinstance(cell, str) and not cell.strip())
