"""What the K categories of a run are called."""

import itertools
from collections.abc import Sequence

import numpy as np


def intervals(thresholds: Sequence[float] | np.ndarray | None) -> list[str] | None:
    """Writes each category's scores, such as "(-0.200, +0.150]".

    Args:
      thresholds: (K-1,), or None.

    Returns:
      K texts, or None where there are no thresholds.
    """
    if thresholds is None:
        return None
    edges = ["-1", *(f"{value:+.3f}" for value in thresholds), "+1"]
    return [
        f"{'(' if k else '['}{low}, {high}]"
        for k, (low, high) in enumerate(itertools.pairwise(edges))
    ]


def labels(names: Sequence[str], thresholds: Sequence[float] | None, num_classes: int) -> list[str]:
    """Returns the categories' names, else "0" and so on with their intervals.

    Args:
      names: K that the run was given, or none.
      thresholds: (K-1,), or None.
      num_classes: K.
    """
    if names:
        return list(names)
    ranges = intervals(thresholds)
    numbers = map(str, range(num_classes))
    return [f"{k} {ranges[int(k)]}" if ranges else k for k in numbers]
