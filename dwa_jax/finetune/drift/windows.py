"""How later texts went over time: the same numbers of each of several parts, in their order.

Axis: N texts.
"""

from typing import Any

import numpy as np

from dwa_jax.finetune import loop
from dwa_jax.finetune.uncertainty.reference import KeptRows

# Parts, and texts that each has at least.
_MOST, _LEAST = 8, 25
_METRICS = ("mse", "mae", "pearson", "accuracy", "f1_macro")


def over_time(
    later: KeptRows, unlike: np.ndarray, inside: np.ndarray, tasks: list[str], num_classes: int
) -> list[dict[str, Any]]:
    """Cuts texts into parts of about as many, and describes each.

    Args:
      later: N texts, in order.
      unlike: (N,) booleans, those unlike the training texts.
      inside: (N,) whether the interval holds the true score, nan where either is missing.
      tasks: names of those that the run has.
      num_classes: K.

    Returns:
      At most 8, of at least 25 texts each where there are so many: {"texts", "labelled",
      "unlike", "mean_score" of those predicted, "interval_coverage", and the metrics that its
      labels allow}.
    """
    count = len(unlike)
    parts = np.array_split(np.arange(count), max(1, min(_MOST, count // _LEAST)))
    return [_describe(later, unlike, inside, tasks, num_classes, part) for part in parts]


def _describe(later, unlike, inside, tasks, num_classes, part):
    rows = KeptRows(*(column[part] for column in later))
    labelled = ~np.isnan(rows.scores) | (rows.categories >= 0)
    told = {
        "texts": len(part),
        "labelled": int(labelled.sum()),
        "unlike": float(unlike[part].mean()),
    }
    if "regression" in tasks:
        told["mean_score"] = float(rows.predicted_scores.mean())
    if not labelled.any():
        return told
    graded = loop.grade(
        rows.scores.astype(float),
        rows.categories,
        rows.predicted_scores,
        rows.predicted_categories,
        tasks,
        num_classes,
    )
    known = inside[part][~np.isnan(inside[part])]
    if known.size:
        told["interval_coverage"] = float(known.mean())
    return told | {name: graded[name] for name in _METRICS if name in graded}
