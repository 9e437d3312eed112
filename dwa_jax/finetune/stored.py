"""What a finished run's summary.json may hold, checked before anything is made of it.

A folder may come from a stranger: whatever reads a summary may rely on the types, lengths and
ranges that are told here. Axis: K categories.
"""

import itertools
import math
import sys
from pathlib import Path
from typing import Any

from dwa_jax.messages import shown

# Numbers of rows, steps or bytes: whole in every program that reads JSON.
_MOST = 2**53
_BINS = 40  # of the histogram of scores


def check_summary(summary: dict, path: Path, num_classes: int) -> None:
    """Checks a summary.

    Args:
      summary: of a run.
      path: of its file, for messages.
      num_classes: K.

    Raises:
      ValueError: it does not hold what a run writes; names file and field.
    """
    thresholds = summary.get("thresholds", "nothing")
    if thresholds is not None and not _ascending(thresholds, num_classes - 1):
        raise _wrong(path, "thresholds", f"null or {num_classes - 1} ascending numbers", thresholds)
    split = summary.get("predictions")
    if split not in ("validation", "test"):
        raise _wrong(path, "predictions", "'validation' or 'test'", split)
    for name in ("validation", "test"):
        found = summary.get(name)
        if found is not None or name in (split, "validation"):
            _check_metrics(path, name, found, num_classes)
    for name, found in _mapping(path, summary, "also_tested").items():
        _check_metrics(path, f"also_tested {shown(name, 60)!r}", found, num_classes)
    _check_count(path, "epochs", summary.get("epochs"))
    if summary.get("best_epoch", 0) is not None:
        _check_count(path, "best_epoch", summary.get("best_epoch"))
    if not isinstance(summary.get("monitor"), str):
        raise _wrong(path, "monitor", "a metric's name", summary.get("monitor"))
    temperature = summary.get("temperature")
    if temperature is not None and not (_is_number(temperature) and temperature > 0):
        raise _wrong(path, "temperature", "null or a number above 0", temperature)
    if not isinstance(summary.get("thresholds_from") or "", str):
        raise _wrong(path, "thresholds_from", "a name", summary["thresholds_from"])
    if "folds" in summary:
        _check_folds(path, summary["folds"], num_classes)
    _check_count(path, "skipped_steps", summary.get("skipped_steps", 0))
    rows = _mapping(path, summary, "rows")
    for name, found in rows.items():
        counted = f"rows of {shown(name, 60)!r}"
        if not isinstance(found, dict) or not _counts(found.get("by_class"), num_classes):
            raise _wrong(path, counted, f"a count and {num_classes} by class", found)
        _check_count(path, counted, found.get("count"))
    if "score_histogram" in summary:
        histogram = summary["score_histogram"]
        if not _counts(histogram, _BINS):
            raise _wrong(path, "score_histogram", f"{_BINS} counts", histogram)
        if not sum(rows.get("train", {}).get("by_class", ())) and thresholds is not None:
            raise _wrong(path, "rows", "those of the training split", rows)
    parameters = _mapping(path, summary, "parameters")
    _check_count(path, "parameters total", parameters.get("total", 0))
    for source, name in ((parameters, "trained"), (summary, "machine_scored"), (summary, "memory")):
        for value in _mapping(path, source, name).values():
            _check_count(path, name, value)
    for value in _mapping(path, summary, "timing").values():
        if not _is_number(value) or not 0 <= value < _MOST:
            raise _wrong(path, "timing", "seconds", value)
    _check_count(path, "left_out count", _mapping(path, summary, "left_out").get("count", 0))


def _check_folds(path, found, num_classes):
    each = found.get("each") if isinstance(found, dict) else None
    if not isinstance(each, list) or not 2 <= len(each) <= 1000:
        raise _wrong(path, "folds", "the results of at least two", found)
    if type(found.get("kept")) is not int or not 1 <= found["kept"] <= len(each):
        raise _wrong(path, "folds, kept", f"one of {len(each)}", found.get("kept"))
    for name in ("kept_by", "interval"):
        if not isinstance(found.get(name), str):
            raise _wrong(path, f"folds, {name}", "words", found.get(name))
    for name, numbers in _mapping(path, found, "metrics").items():
        label = f"folds, {shown(name, 60)}"
        for value in _mapping(path, {label: numbers}, label).values():
            if value is not None and not _is_number(value):
                raise _wrong(path, label, "numbers", value)
    for fold, one in enumerate(each, 1):
        if not isinstance(one, dict):
            raise _wrong(path, f"fold {fold}", "names and values", one)
        for split in ("validation", "test"):
            _check_metrics(path, f"{split} of fold {fold}", one.get(split), num_classes)


def check_metrics(found: object, where: Path | str, num_classes: int) -> None:
    """Checks the metrics of a split.

    Raises:
      ValueError: they are not what a run writes; names file and metric.
    """
    _check_metrics(where, "an evaluation", found, num_classes)


def _check_metrics(path, split, found, num_classes):
    if not isinstance(found, dict):
        raise _wrong(path, split, "metrics", found)
    for name, value in found.items():
        label = f"{split}, {shown(name, 60)}"
        if name == "confusion":
            square = isinstance(value, list) and len(value) == num_classes
            if not square or not all(_counts(row, num_classes) for row in value):
                raise _wrong(path, label, f"{num_classes} x {num_classes} counts", value)
        elif str(name).endswith("_by_class"):
            fits = isinstance(value, list) and len(value) == num_classes
            if not fits or not all(one is None or _is_number(one) for one in value):
                raise _wrong(path, label, f"{num_classes} numbers", value)
        elif value is not None and not _is_number(value) and name not in ("kind", "split"):
            raise _wrong(path, label, "a number", value)
    if "confusion" not in found:
        raise _wrong(path, f"{split}, confusion", f"{num_classes} x {num_classes} counts", None)


def _ascending(values, count):
    if not isinstance(values, list) or len(values) != count or not all(map(_is_number, values)):
        return False
    return all(low <= high for low, high in itertools.pairwise(values))


def _counts(values, count):
    return isinstance(values, list) and len(values) == count and all(map(_is_count, values))


def _is_count(value):
    return type(value) is int and 0 <= value < _MOST


def _is_number(value):
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max and not math.isnan(value)


def _check_count(path, name, value):
    if not _is_count(value):
        raise _wrong(path, name, "a whole number from 0", value)


def _mapping(path: Path, summary: dict, name: str) -> dict[str, Any]:
    found = summary.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _wrong(path, name, "names and values", found)
    return found


def _wrong(path, name, expected, value):
    return ValueError(f"{path} is damaged: {name} must be {expected}, got {shown(value, 60)}")
