"""From good thresholds to the best near them, by the hard objective.

Axes: N scores, K categories, J candidates a threshold.
"""

import numpy as np

from dwa_jax.stratify.segments import MARGIN, Segments

# Moves that a threshold may make at once, and how many scores about it are tried as its cell.
MOVES = np.concatenate([[0.0], np.geomspace(1e-4, 0.12, 24), -np.geomspace(1e-4, 0.12, 24)])
NEAREST = 6
# The pull to the middle of a cell, beside the spacing's: it decides where nothing else does.
PULL = 1e-6
MAX_PIVOTS = 100


def refine(segments: Segments, thresholds: np.ndarray, rounds: int = 20) -> np.ndarray:
    """Moves all thresholds at once, while that lowers the hard objective, then `settle`s them.

    A round looks for the best of all combinations of J moves a threshold, by dynamic programming:
    best_k[j] = min_i best_{k-1}[i] + cost(i, j), O(K J^2).

    Args:
      segments: of the scores.
      thresholds: (K-1,), ascending, in (-1, 1).
      rounds: the most.

    Returns:
      (K-1,) thresholds, their objective never above what it was.
    """
    lowest = segments.judge(thresholds)[0]
    for _ in range(rounds):
        found = _best_moves(segments, thresholds)
        objective = segments.judge(found)[0]
        if objective >= lowest - 1e-12:
            break
        thresholds, lowest = found, objective
    return settle(segments, thresholds)


def _best_moves(segments, thresholds):
    values = segments.values
    nearest = np.searchsorted(values, thresholds)[:, None] + np.arange(-NEAREST, NEAREST)
    nearest = values[np.clip(nearest, 0, values.size - 1)]
    moves = thresholds[:, None] + MOVES
    tried = np.sort(np.concatenate([moves, nearest - MARGIN, nearest + MARGIN], axis=1), axis=1)
    below = segments.below(tried)
    inside = (tried > -1) & (tried < 1)

    def cost(left, right, below_left, below_right, spaced=True):
        return segments.cost(left, right, below_left, below_right, spaced=spaced)

    size = segments.scores.size
    best = cost(-1.0, tried[0], 0, below[0], segments.pinned)
    best = np.where(inside[0], best, np.inf)
    left, right = tried[:-1, :, None], tried[1:, None, :]
    between = cost(left, right, below[:-1, :, None], below[1:, None, :])
    between = np.where((right > left) & inside[1:, None, :], between, np.inf)
    choices = []
    for step in between:
        total = best[:, None] + step
        choices.append(total.argmin(axis=0))
        best = total.min(axis=0)
    best = best + cost(tried[-1], 1.0, below[-1], size, segments.pinned)
    picked = [int(best.argmin())]
    for choice in reversed(choices):
        picked.append(int(choice[picked[-1]]))
    return tried[np.arange(thresholds.size), picked[::-1]]


def settle(segments: Segments, thresholds: np.ndarray) -> np.ndarray:
    """Puts each threshold where it is best between its two neighbouring scores.

    There the objective is a quadratic, the spacing's, in all of the thresholds, least under bounds
    of which those that hold are found by exchange. What the spacing leaves open, all of it where
    there is no penalty, goes to the middle between two scores.

    Args:
      segments: of the scores.
      thresholds: (K-1,), ascending.

    Returns:
      (K-1,) thresholds with the same categories, or those given if they are better.
    """
    low, high = segments.cells(thresholds)
    middle = (low + high) / 2
    found = middle
    if segments.spacing_penalty:
        size = thresholds.size
        gaps = np.diff(np.eye(size), axis=0)
        wanted = np.full(size - 1, 2 / size) if size > 1 else np.zeros(0)
        if segments.pinned:
            ends = np.zeros((2, size))
            ends[0, 0], ends[1, -1] = 1, -1
            gaps, delta = np.concatenate([gaps, ends]), 2 / (size + 1)
            wanted = np.concatenate([np.full(size - 1, delta), np.full(2, delta - 1)])
        matrix = gaps.T @ gaps + PULL * np.eye(size)
        found = _boxed(matrix, gaps.T @ wanted + PULL * middle, low, high)
    ordered = np.all(np.diff(found, prepend=-1, append=1) > 0)
    if ordered and segments.judge(found)[0] <= segments.judge(thresholds)[0] + 1e-15:
        return found
    return thresholds


def _boxed(matrix, right, low, high):
    """Minimises x'Ax / 2 - b'x within bounds, A definite with nothing positive off its diagonal.

    All that violates its condition changes sides at once (block pivoting, Judice and Pires 1994).
    """
    held = np.zeros(right.size, int)  # -1 at the lower bound, 1 at the upper
    x = np.clip(right, low, high)
    for _ in range(MAX_PIVOTS):
        free = held == 0
        x = np.where(held < 0, low, np.where(held > 0, high, 0.0))
        if free.any():
            rest = right[free] - matrix[np.ix_(free, ~free)] @ x[~free]
            x[free] = np.linalg.solve(matrix[np.ix_(free, free)], rest)
        slope = matrix @ x - right
        changed = np.where(
            free,
            np.where(x < low, -1, np.where(x > high, 1, 0)),
            np.where(slope * held > 0, 0, held),
        )
        if np.array_equal(changed, held):
            break
        held = changed
    return np.clip(x, low, high)
