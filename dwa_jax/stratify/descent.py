"""Dynamic adaptive stratification by gradient descent.

The variance term is piecewise constant in the thresholds, so its gradient is zero almost
everywhere. Descent follows the gradient it has under a kernel density of the scores, keeps the
iterate whose hard objective is the lowest, and refines that one by the hard objective itself,
which sees the ties that a kernel smooths over.

All of it is small NumPy in float64: on a few thousand scores a program for an accelerator would
take longer to compile than this takes to run.

Axes: N scores, K categories, G grid cells, S starts.
"""

import numpy as np
from numpy.typing import ArrayLike

from dwa_jax.stratify.objective import spacing
from dwa_jax.stratify.refine import refine
from dwa_jax.stratify.segments import Segments, walled

GRID_SIZE = 1024
# Smallest distance that descent keeps between thresholds, and between them and -1 or 1.
MIN_GAP = 1e-5
# Powers of the scores' density at whose quantiles the search starts: 0 is equal width, 1/3 the
# density of the best quantiser's cells where the spacing is free (Panter and Dite 1951).
START_POWERS = (0, 1 / 6, 1 / 3, 2 / 3)
# Displacements of the starts, in halves of the distance between neighbours.
START_SHIFTS = (-0.8, -0.4, 0.0, 0.4, 0.8)


def default_bandwidth(scores: ArrayLike) -> float:
    """Returns Silverman's 0.9 min(sd, iqr / 1.34) N^(-1/5), two grid cells at the least.

    The standard deviation alone counts where half of the scores are tied (iqr = 0).

    Args:
      scores: (N,).

    Returns:
      The bandwidth.

    Source: Silverman, Density Estimation (1986), equation 3.31.
    """
    scores = np.asarray(scores, np.float64)
    low, high = np.quantile(scores, [0.25, 0.75])
    deviation = scores.std()
    robust = (high - low) / 1.34
    scale = min(deviation, robust) if robust > 0 else deviation
    return float(max(0.9 * scale * scores.size**-0.2, 4 / GRID_SIZE))


def kernel_density(scores: ArrayLike, bandwidth: float) -> tuple[np.ndarray, np.ndarray]:
    """Estimates the density of the scores with a Gaussian kernel on a grid of 1024 cells.

    The scores are binned first, so the cost beyond one pass over them is that of the grid. What
    a kernel spreads beyond [-1, 1] is lost.

    Args:
      scores: (N,), in [-1, 1].
      bandwidth: standard deviation of the kernel.

    Returns:
      grid (G,), the centres of equal cells of [-1, 1], and density (G,) at them.
    """
    scores = np.asarray(scores, np.float64)
    width = 2 / GRID_SIZE
    cells = np.clip(np.floor((scores + 1) / width), 0, GRID_SIZE - 1).astype(int)
    share = np.bincount(cells, minlength=GRID_SIZE) / scores.size
    grid = (np.arange(GRID_SIZE) + 0.5) * width - 1
    offsets = np.arange(1 - GRID_SIZE, GRID_SIZE) * width
    kernel = np.exp(-0.5 * np.square(offsets / bandwidth)) / (bandwidth * (2 * np.pi) ** 0.5)
    return grid, np.convolve(share, kernel, mode="valid")


def threshold_gradient(
    thresholds: np.ndarray,
    density: np.ndarray,
    proportions: np.ndarray,
    means: np.ndarray,
    *,
    spacing_penalty: float,
    balance_penalty: float = 0.0,
    pinned: bool = False,
) -> np.ndarray:
    """Differentiates the objective in the thresholds, for scores that have a density.

    d / d tau_k = f(tau_k) (mu_{k+1} - mu_k) (2 tau_k - mu_k - mu_{k+1})
                  + 2 spacing_penalty (left gap - right gap)
                  + 2 balance_penalty f(tau_k) (p_k - p_{k+1})

    The first and the last threshold have one gap alone unless `pinned`; the missing one counts
    as Delta, so that its term vanishes.

    Args:
      thresholds: (..., K-1), ascending.
      density: (..., K-1) f at each threshold.
      proportions: (..., K) share of the scores in each category.
      means: (..., K) mean of the scores in each category.
      spacing_penalty, balance_penalty, pinned: as in `das_objective`.

    Returns:
      (..., K-1) gradient.

    Source: equation 3 of DWA, whose variance term has no gradient as printed.
    """
    lower, upper = means[..., :-1], means[..., 1:]
    variance = density * (upper - lower) * (2 * thresholds - upper - lower)
    gaps, delta = spacing(thresholds, pinned)
    excess = gaps - delta
    if not pinned:
        ends = np.zeros_like(thresholds[..., :1])
        excess = np.concatenate([ends, excess, ends], axis=-1)
    even = 2 * spacing_penalty * (excess[..., :-1] - excess[..., 1:])
    crowding = proportions[..., :-1] - proportions[..., 1:]
    return variance + even + 2 * balance_penalty * density * crowding


