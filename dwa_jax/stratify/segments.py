"""What a category costs, from sums over the sorted scores: a few look-ups, however many scores.

Axes: N scores, K categories. Leading axes are free.
"""

import numpy as np
from numpy.typing import ArrayLike

from dwa_jax.stratify.objective import TOLERANCE, check_scores, spacing

# How far thresholds keep from scores where cells between scores are wide enough: a float32 that
# rounds either of them, and `categorize`, must still see which is larger.
MARGIN = 5e-7


class Segments:
    """The objective of one set of scores, as a sum of costs of its categories.

    Attributes:
      scores: (N,) ascending.
      values: the distinct ones, ascending; those that `categorize` cannot tell apart count as one.
      num_classes: K.
      spacing_penalty, balance_penalty, pinned: as in `das_objective`.
    """

    def __init__(
        self,
        scores: ArrayLike,
        num_classes: int,
        *,
        spacing_penalty: float,
        balance_penalty: float = 0.0,
        pinned: bool = False,
    ) -> None:
        self.scores = np.sort(check_scores(scores))
        self.num_classes = num_classes
        self.spacing_penalty = spacing_penalty
        self.balance_penalty = balance_penalty
        self.pinned = pinned
        tolerance = TOLERANCE * np.finfo(np.float64).eps
        apart = np.diff(self.scores, prepend=-np.inf) > 2 * tolerance
        self.values = self.scores[apart]
        self.mean = self.scores.mean()
        # Centred, so that differences of squares lose no digits to a common offset.
        centred = self.scores - self.mean
        self._sums = np.concatenate([[0.0], np.cumsum(centred)])
        self._squares = np.concatenate([[0.0], np.cumsum(np.square(centred))])
        self._delta = 2 / num_classes if pinned else 2 / (num_classes - 1)
        self._tolerance = tolerance

    def below(self, thresholds: np.ndarray) -> np.ndarray:
        """Returns how many scores each threshold has below it or equal to it, shaped like it."""
        return np.searchsorted(self.scores, thresholds + self._tolerance, side="right")

    def cost(
        self,
        left: np.ndarray | float,
        right: np.ndarray | float,
        below_left: np.ndarray | int,
        below_right: np.ndarray | int,
        *,
        spaced: bool = True,
    ) -> np.ndarray:
        """Returns what categories between two thresholds add to the objective.

        Args:
          left: thresholds, or -1.
          right: thresholds above, or 1; all four arguments broadcast.
          below_left: `below(left)`, 0 at -1.
          below_right: `below(right)`, N at 1.
          spaced: whether the gap is one of those that are meant to be equal.

        Returns:
          The costs.
        """
        size = self.scores.size
        count = below_right - below_left
        total = self._sums[below_right] - self._sums[below_left]
        error = self._squares[below_right] - self._squares[below_left]
        value = np.maximum(error - np.square(total) / np.maximum(count, 1), 0) / size
        if spaced and self.spacing_penalty:
            value = value + self.spacing_penalty * np.square(right - left - self._delta)
        if self.balance_penalty:
            value = value + self.balance_penalty * np.square(count / size - 1 / self.num_classes)
        return value

    def judge(self, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Evaluates thresholds.

        Args:
          thresholds: (..., K-1), each row ascending.

        Returns:
          The objective (...), and the categories' proportions and means (..., K); an empty
          category stands for the middle of its interval.
        """
        size = self.scores.size
        below = self.below(thresholds)
        bounds = np.concatenate(
            [np.zeros_like(below[..., :1]), below, np.full_like(below[..., :1], size)], axis=-1
        )
        counts = np.diff(bounds, axis=-1)
        filled = np.maximum(counts, 1)
        sums = np.diff(self._sums[bounds], axis=-1)
        errors = np.diff(self._squares[bounds], axis=-1) - np.square(sums) / filled
        proportions = counts / size
        walls = walled(thresholds)
        middles = (walls[..., 1:] + walls[..., :-1]) / 2
        means = np.where(counts > 0, sums / filled + self.mean, middles)
        gaps, delta = spacing(thresholds, self.pinned)
        objective = np.maximum(errors, 0).sum(-1) / size
        objective += self.spacing_penalty * np.square(gaps - delta).sum(-1)
        objective += self.balance_penalty * np.square(proportions - 1 / self.num_classes).sum(-1)
        return objective, proportions, means

    def cells(self, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns how far down and up thresholds may move without changing any category."""
        position = np.searchsorted(self.values, thresholds + self._tolerance, side="right")
        bounds = np.concatenate([[-1.0], self.values, [1.0]])
        low, high = bounds[position], bounds[position + 1]
        # Lowest and highest score may lie on the walls, which leaves nothing beyond them.
        margin = np.minimum(MARGIN, (high - low) / 2)
        return low + margin, high - margin


def walled(thresholds: np.ndarray) -> np.ndarray:
    """Returns thresholds (..., K-1) with -1 before and 1 behind them, (..., K+1)."""
    ends = np.ones_like(thresholds[..., :1])
    return np.concatenate([-ends, thresholds, ends], axis=-1)
