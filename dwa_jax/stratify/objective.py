"""Categories from thresholds, the objective they are judged by, and the start of the search.

Axes: N scores, K categories. K categories are cut by the K-1 thresholds between them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

# How many epsilons a score may lie above a threshold and still count as equal to it: twice what
# rescaling in floating point leaves of a score in [-1, 1].
TOLERANCE = 2


def categorize(scores: ArrayLike, thresholds: ArrayLike) -> np.ndarray | jax.Array:
    """Sorts scores into the ordered categories that thresholds cut.

    Bins are right-closed, the first is closed on both sides: category 0 is [-1, tau_1], category
    k is (tau_k, tau_{k+1}], so a score equal to a threshold belongs to the category below it.
    Equal means in the precision of `scores` (float32 at least) and within 2 of its epsilons (4e-16,
    or 2e-7): 0.2 read as float32 still equals a threshold of 0.2, and so does
    2 * (6 / 10) - 1 = 0.19999999999999996 or the like a threshold that is meant to be the same.

    Args:
      scores: any shape, in [-1, 1]; NumPy or JAX. The range is not checked, and NaN falls into
        the last category: mask such rows.
      thresholds: (K-1,), ascending.

    Returns:
      int32 integers in [0, K), shaped like `scores`; a JAX array if either argument is one.

    Raises:
      ValueError: if `thresholds` is not one-dimensional or, where it can be seen outside of a
        trace, not in ascending order.

    Source: equation 4 of DWA, with K-1 interior thresholds for the K printed.
    """
    if not isinstance(thresholds, jax.core.Tracer):
        check_thresholds(thresholds)
    elif thresholds.ndim != 1:
        raise ValueError(f"thresholds has shape {thresholds.shape}, expected (K-1,)")
    numpy = jnp if isinstance(scores, jax.Array) or isinstance(thresholds, jax.Array) else np
    values: Any = numpy.asarray(scores)
    dtype = numpy.promote_types(values.dtype, numpy.float32)
    tops = numpy.asarray(thresholds, dtype) + numpy.asarray(TOLERANCE * jnp.finfo(dtype).eps, dtype)
    bins = numpy.searchsorted(tops, values.astype(dtype), side="left")
    return numpy.asarray(bins, numpy.int32)


def stratum_counts(scores: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """Counts the scores in each category.

    Args:
      scores: (N,), in [-1, 1].
      thresholds: (K-1,), ascending.

    Returns:
      (K,) NumPy integers that sum to N.

    Raises:
      ValueError: if `thresholds` is not one-dimensional and ascending.
    """
    categories = np.asarray(categorize(scores, thresholds))
    return np.bincount(categories.ravel(), minlength=np.size(thresholds) + 1)


class Balance(NamedTuple):
    """How evenly thresholds share out scores.

    Attributes:
      counts: (K,) scores in each category.
      ratio: the largest count over the smallest, infinite where a category is empty.
    """

    counts: np.ndarray
    ratio: float


def balance(scores: ArrayLike, thresholds: ArrayLike) -> Balance:
    """Says how evenly thresholds share out scores.

    Args:
      scores: (N,), in [-1, 1].
      thresholds: (K-1,), ascending.

    Returns:
      The categories' counts and the largest over the smallest.

    Raises:
      ValueError: if `thresholds` is not one-dimensional and ascending.
    """
    counts = stratum_counts(scores, thresholds)
    smallest = int(counts.min())
    return Balance(counts, int(counts.max()) / smallest if smallest else np.inf)


def das_objective(
    thresholds: ArrayLike,
    scores: ArrayLike,
    *,
    spacing_penalty: float,
    balance_penalty: float = 0.0,
    pinned: bool = False,
) -> float:
    """Evaluates the hard objective that dynamic adaptive stratification minimises.

    sum_k SSE_k / N + spacing_penalty * sum_gaps (gap - Delta)^2
                    + balance_penalty * sum_k (n_k / N - 1/K)^2

    SSE_k is the sum of squared deviations of category k's scores from their mean, zero for an
    empty category. The gaps are the K-2 between neighbouring thresholds, with Delta = 2/(K-1).

    Args:
      thresholds: (K-1,), ascending.
      scores: (N,), in [-1, 1].
      spacing_penalty: weight of uneven spacing, at least 0.
      balance_penalty: weight of uneven category proportions, at least 0.
      pinned: count the gaps from -1 to the first threshold and from the last to 1 as well: K
        gaps, with Delta = 2/K.

    Returns:
      The objective, a Python float computed in float64.

    Raises:
      ValueError: if a score, a threshold or a penalty is out of range.

    Source: equation 1 of DWA; the balance term and `pinned` are additions.
    """
    check_penalties(spacing_penalty, balance_penalty)
    scores = check_scores(scores)
    thresholds = check_thresholds(thresholds)
    num_classes = thresholds.size + 1
    categories = categorize(scores, thresholds)
    counts = np.bincount(categories, minlength=num_classes)
    means = np.bincount(categories, scores, num_classes) / np.maximum(counts, 1)
    variance = np.mean(np.square(scores - means[categories]))
    gaps, delta = spacing(thresholds, pinned)
    return float(
        variance
        + spacing_penalty * np.sum(np.square(gaps - delta))
        + balance_penalty * np.sum(np.square(counts / scores.size - 1 / num_classes))
    )


def spacing(thresholds: np.ndarray, pinned: bool) -> tuple[np.ndarray, float]:
    """Returns the gaps meant to be equal, (..., K-2) or (..., K) if pinned, and their aim."""
    num_classes = thresholds.shape[-1] + 1
    if not pinned:
        return np.diff(thresholds, axis=-1), 2 / (num_classes - 1)
    ends = np.ones_like(thresholds[..., :1])
    return np.diff(thresholds, prepend=-ends, append=ends, axis=-1), 2 / num_classes


def quantile_thresholds(
    scores: ArrayLike, num_classes: int = 5, *, a: float | None = None, b: float | None = None
) -> np.ndarray:
    """Cuts at evenly spaced quantiles, each moved to the middle between two distinct scores.

    Level q becomes the cut that leaves the share of scores nearest to q below it. Levels that
    would fall into the same run of tied scores take neighbouring cuts, so that no category is
    empty.

    Args:
      scores: (N,), in [-1, 1], at least K of them distinct.
      num_classes: K.
      a: level of the first threshold, 1/K if None.
      b: level of the last threshold, (K-1)/K if None; with the default `a` that is equal
        frequency.

    Returns:
      (K-1,) float64 thresholds, strictly ascending.

    Raises:
      ValueError: for scores out of range or too few of them distinct, or levels out of order.

    Source: equation 2 of DWA, which leaves a and b open.
    """
    values, counts = distinct(scores, num_classes)
    a = 1 / num_classes if a is None else a
    b = 1 - 1 / num_classes if b is None else b
    if not 0 < a <= b < 1 or (a == b) != (num_classes == 2):
        raise ValueError(
            f"a={a}, b={b}: quantile levels must satisfy 0 < a < b < 1 (a = b for two categories)"
        )
    below = np.cumsum(counts)[:-1] / counts.sum()
    cuts = np.empty(num_classes - 1, int)
    for k, level in enumerate(np.linspace(a, b, num_classes - 1)):
        first = cuts[k - 1] + 1 if k else 0
        last = below.size - (num_classes - 1 - k)
        cuts[k] = np.clip(np.argmin(np.abs(below - level)), first, last)
    return midpoints(values)[cuts]


def distinct(scores: ArrayLike, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct scores in order and their counts, or says that they are too few."""
    if num_classes < 2 or num_classes != int(num_classes):
        raise ValueError(f"num_classes is {num_classes}, expected an integer of at least 2")
    values, counts = np.unique(check_scores(scores), return_counts=True)
    if values.size < num_classes:
        most = f": num_classes={values.size} at most" if values.size > 1 else ""
        raise ValueError(
            f"{values.size} distinct scores ({', '.join(f'{v:g}' for v in values)}) cannot fill "
            f"{num_classes} categories{most}"
        )
    return values, counts


