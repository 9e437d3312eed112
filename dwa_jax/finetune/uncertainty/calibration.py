"""Whether a probability is what it says: temperature, calibration error, reliability.

Axes: N rows, K categories. Source: Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern
Neural Networks".
"""

from typing import NamedTuple

import numpy as np

# Guo et al.'s number.
BINS = 15
# No logits of use lie further from probabilities.
_COLDEST, _HOTTEST = 0.05, 20.0
_TINY = np.finfo(np.float64).tiny


class Reliability(NamedTuple):
    """Rows by how sure the model is of the category that it gives: M bins that have rows.

    Attributes:
      confidence: (M,) mean probability of the predicted category.
      accuracy: (M,) share of the rows whose category it is.
      counts: (M,) rows.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean over rows of |accuracy - confidence|; nan of none."""
        if not self.counts.sum():
            return float("nan")
        apart = np.abs(self.accuracy - self.confidence)
        return float(apart @ self.counts / self.counts.sum())


def reliability(probabilities: np.ndarray, categories: np.ndarray, bins: int = BINS) -> Reliability:
    """Puts rows into bins of equal width of the largest probability.

    Args:
      probabilities: (N, K).
      categories: (N,) true, -1 where missing; those rows do not count.
      bins: over [0, 1].
    """
    known = (categories >= 0) & np.isfinite(probabilities).all(axis=1)
    probabilities, categories = probabilities[known], categories[known]
    sure = probabilities.max(axis=1)
    found = probabilities.argmax(axis=1) == categories
    # The first bin is closed on both sides.
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    there = counts > 0
    return Reliability(
        np.bincount(place, sure, bins)[there] / counts[there],
        np.bincount(place, found, bins)[there] / counts[there],
        counts[there],
    )


def calibration_error(probabilities: np.ndarray | None, categories: np.ndarray) -> float:
    """Returns the expected calibration error in `BINS` bins; see `reliability`.

    Args:
      probabilities: (N, K), or None, whose error is nan.
      categories: (N,) true, -1 where missing.
    """
    return float("nan") if probabilities is None else reliability(probabilities, categories).error


def reliability_curves(
    probabilities: np.ndarray | None, categories: np.ndarray, temperature: float | None
) -> dict[str, Reliability]:
    """Returns what a reliability diagram shows.

    Args:
      probabilities: (N, K) as predicted, or None.
      categories: (N,) true, -1 where missing.
      temperature: that they were made with, or None.

    Returns:
      {"as predicted"}, and where there is a temperature what there was "without temperature"; {}
      where no row tells.
    """
    if probabilities is None:
        return {}
    curves = {"as predicted": reliability(probabilities, categories)}
    if temperature is not None:
        before = tempered(probabilities, 1 / temperature)
        curves["without temperature"] = reliability(before, categories)
    return curves if curves["as predicted"].counts.sum() else {}


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Returns the probabilities of logits that were divided by a temperature.

    Args:
      probabilities: (N, K) of the logits as they are.
      temperature: above 1 makes them less sure, below 1 surer.
    """
    from scipy import special  # a quarter of a second, which few runs need

    logits = np.log(np.maximum(probabilities, _TINY))
    return special.softmax(logits / temperature, axis=1)


def fit_temperature(probabilities: np.ndarray, categories: np.ndarray) -> float | None:
    """Finds the temperature under which categories are likeliest.

    Args:
      probabilities: (N, K) of rows that did not train.
      categories: (N,) true, -1 where missing.

    Returns:
      The temperature, between 0.05 and 20; None where no row has a category.
    """
    from scipy import optimize, special

    rows = np.flatnonzero((categories >= 0) & np.isfinite(probabilities).all(axis=1))
    if not rows.size:
        return None
    logits = np.log(np.maximum(probabilities[rows], _TINY))

    def loss(log_temperature):
        scaled = special.log_softmax(logits / np.exp(log_temperature), axis=1)
        return -scaled[np.arange(rows.size), categories[rows]].mean()

    bounds = (np.log(_COLDEST), np.log(_HOTTEST))
    return float(np.exp(optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x))
