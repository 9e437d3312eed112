"""Whether two sets of vectors come from one distribution: the maximum mean discrepancy.

Source: Gretton, Borgwardt, Rasch, Schoelkopf and Smola 2012, "A Kernel Two-Sample Test", with a
Gaussian kernel as wide as the median distance, and a permutation test, which holds its level
exactly.

Axes: N and M rows, D width, B permutations.
"""

import numpy as np


def discrepancy_test(
    first: np.ndarray, second: np.ndarray, permutations: int = 999, seed: int = 0
) -> tuple[float, float]:
    """Tests whether two samples are of one distribution.

    Args:
      first: (N, D).
      second: (M, D).
      permutations: B.
      seed: of them.

    Returns:
      (squared discrepancy, p value of at least 1 / (B + 1)).
    """
    both = np.concatenate([first, second]).astype(np.float32)
    squares = (both**2).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares - 2 * both @ both.T, 0)
    width = np.median(apart[np.triu_indices(len(both), 1)])
    kernel = np.exp(-apart / width) if width > 0 else (apart == 0).astype(np.float32)
    sizes = [len(first), len(second)]
    weights = np.repeat(np.array([1 / sizes[0], -1 / sizes[1]], np.float32), sizes)
    draw = np.random.default_rng(seed)
    # (N + M, 1 + B): the samples as they are, and then dealt anew.
    dealt = np.tile(weights, (1 + permutations, 1))
    dealt[1:] = draw.permuted(dealt[1:], axis=1)
    dealt = dealt.T
    found = (dealt * (kernel @ dealt)).sum(axis=0)
    # Equal ones may differ in their last bits.
    as_far = np.count_nonzero(found[1:] >= found[0] * (1 - 1e-5))
    return float(found[0]), float((1 + as_far) / (1 + permutations))
