"""Dynamic adaptive stratification: the one entry to its two solvers.

Axes: N scores, K categories, S starts.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from dwa_jax.stratify.descent import descend, relocations, spread_starts
from dwa_jax.stratify.exact import exact
from dwa_jax.stratify.objective import (
    check_penalties,
    check_scores,
    das_objective,
    quantile_thresholds,
)

SOLVERS = ("descent", "exact")
RECHECKED = 4
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
    goes from a fixed set of further starts too, all at once, and refines each of its ends by line
    searches, then starts again from the best with one threshold relocated, while that helps. The
    best by the hard objective is returned, never above the quantiles'. It is deterministic.

    "exact" is dynamic programming over candidate thresholds, a global minimum on that grid.
    Either may leave a category empty where the spacing penalty outweighs the variance; a balance
    penalty discourages that.

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
      candidates: exact only, (M,) thresholds to choose from, `default_candidates(scores)` if
        None.

    Returns:
      (K-1,) float64 NumPy thresholds, strictly ascending, in (-1, 1) unless `candidates` reach
      its ends. Descent computes them in float32.

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
        return exact(scores, num_classes, candidates=candidates, **penalties)

    if candidates is not None:
        raise ValueError("candidates are an option of solver='exact', not 'descent'")
    if bandwidth is not None and not 0 < bandwidth < np.inf:
        raise ValueError(f"bandwidth is {bandwidth}, expected a finite number above 0")
    if steps < 1:
        raise ValueError(f"steps is {steps}, expected 1 or more")
    scores = check_scores(scores)
    first = quantile_thresholds(scores, num_classes, a=a, b=b)
    device_scores = jnp.asarray(scores, jnp.float32)
    starts = _spread_starts(device_scores, jnp.asarray(first, jnp.float32), bandwidth)
    rows = max(starts.shape[0], num_classes * (num_classes - 1))
    best, lowest = first, das_objective(first, scores, **penalties)
    for _ in range(MAX_ROUNDS):
        # One number of rows, so that every round runs what the first has compiled.
        starts = jnp.resize(starts, (rows, num_classes - 1))
        found, objectives = _descend_from(
            device_scores, starts, bandwidth=bandwidth, steps=steps, **penalties
        )
        # The foremost are judged anew in float64: rounding may carry a tie across a threshold.
        foremost = np.argsort(np.asarray(objectives), kind="stable")[:RECHECKED]
        before = lowest
        for end in np.asarray(found, np.float64)[foremost]:
            objective = das_objective(end, scores, **penalties)
            if objective < lowest:
                best, lowest = end, objective
        if lowest > before * (1 - MIN_GAIN):
            break
        starts = _relocations(jnp.asarray(best, jnp.float32))
    return best


@functools.partial(jax.jit, static_argnames=("pinned", "steps"))
def _descend_from(scores, starts, **options):
    return jax.vmap(lambda start: descend(scores, start, **options))(starts)


_spread_starts = jax.jit(spread_starts)
_relocations = jax.jit(relocations)
