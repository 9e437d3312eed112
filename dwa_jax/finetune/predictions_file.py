"""predictions.csv: the texts of a split with their labels and what was predicted."""

import csv
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dwa_jax.atomic_files import replacing


class SplitPredictions(NamedTuple):
    """What predictions.csv holds: N rows, K categories.

    Attributes:
      texts: N strings.
      scores: (N,) true, NaN where the row has none.
      predicted_scores: (N,), NaN for a run without regression.
      categories: (N,) true, -1 where the row has none.
      predicted_categories: (N,).
      probabilities: (N, K), or None for a run without classification.
    """

    texts: list[str]
    scores: np.ndarray
    predicted_scores: np.ndarray
    categories: np.ndarray
    predicted_categories: np.ndarray
    probabilities: np.ndarray | None


def write_predictions(path: Path, found: SplitPredictions) -> None:
    """Writes predictions.csv: text, labels, predictions, one probability a category.

    Args:
      path: the file.
      found: N rows.

    Raises:
      OSError: it cannot be written.
    """
    probabilities = found.probabilities
    num_classes = 0 if probabilities is None else probabilities.shape[1]
    header = ["text", "score", "predicted_score", "category", "predicted_category"]
    header += [f"probability_{k}" for k in range(num_classes)]
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for i, text in enumerate(found.texts):
            score, category = found.scores[i], found.categories[i]
            line = [
                text,
                "" if np.isnan(score) else float(score),
                float(found.predicted_scores[i]),
                "" if category < 0 else int(category),
                int(found.predicted_categories[i]),
            ]
            if probabilities is not None:
                line += [float(probabilities[i, k]) for k in range(num_classes)]
            writer.writerow(line)


def read_predictions(path: Path) -> SplitPredictions:
    """Reads predictions.csv.

    Args:
      path: the file.

    Returns:
      Its rows, in their order.

    Raises:
      ValueError: it is damaged; says where.
      OSError: it cannot be read.
    """
    number = 1
    kinds = {"text": str, "score": float, "predicted_score": float}
    kinds |= {"category": int, "predicted_category": int}
    missing = {float: math.nan, int: -1}
    # A text may be longer than the 128 KiB that the module takes by itself.
    previous = csv.field_size_limit(2**31 - 1)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            num_classes = len(header) - len(kinds)
            kinds |= {f"probability_{k}": float for k in range(num_classes)}
            if header != list(kinds):
                raise ValueError("its columns are not those of a run's predictions")
            columns: dict[str, list] = {name: [] for name in kinds}
            for line in lines:
                number = lines.line_num
                for (name, kind), cell in zip(kinds.items(), line, strict=True):
                    columns[name].append(kind(cell) if cell or kind is str else missing[kind])
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is damaged at line {number}: {error}") from None
    finally:
        csv.field_size_limit(previous)
    probabilities = [columns[f"probability_{k}"] for k in range(num_classes)]
    return SplitPredictions(
        columns["text"],
        np.array(columns["score"], float),
        np.array(columns["predicted_score"], float),
        np.array(columns["category"], int),
        np.array(columns["predicted_category"], int),
        np.array(probabilities, float).T if num_classes else None,
    )
