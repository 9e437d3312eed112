"""Intervals around predicted scores that hold the true one as often as asked: split conformal.

The radius is a quantile of the absolute errors on rows that did not train. Where those and the new
texts are exchangeable, an interval holds the true score with at least the probability asked for,
whatever the model (Vovk, Gammerman and Shafer 2005; Lei et al. 2018, theorem 2). By group, of
predicted category or length, that holds within each group (Mondrian; Vovk 2012), at the price of
fewer rows an estimate.

Axes: N rows, G groups.
"""

import math
from typing import NamedTuple

import numpy as np

from dwa_jax.finetune.uncertainty.reference import Reference

HOW = ("marginal", "by_category", "by_length")
_LENGTHS = 3  # groups of about as many training texts


class Intervals(NamedTuple):
    """How far scores may be off.

    Attributes:
      how: one of `HOW`.
      cuts: ascending lengths between groups; a text of a cut's length is of the group below it.
      radii: (G,) half widths; infinite for a group of too few rows to promise anything.
    """

    how: str
    cuts: np.ndarray
    radii: np.ndarray

    def around(self, scores: np.ndarray, categories: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Returns the intervals of N predictions, none beyond [-1, 1].

        Args:
          scores: (N,) predicted.
          categories: (N,) predicted.
          lengths: (N,) tokens a text.

        Returns:
          (N, 2), low and high, around the score or the end of [-1, 1] that it is beyond.
        """
        centre = np.clip(scores, -1, 1)
        radius = self.radii[_groups(self.how, self.cuts, categories, lengths)]
        return np.stack([np.maximum(centre - radius, -1), np.minimum(centre + radius, 1)], axis=1)


def fit_intervals(
    reference: Reference, num_classes: int, coverage: float, how: str
) -> Intervals | None:
    """Finds how wide intervals must be.

    Args:
      reference: of the run, whose validation rows give the errors.
      num_classes: K.
      coverage: the probability with which an interval is to hold the true score.
      how: "marginal" has one width for all; "by_category" one for each predicted category;
        "by_length" one for short, middling and long texts, thirds of the training texts.

    Returns:
      The intervals; None where no validation row has both a true and a predicted score.

    Raises:
      ValueError: the coverage is no probability, or there are no such groups.
    """
    if how not in HOW:
        raise ValueError(f"intervals={how!r:.60} is not one of {', '.join(HOW)}")
    if not 0 < coverage < 1:
        raise ValueError(f"coverage={coverage!r:.60} must be between 0 and 1")
    rows = reference.validation
    errors = np.abs(rows.scores.astype(float) - rows.predicted_scores)
    known = np.isfinite(errors)
    if not known.any():
        return None
    cuts = np.array([])
    if how == "by_length":
        # Of the training texts, which leaves the validation rows exchangeable with new ones.
        shares = np.arange(1, _LENGTHS) / _LENGTHS
        cuts = np.quantile(reference.train.lengths, shares)
    count = {"marginal": 1, "by_category": num_classes, "by_length": _LENGTHS}[how]
    groups = _groups(how, cuts, rows.predicted_categories, rows.lengths)
    radii = [smallest_above(errors[known & (groups == g)], coverage) for g in range(count)]
    return Intervals(how, cuts, np.array(radii))


def smallest_above(values: np.ndarray, share: float) -> float:
    """Returns the smallest value that a further one is below with at least this probability.

    Args:
      values: (N,) exchangeable with the further one.
      share: the probability.

    Returns:
      The ceil((N + 1) share)-th smallest; infinity where N is too small for there to be one.
    """
    # Less what rounding adds to a product that is whole.
    rank = math.ceil((len(values) + 1) * share - 1e-9)
    return math.inf if rank > len(values) else float(np.sort(values)[rank - 1])


def is_inside(found: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Says of which rows the interval holds the true score.

    Args:
      found: (N, 2).
      scores: (N,) true; where it is nan the answer is False.
    """
    # What float32 loses of an end does not count as a miss.
    return (found[:, 0] - 1e-6 <= scores) & (scores <= found[:, 1] + 1e-6)


def grade_intervals(found: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Says how often intervals hold the true score, and how wide they are.

    Args:
      found: (N, 2).
      scores: (N,) true, nan where missing.

    Returns:
      {"interval_coverage": over the rows with a score, nan where none has one, "interval_width":
      the mean over all}.
    """
    known = ~np.isnan(scores)
    covered = float(is_inside(found, scores)[known].mean()) if known.any() else math.nan
    return {
        "interval_coverage": covered,
        "interval_width": float((found[:, 1] - found[:, 0]).mean()),
    }


def _groups(how, cuts, categories, lengths):
    if how == "by_category":
        return np.asarray(categories)
    if how == "by_length":
        return np.searchsorted(cuts, lengths)
    return np.zeros(len(categories), int)
