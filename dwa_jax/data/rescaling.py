"""Scores of any range rescaled to [-1, 1], without the rounding that moves one past a threshold.

In float64 2 * (4 - 0) / (10 - 0) - 1 is -0.19999999999999996, which lies above a threshold of -0.2.
What people write are decimals, so decimals are rescaled, and rounded once: the result is the float
that the exact quotient, written out, would be read as, and so would be a threshold equal to it.
"""

from fractions import Fraction

import numpy as np

_LARGEST_SINGLE = float(np.finfo(np.float32).max)


def as_written(number: float) -> float:
    """Undoes the widening of a float32: 0.20000000298023224 is what becomes of 0.2 in one.

    Args:
      number: finite.

    Returns:
      The float64 nearest to the shortest decimal of the float32 that `number` equals, or `number`
      itself where it equals none.
    """
    if abs(number) > _LARGEST_SINGLE:
        return number
    single = np.float32(number)
    return float(str(single)) if float(single) == number else number


def rescale(score: float, low: float, high: float) -> float:
    """Maps [low, high] to [-1, 1], exact but for one rounding at the end.

    A float counts as the shortest decimal that it is the nearest float to, as Python prints it:
    0.1 is one tenth. Example: rescale(4, 0, 10) == -0.2.

    Args:
      score: in [low, high].
      low: what becomes -1.
      high: what becomes 1, above `low`.

    Returns:
      The float64 nearest to 2 (score - low) / (high - low) - 1.
    """
    if (low, high) == (-1, 1):
        return score
    number, bottom, top = (Fraction(repr(float(x))) for x in (score, low, high))
    return float((2 * number - bottom - top) / (top - bottom))
