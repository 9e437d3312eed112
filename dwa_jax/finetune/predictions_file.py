"""predictions.csv: the texts of a split with their labels and what was predicted."""

import csv
import io
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dwa_jax import regular_files
from dwa_jax.atomic_files import replacing

# Characters of a line, categories, and the largest number that float32 has.
_LONGEST, _MOST_CLASSES, _LARGEST = 2**28, 1000, 3.5e38
_MOST_FOLDS = 1000


class SplitPredictions(NamedTuple):
    """What predictions.csv holds: N rows, K categories.

    Attributes:
      texts: N strings.
      scores: (N,) true, NaN where the row has none.
      predicted_scores: (N,), NaN for a run without regression.
      categories: (N,) true, -1 where the row has none.
      predicted_categories: (N,).
      probabilities: (N, K), or None for a run without classification.
      folds: (N,) the fold, from 1, that held a row out; None where there are no folds.
    """

    texts: list[str]
    scores: np.ndarray
    predicted_scores: np.ndarray
    categories: np.ndarray
    predicted_categories: np.ndarray
    probabilities: np.ndarray | None
    folds: np.ndarray | None = None


def write_predictions(path: Path, found: SplitPredictions) -> None:
    """Writes predictions.csv: text, labels, predictions, one probability a category.

    Of a run without regression there is no predicted_score, and no score where no row has one.

    Args:
      path: the file.
      found: N rows.

    Raises:
      OSError: it cannot be written.
    """
    probabilities = found.probabilities
    num_classes = 0 if probabilities is None else probabilities.shape[1]
    predicted = not np.isnan(found.predicted_scores).all() or probabilities is None
    scored = predicted or not np.isnan(found.scores).all()
    header = _header(scored, predicted, num_classes, found.folds is not None)
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for i, text in enumerate(found.texts):
            score, category = found.scores[i], found.categories[i]
            line: list = [text]
            if scored:
                line.append("" if np.isnan(score) else float(score))
            if predicted:
                line.append(float(found.predicted_scores[i]))
            line += ["" if category < 0 else int(category), int(found.predicted_categories[i])]
            if probabilities is not None:
                line += [float(probabilities[i, k]) for k in range(num_classes)]
            if found.folds is not None:
                line.append(int(found.folds[i]))
            writer.writerow(line)


def _header(scored, predicted, num_classes, folds):
    scores = ["score"] * scored + ["predicted_score"] * predicted
    probabilities = [f"probability_{k}" for k in range(num_classes)]
    return ["text", *scores, "category", "predicted_category", *probabilities, *["fold"] * folds]


def read_predictions(path: Path, num_classes: int | None = None) -> SplitPredictions:
    """Reads predictions.csv.

    Args:
      path: the file.
      num_classes: K that the run has; None takes any.

    Returns:
      Its rows, in their order.

    Raises:
      ValueError: it is damaged; says where.
      OSError: it cannot be read.
    """
    number = 1
    missing = {float: math.nan, int: -1}
    # A text may be longer than the 128 KiB that the module takes by itself.
    previous = csv.field_size_limit(2**31 - 1)
    most = (_MOST_CLASSES if num_classes is None else num_classes) - 1
    try:
        with regular_files.open_to_read(path) as raw:
            file = io.TextIOWrapper(raw, encoding="utf-8", newline="")
            lines = csv.reader(_bounded(file))
            header = next(lines, [])
            columns_of_classes = sum(name.startswith("probability_") for name in header)
            there = ("score" in header, "predicted_score" in header)
            if columns_of_classes > _MOST_CLASSES or header != _header(
                *there, columns_of_classes, "fold" in header
            ):
                raise ValueError("its columns are not those of a run's predictions")
            kinds: dict[str, type] = dict.fromkeys(header, float)
            kinds |= {"text": str, "category": int, "predicted_category": int}
            if "fold" in header:
                kinds["fold"] = int
            if columns_of_classes not in (0, num_classes or columns_of_classes):
                raise ValueError(f"it has not {num_classes} probabilities")
            columns: dict[str, list] = {name: [] for name in kinds}
            for line in lines:
                number = lines.line_num
                for (name, kind), cell in zip(kinds.items(), line, strict=True):
                    value = kind(cell) if cell or kind is str else missing[kind]
                    if kind is int and not -1 <= value <= (_MOST_FOLDS if name == "fold" else most):
                        raise ValueError(f"{name} {cell!r:.40} is no {name.split('_')[-1]}")
                    if kind is float and abs(value) > _LARGEST:
                        raise ValueError(f"{name} {cell!r:.40} is out of range")
                    columns[name].append(value)
                if columns["predicted_category"][-1] < 0:
                    raise ValueError("it has no predicted_category")
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is damaged at line {number}: {error}") from None
    finally:
        csv.field_size_limit(previous)
    probabilities = [columns[f"probability_{k}"] for k in range(columns_of_classes)]
    nothing = np.full(len(columns["text"]), np.nan)
    return SplitPredictions(
        columns["text"],
        np.array(columns["score"], float) if "score" in columns else nothing,
        np.array(columns["predicted_score"], float) if "predicted_score" in columns else nothing,
        np.array(columns["category"], int),
        np.array(columns["predicted_category"], int),
        np.array(probabilities, float).T if columns_of_classes else None,
        np.array(columns["fold"], int) if "fold" in columns else None,
    )


def _bounded(file):
    # Lines, of which one may hold a text of many megabytes, but not fill the memory.
    while line := file.readline(_LONGEST):
        if len(line) == _LONGEST:
            raise ValueError(f"it has a line of more than {_LONGEST:,} characters")
        yield line
