"""From what the heads put out to what is predicted."""

import numpy as np
from numpy.typing import ArrayLike

from dwa_jax import stratify


def read_outputs(
    outputs: dict[str, np.ndarray], thresholds: ArrayLike | None
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray | None]:
    """Reads scores, categories and probabilities off the heads' outputs.

    Args:
      outputs: {"regression": (N, 1), "classification": (N, K) logits}, or one of them.
      thresholds: (K-1,), for a run without a classification task.

    Returns:
      (score (N,) or None, category (N,), probabilities (N, K) or None). Without a
      classification task the category is the predicted score's.
    """
    if "classification" not in outputs:
        assert thresholds is not None, "a run without classification has scores to cut"
        score = outputs["regression"][:, 0]
        return score, np.asarray(stratify.categorize(np.clip(score, -1, 1), thresholds)), None
    scores = outputs["regression"][:, 0] if "regression" in outputs else None
    logits = outputs["classification"]
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return scores, logits.argmax(axis=1), odds / odds.sum(axis=1, keepdims=True)