def midpoints(values: np.ndarray) -> np.ndarray:
    """Returns the cuts half-way between neighbouring distinct scores, one fewer than those."""
    return values[:-1] + (values[1:] - values[:-1]) / 2


def check_scores(scores: ArrayLike) -> np.ndarray:
    """Returns scores as (N,) float64, or names the first that is not in [-1, 1]."""
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"scores has shape {scores.shape}, expected (N,) with N > 0")
    # Written so that NaN counts as bad too.
    bad = np.flatnonzero(~(np.abs(scores) <= 1))
    if bad.size:
        raise ValueError(
            f"{bad.size} of {scores.size} scores are not in [-1, 1], the first at index "
            f"{bad[0]}: {scores[bad[0]]:g}; drop missing ones and rescale the rest"
        )
    return scores


def check_thresholds(thresholds: ArrayLike) -> np.ndarray:
    """Returns thresholds as (K-1,) float64, or says what keeps them from being such."""
    thresholds = np.asarray(thresholds, np.float64)
    if thresholds.ndim != 1 or thresholds.size == 0:
        raise ValueError(f"thresholds has shape {thresholds.shape}, expected (K-1,) with K > 1")
    if not np.all(np.isfinite(thresholds)) or np.any(thresholds[1:] < thresholds[:-1]):
        raise ValueError(f"thresholds {thresholds.tolist()} are not finite and ascending")
    return thresholds


def check_penalties(spacing_penalty: float, balance_penalty: float) -> None:
    """Raises if a penalty is negative or not finite."""
    for name, value in (("spacing", spacing_penalty), ("balance", balance_penalty)):
        if not 0 <= value < np.inf:
            raise ValueError(f"{name}_penalty is {value}, expected a finite number, 0 or more")
