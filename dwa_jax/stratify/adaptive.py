"""Dynamic adaptive stratification: the one entry to its two solvers.

Axes: N scores, K categories, S starts.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dwa_jax.stratify.descent import (
    default_bandwidth,
    follow,
    kernel_density,
    relocations,
    spread_starts,
)
from dwa_jax.stratify.exact import exact
from dwa_jax.stratify.objective import (
    check_penalties,
    check_scores,
    quantile_thresholds,
    stratum_counts,
)
from dwa_jax.stratify.refine import refine
from dwa_jax.stratify.segments import Segments

SOLVERS = ("descent", "exact")
# Of the ends of a round of descent, how many are refined.
REFINED = 4
MAX_RELOCATIONS = 64
# Rounds of descent, each from relocations of the best end so far, while they gain this share.
MAX_ROUNDS = 4
MIN_GAIN = 1e-4


def das(
    scores: ArrayLike,
    num_classes: int = 5,
    *,
    spacing_penalty: float,
    solver: str = "descent",
    balance_penalty: float = 0.0,
    pinned: bool = False,
    a: float | None = None,
    b: float | None = None,
    bandwidth: float | None = None,
    steps: int = 200,
    candidates: ArrayLike | None = None,
) -> np.ndarray:
    """Chooses thresholds by dynamic adaptive stratification of the scores.

    "descent" is the papers' way: it starts from quantiles (equation 2) and follows the gradient
    of the objective under a kernel density (equation 3). Because that has many local minima, it
    goes from a fixed set of further starts too, all at once, and refines the best of its ends by
    the hard objective, then starts again from the best with one threshold relocated, while that
    helps. The best by the hard objective is returned, never above the quantiles'. It is
    deterministic.

    "exact" is dynamic programming over candidate thresholds, the cuts between scores among them,
    and then a quadratic program in the thresholds between those scores that it has chosen.
    Either may leave a category empty, or with one score, where the spacing penalty outweighs the
    variance, and warns then; a balance penalty discourages that.

    Args:
      scores: (N,), in [-1, 1], at least K of them distinct.
      num_classes: K.
      spacing_penalty: weight of uneven spacing, at least 0.
      solver: "descent" or "exact".
      balance_penalty: weight of uneven category proportions, at least 0.
      pinned: count the gaps from -1 to the first threshold and from the last to 1 as well.
      a: descent only, quantile level of the first threshold at the start, 1/K if None.
      b: descent only, that of the last threshold, (K-1)/K if None.
      bandwidth: descent only, standard deviation of the density's Gaussian kernel, Silverman's
        rule if None, see `default_bandwidth`.
      steps: descent only, number of gradient steps from each start.
      candidates: exact only, (M,) thresholds to choose from and no others; if None, all that
        matters, see `default_candidates`.

    Returns:
      (K-1,) float64 NumPy thresholds, strictly ascending, in (-1, 1) unless `candidates` reach
      its ends.

    Raises:
      ValueError: for scores out of range or too few of them distinct, an unknown solver, an
        option of the other solver, or a value out of range.

    Source: equations 1 to 3 of DWA; see `das_objective` and `threshold_gradient` for repairs.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver is {solver!r}, expected one of {', '.join(SOLVERS)}")
    check_penalties(spacing_penalty, balance_penalty)
    penalties: dict[str, Any] = {
        "spacing_penalty": float(spacing_penalty),
        "balance_penalty": float(balance_penalty),
        "pinned": bool(pinned),
    }
    if solver == "exact":
        for name, value in (("a", a), ("b", b), ("bandwidth", bandwidth)):
            if value is not None:
                raise ValueError(f"{name}={value} is an option of solver='descent', not 'exact'")
        found = exact(scores, num_classes, candidates=candidates, **penalties)
        _warn_of_small(scores, found, spacing_penalty)
        return found

    if candidates is not None:
        raise ValueError("candidates are an option of solver='exact', not 'descent'")
    if bandwidth is not None and not 0 < bandwidth < np.inf:
        raise ValueError(f"bandwidth is {bandwidth}, expected a finite number above 0")
    if steps < 1:
        raise ValueError(f"steps is {steps}, expected 1 or more")
    scores = check_scores(scores)
    first = quantile_thresholds(scores, num_classes, a=a, b=b)
    segments = Segments(scores, num_classes, **penalties)
    bandwidth = default_bandwidth(segments.scores) if bandwidth is None else bandwidth
    density = kernel_density(segments.scores, bandwidth)
    starts = spread_starts(first, density)
    best, lowest = first, segments.judge(first)[0]
    for _ in range(MAX_ROUNDS):
        found, objectives = follow(segments, starts, density, steps)
        before = lowest
        for i in np.argsort(objectives, kind="stable")[:REFINED]:
            end = refine(segments, found[i])
            objective = segments.judge(end)[0]
            if objective < lowest:
                best, lowest = end, objective
        if lowest > before * (1 - MIN_GAIN):
            break
        starts = relocations(best)
        if len(starts) > MAX_RELOCATIONS:
            _, objectives = follow(segments, starts, density, steps=5)
            starts = starts[np.argsort(objectives, kind="stable")[:MAX_RELOCATIONS]]
    _warn_of_small(scores, best, spacing_penalty)
    return best


def _warn_of_small(scores, thresholds, spacing_penalty):
    counts = stratum_counts(scores, thresholds)
    if counts.min() > 1:
        return
    smaller = "a smaller spacing_penalty, " if spacing_penalty else ""
    warnings.warn(
        f"das leaves a category with {counts.min()} of {counts.sum()} scores (categories: "
        f"{', '.join(map(str, counts))}) at spacing_penalty={spacing_penalty:g}; {smaller}a "
        f"balance_penalty or fewer categories would fill it",
        stacklevel=3,
    )
