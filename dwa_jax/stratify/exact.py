"""The best thresholds on a grid of candidates, by dynamic programming.

Axes: N scores, K categories, M candidate thresholds.
"""

import numpy as np
from numpy.typing import ArrayLike

from dwa_jax.stratify.objective import check_scores, distinct, midpoints

GRID_SIZE = 512
MAX_MIDPOINTS = 1000
# Entries of the (M, M) transition table that are worked on at once: 32 MB an array.
CHUNK = 1 << 22


def default_candidates(scores: ArrayLike) -> np.ndarray:
    """Proposes thresholds for the exact solver: a uniform grid and cuts between the scores.

    The grid holds the centres of 512 equal cells of [-1, 1]: odd multiples of 1/512, which scores
    rounded to a few decimals do not hit, so that no candidate is a tie. To it come the midpoints
    between distinct scores, thinned to 1000 of even rank if there are more.

    Args:
      scores: (N,), in [-1, 1].

    Returns:
      (M,) float64, ascending, M at most 1512.
    """
    grid = (2 * np.arange(GRID_SIZE) + 1) / GRID_SIZE - 1
    return np.union1d(grid, cuts_between(scores, MAX_MIDPOINTS))


def cuts_between(scores: ArrayLike, limit: int) -> np.ndarray:
    """Returns midpoints between distinct scores; beyond `limit`, those at even score ranks."""
    values, counts = np.unique(check_scores(scores), return_counts=True)
    cuts = midpoints(values)
    if cuts.size <= limit:
        return cuts
    ranks = np.linspace(0, counts.sum(), limit + 2)[1:-1]
    picked = np.searchsorted(np.cumsum(counts), ranks)
    return cuts[np.unique(np.minimum(picked, cuts.size - 1))]


def exact(
    scores: ArrayLike,
    num_classes: int,
    *,
    spacing_penalty: float,
    balance_penalty: float = 0.0,
    pinned: bool = False,
    candidates: ArrayLike | None = None,
) -> np.ndarray:
    """Minimises the hard objective over all ascending choices of K-1 candidates.

    A category's cost depends on its two thresholds alone, and so does a gap's: with the last
    threshold as state, best[k][j] = min_{i<j} best[k-1][i] + cost(i, j). O(K M^2) time. The
    optimum may leave a category empty where the spacing term outweighs the variance.

    Args:
      scores: (N,), in [-1, 1], at least K of them distinct.
      num_classes: K.
      spacing_penalty, balance_penalty, pinned: as in `das_objective`.
      candidates: (M,) thresholds to choose from, in [-1, 1]; `default_candidates(scores)` if None.

    Returns:
      (K-1,) float64 thresholds, strictly ascending.

    Raises:
      ValueError: for scores out of range or too few of them distinct, or unfit candidates.
    """
    distinct(scores, num_classes)
    scores = np.sort(check_scores(scores))
    cuts = _check_candidates(scores, num_classes, candidates)

    # Positions of the walls -1 and 1 and of the candidates between, and the scores up to each.
    walls = np.concatenate([[-1.0], cuts, [1.0]])
    below = np.concatenate([[0], np.searchsorted(scores, cuts, side="right"), [scores.size]])
    # Centred, so that the difference of squares below loses no digits to a common offset.
    centred = scores - scores.mean()
    sums = np.concatenate([[0.0], np.cumsum(centred)])[below]
    squares = np.concatenate([[0.0], np.cumsum(np.square(centred))])[below]
    delta = 2 / num_classes if pinned else 2 / (num_classes - 1)

    def cost(left, right, penalised):
        """Cost of the categories from each of `left` to each of `right`: (right, left)."""
        left, right = np.ix_(right, left)[::-1]
        count = below[right] - below[left]
        total = sums[right] - sums[left]
        error = squares[right] - squares[left] - np.square(total) / np.maximum(count, 1)
        value = np.maximum(error, 0) / scores.size
        if penalised and spacing_penalty:
            value += spacing_penalty * np.square(walls[right] - walls[left] - delta)
        if balance_penalty:
            value += balance_penalty * np.square(count / scores.size - 1 / num_classes)
        return value

    inner = np.arange(1, cuts.size + 1)
    best = cost(np.array([0]), inner, pinned)[:, 0]
    choices = []
    rows = max(1, CHUNK // cuts.size)
    for _ in range(num_classes - 2):
        following = np.empty_like(best)
        choice = np.empty(cuts.size, int)
        for start in range(0, cuts.size, rows):
            right = inner[start : start + rows]
            left = inner[: start + right.size]
            value = best[: left.size] + cost(left, right, True)
            value[left >= right[:, None]] = np.inf
            choice[right - 1] = value.argmin(axis=1)
            following[right - 1] = value[np.arange(right.size), choice[right - 1]]
        best = following
        choices.append(choice)
    best = best + cost(inner, np.array([cuts.size + 1]), pinned)[0]

    picked = [int(best.argmin())]
    for choice in reversed(choices):
        picked.append(int(choice[picked[-1]]))
    return cuts[picked[::-1]]


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