def project(thresholds: ArrayLike, min_gap: float = MIN_GAP) -> np.ndarray:
    """Finds the nearest thresholds, in Euclidean distance, that are in order.

    In order means ascending by `min_gap` at the least, and that far from -1 and 1. Without the
    gap that is isotonic regression, by its min-max formula.

    Args:
      thresholds: (..., K-1).
      min_gap: smallest distance between neighbours.

    Returns:
      (..., K-1) thresholds.
    """
    thresholds = np.asarray(thresholds, np.float64)
    size = thresholds.shape[-1]
    offsets = min_gap * np.arange(size)
    isotonic = thresholds - offsets
    wrong = np.any(np.diff(isotonic, axis=-1) < 0, axis=-1)
    if np.any(wrong):
        sums = np.cumsum(isotonic[wrong], axis=-1)
        sums = np.concatenate([np.zeros_like(sums[..., :1]), sums], axis=-1)
        first, last = np.arange(size)[:, None], np.arange(size)[None, :]
        length = np.maximum(last - first + 1, 1)
        means = (sums[..., None, 1:] - sums[..., :-1, None]) / length
        lowest = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
        isotonic[wrong] = np.max(np.where(first <= last, lowest, -np.inf), axis=-2)
    return np.clip(isotonic, -1 + min_gap, 1 - min_gap * size) + offsets


def descend(
    scores: ArrayLike,
    start: ArrayLike,
    *,
    spacing_penalty: float,
    balance_penalty: float = 0.0,
    pinned: bool = False,
    bandwidth: float | None = None,
    steps: int = 200,
    refined: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Descends the stratification objective from one start or from several at once.

    A step divides each threshold's gradient by a bound on its curvature, so that no learning
    rate is left to choose: without penalties it is Lloyd's step, half-way between two means.
    Means and proportions are those of the scores, the density is the kernel's. The iterate with
    the lowest hard objective is then refined by that objective.

    Args:
      scores: (N,) in [-1, 1], any order.
      start: (K-1,) or (S, K-1), ascending.
      spacing_penalty, balance_penalty, pinned: as in `das_objective`.
      bandwidth: of the kernel density; `default_bandwidth(scores)` if None.
      steps: number of gradient steps.
      refined: false leaves equation 3 alone.

    Returns:
      thresholds, shaped like `start`, and their hard objectives, () or (S,), none of them above
      its start's.

    Source: equation 3 of DWA, in the density form of `threshold_gradient`.
    """
    start = np.asarray(start, np.float64)
    segments = Segments(
        scores,
        start.shape[-1] + 1,
        spacing_penalty=spacing_penalty,
        balance_penalty=balance_penalty,
        pinned=pinned,
    )
    bandwidth = default_bandwidth(segments.scores) if bandwidth is None else bandwidth
    density = kernel_density(segments.scores, bandwidth)
    starts = start.reshape(-1, start.shape[-1])
    found, objectives = follow(segments, starts, density, steps)
    if refined:
        found = np.stack([refine(segments, one) for one in found])
        objectives = segments.judge(found)[0]
    return found.reshape(start.shape), objectives.reshape(start.shape[:-1])


def follow(
    segments: Segments,
    starts: np.ndarray,
    density: tuple[np.ndarray, np.ndarray],
    steps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Follows equation 3 from (S, K-1) starts; returns the best iterates and objectives (S,)."""
    penalty, balance = segments.spacing_penalty, segments.balance_penalty
    gap_count = np.full(starts.shape[-1], 2.0)
    if not segments.pinned:
        gap_count[0] -= 1
        gap_count[-1] -= 1
    thresholds, best = starts, starts
    lowest = np.full(len(starts), np.inf)
    for _ in range(steps + 1):
        objective, proportions, means = segments.judge(thresholds)
        better = objective < lowest
        best = np.where(better[:, None], thresholds, best)
        lowest = np.where(better, objective, lowest)
        here = np.interp(thresholds, *density)
        gradient = threshold_gradient(
            thresholds,
            here,
            proportions,
            means,
            spacing_penalty=penalty,
            balance_penalty=balance,
            pinned=segments.pinned,
        )
        # Row sums of the Hessian's moduli, but for the density's slope; the constant keeps a
        # threshold where there are neither scores nor penalties at rest.
        curvature = (
            2 * here * (means[:, 1:] - means[:, :-1])
            + 4 * penalty * gap_count
            + 8 * balance * np.square(here)
            + 1e-6
        )
        thresholds = project(thresholds - gradient / curvature)
    return best, lowest


def spread_starts(first: np.ndarray, density: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Proposes starts of different kinds, because the objective has many local minima.

    They are `first`, combs of gap Delta, which suit a large spacing penalty, and quantiles of
    the scores' density raised to a power, which suit a small one; the last two each at several
    displacements.

    Args:
      first: (K-1,), ascending.
      density: from `kernel_density`.

    Returns:
      (S, K-1) starts, each ascending, the first row `first`.
    """
    grid, values = density
    size = first.shape[0]
    ranks = np.arange(1, size + 1)
    starts = [first]
    for shift in START_SHIFTS:
        starts.append((2 * ranks - size - 1 + shift) / size)
        for power in START_POWERS:
            mass = np.cumsum(values**power)
            levels = (ranks + shift / 2) / (size + 1)
            starts.append(np.interp(levels, mass / mass[-1], grid))
    return np.stack(starts)


def relocations(thresholds: np.ndarray) -> np.ndarray:
    """Moves each threshold in turn into the middle of each category.

    That merges two categories and splits a third, which steps of single thresholds do not find.

    Args:
      thresholds: (K-1,), ascending.

    Returns:
      ((K-1) K, K-1) starts, each ascending.
    """
    size = thresholds.shape[0]
    walls = walled(thresholds)
    starts = np.repeat(thresholds[None], size * (size + 1), axis=0)
    middles = np.tile((walls[1:] + walls[:-1]) / 2, size)
    starts[np.arange(len(starts)), np.repeat(np.arange(size), size + 1)] = middles
    return np.sort(starts, axis=-1)
