"""A stratifier of one's own: as many texts in every category, but the same cuts on both sides.

Thresholds that treat praise and blame alike: turning every score's sign mirrors the categories.
N scores, K categories.
"""

import numpy as np

from dwa_jax import stratify


def symmetric(scores, num_classes=5):
    """Cuts at plus and minus quantiles of the scores' absolute values.

    Args:
      scores: (N,), in [-1, 1].
      num_classes: K; where it is even, 0 is a threshold too.

    Returns:
      (K-1,) float64 thresholds, ascending.

    Raises:
      ValueError: the scores are too few or too alike for so many categories.
    """
    pairs = (num_classes - 1) // 2
    # Of K equal parts, so much lies inside the innermost pair, the next one, ...
    inside = (num_classes % 2 + 2 * np.arange(pairs) + 2 * (1 - num_classes % 2)) / num_classes
    cuts = np.quantile(np.abs(np.asarray(scores, np.float64)), inside)
    middle = [] if num_classes % 2 else [0.0]
    thresholds = np.concatenate([-cuts[::-1], middle, cuts])
    if np.any(np.diff(thresholds, prepend=-1, append=1) <= 0):
        raise ValueError(f"symmetric: the scores are too alike for {num_classes} categories")
    return thresholds


# From here on --config.stratifier="symmetric" and stratify.fit("symmetric", ...) know it.
stratify.STRATIFIERS["symmetric"] = symmetric
