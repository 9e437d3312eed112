"""The best thresholds by dynamic programming over all cuts between scores.

Axes: N scores, K categories, M candidate thresholds.
"""

import numpy as np
from numpy.typing import ArrayLike

from dwa_jax.stratify.objective import check_scores, distinct, midpoints
from dwa_jax.stratify.refine import refine
from dwa_jax.stratify.segments import MARGIN, Segments

GRID_SIZE = 2048
MAX_CUTS = 5000


def default_candidates(scores: ArrayLike) -> np.ndarray:
    """Proposes thresholds for the exact solver: cuts between the scores, and a uniform grid.

    Of every two neighbouring distinct scores the middle, and either end of what lies between
    them; where there are more than 5000 cuts, those at even ranks of the scores. The grid holds
    the centres of 2048 equal cells of [-1, 1]: odd multiples of 1/2048, which scores rounded to
    a few decimals do not hit.

    Args:
      scores: (N,), in [-1, 1].

    Returns:
      (M,) float64, ascending, M at most 17050.
    """
    grid = (2 * np.arange(GRID_SIZE) + 1) / GRID_SIZE - 1
    cuts = cuts_between(scores, MAX_CUTS)
    values = np.unique(check_scores(scores))
    right = np.searchsorted(values, cuts)
    low, high = values[right - 1], values[right]
    margin = np.minimum(MARGIN, (high - low) / 2)
    outside = np.array([values[0] - MARGIN, values[-1] + MARGIN])
    outside = outside[np.abs(outside) < 1]
    return np.unique(np.concatenate([grid, cuts, low + margin, high - margin, outside]))


def cuts_between(scores: ArrayLike, limit: int) -> np.ndarray:
    """Returns midpoints between distinct scores; beyond `limit`, those at even score ranks."""
    values, counts = np.unique(check_scores(scores), return_counts=True)
    cuts = midpoints(values)
    if cuts.size <= limit:
        return cuts
    ranks = np.linspace(0, counts.sum(), limit + 2)[1:-1]
    picked = np.searchsorted(np.cumsum(counts), ranks)
    # A score that many rows share has a cut on either side of it.
    heavy = np.flatnonzero(counts >= counts.sum() / limit)
    picked = np.concatenate([picked, heavy, heavy - 1])
    return cuts[np.unique(np.clip(picked, 0, cuts.size - 1))]


def exact(
    scores: ArrayLike,
    num_classes: int,
    *,
    spacing_penalty: float,
    balance_penalty: float = 0.0,
    pinned: bool = False,
    candidates: ArrayLike | None = None,
) -> np.ndarray:
    """Minimises the hard objective over all ascending choices of K-1 thresholds.

    A category's cost depends on its two thresholds alone, and so does a gap's: with the last
    threshold as state, best[k][j] = min_{i<j} best[k-1][i] + cost(i, j). The costs satisfy the
    quadrangle inequality, so the best i grows with j and halving finds it: O(K M log M) time.
    Without `candidates` the thresholds are then moved to where they are best between the scores
    beside them. The optimum may leave a category empty where the spacing term outweighs the
    variance.

    Args:
      scores: (N,), in [-1, 1], at least K of them distinct.
      num_classes: K.
      spacing_penalty, balance_penalty, pinned: as in `das_objective`.
      candidates: (M,) thresholds to choose from, in [-1, 1]; `default_candidates(scores)` if None.

    Returns:
      (K-1,) float64 thresholds, strictly ascending.

    Raises:
      ValueError: for scores out of range or too few of them distinct, or unfit candidates.

    Source: Yao, Efficient dynamic programming using quadrangle inequalities (1980).
    """
    distinct(scores, num_classes)
    segments = Segments(
        scores,
        num_classes,
        spacing_penalty=spacing_penalty,
        balance_penalty=balance_penalty,
        pinned=pinned,
    )
    cuts = _check_candidates(scores, num_classes, candidates)
    below = segments.below(cuts)
    best = segments.cost(-1.0, cuts, 0, below, spaced=pinned)
    choices = []
    for k in range(1, num_classes - 1):
        # The k-th threshold has k candidates below it at the least: row r is candidate k + r, and
        # column c candidate k - 1 + c, so that c <= r.
        def cost(columns, rows, k=k, best=best):
            left, right = columns + k - 1, rows + k
            between = segments.cost(cuts[left], cuts[right], below[left], below[right])
            return best[left] + between

        choice, lowest = _row_minima(cost, cuts.size - k)
        best = np.concatenate([np.full(k, np.inf), lowest])
        choices.append(np.concatenate([np.zeros(k, int), choice + k - 1]))
    size = segments.scores.size
    best = best + segments.cost(cuts, 1.0, below, size, spaced=pinned)

    picked = [int(best.argmin())]
    for choice in reversed(choices):
        picked.append(int(choice[picked[-1]]))
    found = cuts[picked[::-1]]
    return found if candidates is not None else refine(segments, found)


def _row_minima(cost, size):
    """Returns where each row of a lower triangle is least, and its minimum, by halving.

    The column grows with the row, so a row between two known ones is searched between their
    columns: all rows of one level hold O(size) entries together.
    """
    columns, minima = np.zeros(size, int), np.empty(size)
    step = 1 << size.bit_length()
    while step := step // 2:
        rows = np.arange(step - 1, size, 2 * step)
        above = np.minimum(rows + step, size)
        low = np.where(rows >= step, columns[rows - step], 0)
        high = np.where(above < size, columns[np.minimum(above, size - 1)], size - 1)
        high = np.minimum(high, rows)
        lengths = high - low + 1
        starts = np.cumsum(lengths) - lengths
        which = np.repeat(np.arange(rows.size), lengths)
        tried = np.arange(lengths.sum()) - (starts - low)[which]
        values = cost(tried, rows[which])
        least = np.minimum.reduceat(values, starts)
        # The first of equal ones: written last.
        hits = np.flatnonzero(values == least[which])[::-1]
        columns[rows[which[hits]]] = tried[hits]
        minima[rows] = least
    return columns, minima


def _check_candidates(scores, num_classes, candidates):
    cuts = np.unique(default_candidates(scores) if candidates is None else candidates)
    if not np.all(np.abs(cuts) <= 1):
        raise ValueError(f"candidates span [{cuts[0]:g}, {cuts[-1]:g}], expected within [-1, 1]")
    if cuts.size < num_classes - 1:
        raise ValueError(
            f"{cuts.size} distinct candidates are too few for the {num_classes - 1} thresholds "
            f"of {num_classes} categories"
        )
    return cuts.astype(np.float64)
