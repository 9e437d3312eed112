"""Whether a text is like those that a model was trained on, by its pooled hidden state.

A text's distance is 1 less the mean cosine to the 10 nearest of the training rows that the run
keeps. It is unlike them where it is farther than 99 % of the validation rows are: of new texts like
those, one in a hundred is marked. Source: Sun, Ming, Zhu and Li 2022, "Out-of-Distribution
Detection with Deep Nearest Neighbors", who take the distance to the k-th.

Axes: N texts, M training rows, D width.
"""

import math
from typing import NamedTuple

import numpy as np

from dwa_jax.finetune.uncertainty.reference import Reference

NEAREST = 10
_SHARE = 0.99  # of the validation rows that are no farther than the limit


class Likeness(NamedTuple):
    """What texts are compared with.

    Attributes:
      train: (M, D) float32 of length 1.
      limit: of the distance.
    """

    train: np.ndarray
    limit: float

    def distances(self, representations: np.ndarray) -> np.ndarray:
        """Returns the distances (N,) of pooled hidden states (N, D) of length 1."""
        cosines = representations.astype(np.float32) @ self.train.T
        nearest = min(NEAREST, len(self.train))
        return 1 - np.partition(cosines, -nearest, axis=1)[:, -nearest:].mean(axis=1)


def of_reference(reference: Reference) -> Likeness:
    """Finds how far the validation rows are from the training rows."""
    bare = Likeness(reference.train.representations.astype(np.float32), math.inf)
    found = np.sort(bare.distances(reference.validation.representations))
    # With fewer than 99 rows it is the farthest of them.
    rank = min(math.ceil((len(found) + 1) * _SHARE - 1e-9), len(found))
    return bare._replace(limit=float(found[rank - 1]))
