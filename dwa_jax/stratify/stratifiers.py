"""Every stratifier by name: a function (scores, num_classes, **options) -> thresholds.

Axes: N scores, K categories. A new one is a function with that signature and a line in
STRATIFIERS.
"""

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dwa_jax.stratify.adaptive import das
from dwa_jax.stratify.exact import cuts_between, exact
from dwa_jax.stratify.objective import check_thresholds, distinct, quantile_thresholds

# Cuts that the exact 1-D k-means chooses from; its table of transitions holds their square.
MAX_KMEANS_CUTS = 3000


def manual(
    scores: ArrayLike, num_classes: int = 5, *, thresholds: ArrayLike | None = None
) -> np.ndarray:
    """Uses thresholds given by hand.

    Args:
      scores: ignored, as thresholds given by hand do not depend on them.
      num_classes: K.
      thresholds: (K-1,), strictly ascending in (-1, 1); equal width if None, which for five
        categories is -0.6, -0.2, 0.2, 0.6.

    Returns:
      (K-1,) float64 thresholds.

    Raises:
      ValueError: if they are not K-1 or not in order.
    """
    if thresholds is None:
        return equal_width(scores, num_classes)
    thresholds = check_thresholds(thresholds)
    if thresholds.size != num_classes - 1:
        raise ValueError(
            f"{thresholds.size} thresholds {thresholds.tolist()} for {num_classes} categories, "
            f"expected {num_classes - 1}"
        )
    if np.any(np.diff(thresholds, prepend=-1, append=1) <= 0):
        raise ValueError(
            f"thresholds {thresholds.tolist()} are not strictly ascending within (-1, 1)"
        )
    return thresholds


def equal_width(scores: ArrayLike, num_classes: int = 5) -> np.ndarray:
    """Cuts [-1, 1] into K intervals of the same width, whatever the scores.

    Args:
      scores: (N,), which only `stratum_counts` will look at.
      num_classes: K.

    Returns:
      (K-1,) float64 thresholds.

    Raises:
      ValueError: if K is less than 2.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}, expected at least 2")
    return (2 * np.arange(1, num_classes) - num_classes) / num_classes


def kmeans(scores: ArrayLike, num_classes: int = 5) -> np.ndarray:
    """Minimises the variance within categories alone: Jenks' natural breaks, 1-D k-means.

    Optimal clusters on a line are intervals, so dynamic programming over the cuts between
    distinct scores finds the global minimum. Beyond 3000 such cuts it chooses among 3000 of them
    at even ranks of the scores.

    Args:
      scores: (N,), in [-1, 1], at least K of them distinct.
      num_classes: K.

    Returns:
      (K-1,) float64 thresholds.

    Raises:
      ValueError: for scores out of range or too few of them distinct.

    Source: Fisher, On grouping for maximum homogeneity (1958).
    """
    distinct(scores, num_classes)
    cuts = cuts_between(scores, MAX_KMEANS_CUTS)
    return exact(scores, num_classes, spacing_penalty=0.0, candidates=cuts)


STRATIFIERS: dict[str, Callable[..., np.ndarray]] = {
    "das": das,
    "das_exact": functools.partial(das, solver="exact"),
    "manual": manual,
    "equal_width": equal_width,
    "equal_frequency": quantile_thresholds,
    "kmeans": kmeans,
}


def names() -> list[str]:
    """Lists the registered stratifiers.

    Returns:
      Their names.
    """
    return list(STRATIFIERS)


def fit(name: str, scores: ArrayLike, num_classes: int = 5, **options: Any) -> np.ndarray:
    """Chooses thresholds with the stratifier of that name.

    Example: fit("das", scores, 5, spacing_penalty=0.01), fit("kmeans", scores).

    Args:
      name: one of `names()`.
      scores: (N,), in [-1, 1].
      num_classes: K.
      **options: those of the stratifier; "das" and "das_exact" need a `spacing_penalty`.

    Returns:
      (K-1,) float64 thresholds, strictly ascending.

    Raises:
      ValueError: for a name that is not registered, an option that the stratifier lacks or
        needs, or whatever the stratifier itself refuses.
    """
    if name not in STRATIFIERS:
        close = difflib.get_close_matches(str(name), STRATIFIERS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"no stratifier {name!r}, expected one of {', '.join(STRATIFIERS)}; "
            f"the nearest is {close!r}"
        )
    stratifier = STRATIFIERS[name]
    signature = inspect.signature(stratifier)
    try:
        signature.bind(scores, num_classes, **options)
    except TypeError as error:
        accepted = ", ".join(list(signature.parameters)[2:]) or "none"
        raise ValueError(f"stratifier {name!r}: {error}; its options: {accepted}") from None
    return stratifier(scores, num_classes, **options)
