"""From what the heads put out to what is predicted."""

import numpy as np
from numpy.typing import ArrayLike

from dwa_jax import stratify


def read_outputs(
    outputs: dict[str, np.ndarray], thresholds: ArrayLike | None, clip_scores: bool = False
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray | None]:
    """Reads scores, categories and probabilities off the heads' outputs.

    Args:
      outputs: {"regression": (N, 1), "classification": (N, K) logits}, or one of them.
      thresholds: (K-1,), for a run without a classification task.
      clip_scores: whether a score beyond [-1, 1], the range of all that was learned from,
        becomes its nearer end.

    Returns:
      (score (N,) or None, category (N,), probabilities (N, K) or None). Without a
      classification task the category is the predicted score's.
    """
    scores = outputs["regression"][:, 0] if "regression" in outputs else None
    within = None if scores is None else np.clip(scores, -1, 1)
    given = within if clip_scores else scores
    if "classification" not in outputs:
        assert within is not None and thresholds is not None, (
            "a run without classification has scores to cut"
        )
        return given, np.asarray(stratify.categorize(within, thresholds)), None
    logits = outputs["classification"]
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return given, logits.argmax(axis=1), odds / odds.sum(axis=1, keepdims=True)
