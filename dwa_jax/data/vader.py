"""VADER: scores for texts that nobody has scored, from a lexicon and rules.

Hutto & Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
Text", ICWSM 2014. A score of it is a machine's: what a model learns from such labels, and what
a metric on them tells, is agreement with VADER.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata

import numpy as np

from dwa_jax.data.rows import Rows

PACKAGE = "vaderSentiment"


def version() -> str:
    """Returns the version of the package that gives the scores.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(
            f"scores by VADER need the extra 'vader' (pip install 'dwa_jax[vader]'), which brings"
            f" {PACKAGE}"
        ) from None


def fill_scores(rows: Rows) -> tuple[Rows, np.ndarray]:
    """Gives each row without a score VADER's compound one, in [-1, 1].

    Takes about 0.1 ms for a short text, and time that grows with the square of a long one's
    words.

    Args:
        rows: N rows.

    Returns:
        The rows, and an (N,) boolean array: which scores are VADER's. Scores that were there
        stay as they are.

    Raises:
        ValueError: the package is not installed.
    """
    version()
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    missing = np.isnan(rows.scores)
    scores = rows.scores.copy()
    for i in np.flatnonzero(missing):
        scores[i] = analyzer.polarity_scores(rows.texts[int(i)])["compound"]
    return dataclasses.replace(rows, scores=scores), missing
