"""Metrics of predicted scores and categories, in NumPy float64.

Axes: B rows, K categories. A metric that its rows leave undefined is NaN: everything where a task
has no row, a correlation of a constant, `r2` of constant scores, the cosine of a zero vector, kappa
where all rows have one category and are given it, the entries by category of categories without
rows.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# Names of what `evaluate` returns of scores, and of categories, beside the confusion.
OF_SCORES = (
    *("mse", "mae", "rmse", "r2", "pearson", "spearman", "cosine"),
    *("mse_by_class", "balanced_mse"),
)
OF_CATEGORIES = (
    *("accuracy", "precision_weighted", "recall_weighted", "f1_weighted", "f1_macro"),
    *("quadratic_weighted_kappa", "category_distance", "category_distance_macro"),
    "accuracy_by_class",
)


def evaluate(
    scores: ArrayLike,
    predicted_scores: ArrayLike,
    categories: ArrayLike,
    predicted_categories: ArrayLike,
    num_classes: int,
    score_mask: ArrayLike | None = None,
    category_mask: ArrayLike | None = None,
) -> dict[str, Any]:
    """Compares predictions with labels, each task over the rows that are labelled for it.

    Args:
      scores: (B,) true scores.
      predicted_scores: (B,).
      categories: (B,) true categories, integers in [0, K).
      predicted_categories: (B,), integers in [0, K).
      num_classes: K.
      score_mask: (B,) booleans, True where a row has a score; all rows if None. What the other
        rows hold does not matter.
      category_mask: (B,), the same for categories.

    Returns:
      A dict of Python floats, or of K-long lists for the metrics by category.

      * mse, mae, rmse: errors of the score;
      * r2: 1 - sum of squared errors / sum of squared deviations of the true scores;
      * pearson, spearman (tied scores share their mean rank), cosine (not centred);
      * accuracy;
      * precision_weighted, recall_weighted, f1_weighted: means over categories weighted by
        their true rows; a precision without predictions counts as 0;
      * f1_macro: the plain mean over categories that occur as label or as prediction;
      * mse_by_class: errors of the score by true category, over rows that have both labels;
      * balanced_mse: mean of mse_by_class over the categories that occur;
      * quadratic_weighted_kappa: 1 - sum of squared distances of the predicted from the true
        categories / the same expected of predictions drawn by chance with the same counts
        (Cohen 1968);
      * category_distance: mean absolute distance of the predicted from the true category, and
        category_distance_macro its plain mean over the categories that occur as label
        (Baccianella et al. 2009);
      * accuracy_by_class: share of a category's rows that were found (its recall);
      * confusion: K x K counts, row the true and column the predicted category.

    Raises:
      ValueError: if shapes differ or a category that counts is out of range.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1:
        raise ValueError(f"scores has shape {scores.shape}, expected (B,)")
    predicted_scores = _like(scores, predicted_scores, "predicted_scores").astype(np.float64)
    categories = _like(scores, categories, "categories")
    predicted_categories = _like(scores, predicted_categories, "predicted_categories")
    has_score = _mask(scores, score_mask, "score_mask")
    has_category = _mask(scores, category_mask, "category_mask")

    confusion = np.zeros((num_classes, num_classes), np.int64)
    rows = np.flatnonzero(has_category)
    true = _in_range(categories, rows, num_classes, "categories")
    predicted = _in_range(predicted_categories, rows, num_classes, "predicted_categories")
    np.add.at(confusion, (true, predicted), 1)

    rows = np.flatnonzero(has_score & has_category)
    groups = categories[rows].astype(np.int64)
    squared = np.square(predicted_scores[rows] - scores[rows])
    by_class = [_mean(squared[groups == k]) for k in range(num_classes)]
    return {
        **_score_metrics(scores[has_score], predicted_scores[has_score]),
        **_category_metrics(confusion),
        "mse_by_class": by_class,
        # By rows, not by NaN, so that a prediction that is NaN shows.
        "balanced_mse": _mean([by_class[k] for k in np.unique(groups)]),
        "confusion": confusion.tolist(),
    }


def _score_metrics(true, predicted):
    error = predicted - true
    mse = _mean(np.square(error))
    variance = _mean(np.square(true - true.mean())) if _varies(true) else math.nan
    return {
        "mse": mse,
        "mae": _mean(np.abs(error)),
        "rmse": math.sqrt(mse),
        "r2": 1 - mse / variance,
        "pearson": _correlation(true, predicted),
        "spearman": _correlation(_ranks(true), _ranks(predicted)),
        "cosine": _cosine(true, predicted),
    }


def _category_metrics(confusion):
    found = np.diagonal(confusion).astype(np.float64)
    true, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    precision = found / np.maximum(predicted, 1)
    recall = found / np.maximum(true, 1)
    f1 = 2 * found / np.maximum(true + predicted, 1)
    total = true.sum()

    def weighted(values):
        return float(values @ true / total) if total else math.nan

    return {
        "accuracy": weighted(recall),
        "precision_weighted": weighted(precision),
        "recall_weighted": weighted(recall),
        "f1_weighted": weighted(f1),
        "f1_macro": _mean(f1[true + predicted > 0]),
        **_order_metrics(confusion),
        "accuracy_by_class": np.where(true > 0, recall, math.nan).tolist(),
    }


def _order_metrics(confusion):
    # What accuracy does not see: a miss by four categories is worse than one by one.
    true, predicted, total = confusion.sum(axis=1), confusion.sum(axis=0), confusion.sum()
    places = np.arange(len(confusion))
    distance = np.abs(places[:, None] - places)
    by_chance = (distance**2 * np.outer(true, predicted)).sum() / max(total, 1)
    lost = (distance**2 * confusion).sum()
    apart = (distance * confusion).sum(axis=1)
    return {
        "quadratic_weighted_kappa": float(1 - lost / by_chance) if by_chance else math.nan,
        "category_distance": float(apart.sum() / total) if total else math.nan,
        "category_distance_macro": _mean(apart[true > 0] / true[true > 0]),
    }


def _mean(values):
    return float(np.mean(values)) if len(values) else math.nan


def _varies(values):
    # Not by the standard deviation, which rounding leaves above zero for a constant.
    return values.size > 0 and values.min() < values.max()


def _correlation(first, second):
    if not (_varies(first) and _varies(second)):
        return math.nan
    return _cosine(first - first.mean(), second - second.mean())


def _cosine(first, second):
    norms = np.linalg.norm(first) * np.linalg.norm(second)
    return float(np.clip(first @ second / norms, -1, 1)) if norms != 0 else math.nan


def _ranks(values):
    """Ranks from 1, ties sharing the mean of theirs; NaN throughout if a value is NaN."""
    if np.isnan(values).any():
        return np.full(values.shape, math.nan)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _like(scores: np.ndarray, values: ArrayLike, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != scores.shape:
        raise ValueError(f"{name} has shape {values.shape}, expected {scores.shape} as scores")
    return values


def _mask(scores: np.ndarray, mask: ArrayLike | None, name: str) -> np.ndarray:
    if mask is None:
        return np.ones(scores.shape, bool)
    return _like(scores, mask, name).astype(bool)


def _in_range(categories, rows, num_classes, name):
    values = categories[rows]
    bad = np.flatnonzero(~((values >= 0) & (values < num_classes) & (values == np.floor(values))))
    if bad.size:
        raise ValueError(
            f"{name}[{rows[bad[0]]}] is {values[bad[0]]}, expected an integer in "
            f"[0, {num_classes}), or the row masked out"
        )
    return values.astype(np.int64)
