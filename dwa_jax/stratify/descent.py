"""Dynamic adaptive stratification by gradient descent, in JAX.

The variance term is piecewise constant in the thresholds, so its gradient is zero almost
everywhere. Descent follows the gradient it has under a kernel density of the scores, keeps the
iterate whose hard objective is the lowest, and refines that one by line searches on the hard
objective, which see the ties that a kernel smooths over.

Axes: N scores, K categories, G grid cells, S starts, D directions, J step lengths.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dwa_jax.stratify.objective import spacing

GRID_SIZE = 1024
# Smallest distance that descent keeps between thresholds, and between them and -1 or 1.
MIN_GAP = 1e-5
# Powers of the scores' density at whose quantiles the search starts: 0 is equal width, 1/3 the
# density of the best quantiser's cells where the spacing is free (Panter and Dite 1951).
START_POWERS = (0, 1 / 6, 1 / 3, 2 / 3)
# Displacements of the starts, in halves of the distance between neighbours.
START_SHIFTS = (-0.8, -0.4, 0.0, 0.4, 0.8)


class Summary(NamedTuple):
    """What descent needs to know of the scores, computed once."""

    scores: jax.Array  # (N,) ascending
    mean: jax.Array  # ()
    sums: jax.Array  # (N+1,) of the centred scores below each position
    squares: jax.Array  # (N+1,) of their squares
    grid: jax.Array  # (G,) cell centres
    density: jax.Array  # (G,)


def default_bandwidth(scores: jax.Array) -> jax.Array:
    """Returns Silverman's 0.9 min(sd, iqr / 1.34) N^(-1/5), two grid cells at the least.

    The standard deviation alone counts where half of the scores are tied (iqr = 0).

    Args:
      scores: (N,).

    Returns:
      () bandwidth.

    Source: Silverman, Density Estimation (1986), equation 3.31.
    """
    low, high = jnp.quantile(scores, jnp.array([0.25, 0.75], scores.dtype))
    deviation = jnp.std(scores)
    robust = (high - low) / 1.34
    scale = jnp.where(robust > 0, jnp.minimum(deviation, robust), deviation)
    return jnp.maximum(0.9 * scale * scores.shape[0] ** -0.2, 4 / GRID_SIZE)


def kernel_density(scores: jax.Array, bandwidth: jax.Array | float) -> tuple[jax.Array, jax.Array]:
    """Estimates the density of the scores with a Gaussian kernel on a grid of 1024 cells.

    The scores are binned first, so the cost beyond one pass over them is that of the grid. What
    a kernel spreads beyond [-1, 1] is lost.

    Args:
      scores: (N,), in [-1, 1].
      bandwidth: standard deviation of the kernel.

    Returns:
      grid (G,), the centres of equal cells of [-1, 1], and density (G,) at them.
    """
    width = 2 / GRID_SIZE
    cells = jnp.clip(jnp.floor((scores + 1) / width), 0, GRID_SIZE - 1).astype(jnp.int32)
    share = jnp.zeros(GRID_SIZE, scores.dtype).at[cells].add(1.0) / scores.shape[0]
    grid = (jnp.arange(GRID_SIZE, dtype=scores.dtype) + 0.5) * width - 1
    distance = (grid[:, None] - grid[None, :]) / bandwidth
    kernel = jnp.exp(-0.5 * jnp.square(distance)) / (bandwidth * (2 * jnp.pi) ** 0.5)
    return grid, kernel @ share


def threshold_gradient(
    thresholds: jax.Array,
    density: jax.Array,
    proportions: jax.Array,
    means: jax.Array,
    *,
    spacing_penalty: jax.Array | float,
    balance_penalty: jax.Array | float = 0.0,
    pinned: bool = False,
) -> jax.Array:
    """Differentiates the objective in the thresholds, for scores that have a density.

    d / d tau_k = f(tau_k) (mu_{k+1} - mu_k) (2 tau_k - mu_k - mu_{k+1})
                  + 2 spacing_penalty (left gap - right gap)
                  + 2 balance_penalty f(tau_k) (p_k - p_{k+1})

    The first and the last threshold have one gap alone unless `pinned`; the missing one counts
    as Delta, so that its term vanishes.

    Args:
      thresholds: (K-1,), ascending.
      density: (K-1,) f at each threshold.
      proportions: (K,) share of the scores in each category.
      means: (K,) mean of the scores in each category.
      spacing_penalty, balance_penalty, pinned: as in `das_objective`.

    Returns:
      (K-1,) gradient.

    Source: equation 3 of DWA, whose variance term has no gradient as printed.
    """
    variance = density * (means[1:] - means[:-1]) * (2 * thresholds - means[1:] - means[:-1])
    gaps, delta = spacing(thresholds, pinned)
    excess = gaps - delta if pinned else jnp.pad(gaps - delta, 1)
    even = 2 * spacing_penalty * (excess[:-1] - excess[1:])
    balance = 2 * balance_penalty * density * (proportions[:-1] - proportions[1:])
    return variance + even + balance


def project(thresholds: jax.Array, min_gap: float = MIN_GAP) -> jax.Array:
    """Finds the nearest thresholds, in Euclidean distance, that are in order.

    In order means ascending by `min_gap` at the least, and that far from -1 and 1. Without the
    gap that is isotonic regression, by its min-max formula.

    Args:
      thresholds: (K-1,).
      min_gap: smallest distance between neighbours.

    Returns:
      (K-1,) thresholds.
    """
    size = thresholds.shape[0]
    offsets = min_gap * jnp.arange(size, dtype=thresholds.dtype)
    sums = jnp.pad(jnp.cumsum(thresholds - offsets), (1, 0))
    first, last = jnp.arange(size)[:, None], jnp.arange(size)[None, :]
    length = jnp.maximum(last - first + 1, 1).astype(thresholds.dtype)
    means = (sums[None, 1:] - sums[:-1, None]) / length
    lowest = jax.lax.cummin(means, axis=1, reverse=True)
    isotonic = jnp.max(jnp.where(first <= last, lowest, -jnp.inf), axis=0)
    return jnp.clip(isotonic, -1 + min_gap, 1 - min_gap * size) + offsets


def descend(
    scores: jax.Array,
    start: jax.Array,
    *,
    spacing_penalty: jax.Array | float,
    balance_penalty: jax.Array | float = 0.0,
    pinned: bool = False,
    bandwidth: jax.Array | float | None = None,
    steps: int = 200,
    sweeps: int = 2,
) -> tuple[jax.Array, jax.Array]:
    """Descends the stratification objective from one start; pure, fit for jit and vmap.

    A step divides each threshold's gradient by a bound on its curvature, so that no learning
    rate is left to choose: without penalties it is Lloyd's step, half-way between two means.
    Means and proportions are those of the scores, the density is the kernel's. The iterate with
    the lowest hard objective then goes through `sweeps` rounds of line searches on that
    objective, along the common shift of each run of neighbouring thresholds, single ones
    included; they may jump past others.

    Args:
      scores: (N,) floats in [-1, 1], any order.
      start: (K-1,), ascending.
      spacing_penalty, balance_penalty, pinned: as in `das_objective`; `pinned` is static.
      bandwidth: of the kernel density; `default_bandwidth(scores)` if None.
      steps: static number of gradient steps.
      sweeps: static number of rounds of line searches; 0 leaves equation 3 alone.

    Returns:
      thresholds (K-1,) and their hard objective (), never above the start's.

    Source: equation 3 of DWA, in the density form of `threshold_gradient`.
    """
    scores = jnp.asarray(scores)
    start = jnp.asarray(start, scores.dtype)
    summary = summarize(scores, bandwidth)
    penalties: dict[str, Any] = {
        "spacing_penalty": spacing_penalty,
        "balance_penalty": balance_penalty,
        "pinned": pinned,
    }
    gap_count = jnp.full(start.shape, 2.0, start.dtype)
    if not pinned:
        gap_count = gap_count.at[0].add(-1.0).at[-1].add(-1.0)

    def step(carry, _):
        thresholds, best, lowest = carry
        objective, proportions, means = _hard(summary, thresholds, **penalties)
        best = jnp.where(objective < lowest, thresholds, best)
        lowest = jnp.minimum(objective, lowest)
        density = jnp.interp(thresholds, summary.grid, summary.density)
        gradient = threshold_gradient(thresholds, density, proportions, means, **penalties)
        # Row sums of the Hessian's moduli, but for the density's slope; the constant keeps a
        # threshold where there are neither scores nor penalties at rest.
        curvature = (
            2 * density * (means[1:] - means[:-1])
            + 4 * spacing_penalty * gap_count
            + 8 * balance_penalty * jnp.square(density)
            + 1e-6
        )
        return (project(thresholds - gradient / curvature), best, lowest), None

    lowest = jnp.full((), jnp.inf, start.dtype)
    (_, best, lowest), _ = jax.lax.scan(step, (start, start, lowest), length=steps + 1)

    def search(carry, direction):
        best, lowest = carry
        tried = jax.vmap(lambda length: jnp.sort(best + length * direction))(lengths)
        found = jax.vmap(lambda thresholds: _hard(summary, thresholds, **penalties)[0])(tried)
        inside = (tried[:, 0] > -1) & (tried[:, -1] < 1)
        apart = jnp.all(tried[:, 1:] > tried[:, :-1], axis=1)
        found = jnp.where(inside & apart, found, jnp.inf)
        i = jnp.argmin(found)
        best = jnp.where(found[i] < lowest, tried[i], best)
        return (best, jnp.minimum(found[i], lowest)), None

    reach = jnp.concatenate([jnp.geomspace(1e-4, 0.1, 48), jnp.linspace(0.01, 1.0, 48)])
    lengths = jnp.concatenate([reach, -reach]).astype(start.dtype)
    first, last = jnp.triu_indices(start.shape[0])
    ranks = jnp.arange(start.shape[0])[None, :]
    runs = (ranks >= first[:, None]) & (ranks <= last[:, None])
    directions = jnp.tile(runs.astype(start.dtype), (sweeps, 1))
    (best, lowest), _ = jax.lax.scan(search, (best, lowest), directions)
    return best, lowest


def spread_starts(
    scores: jax.Array, first: jax.Array, bandwidth: jax.Array | float | None = None
) -> jax.Array:
    """Proposes starts of different kinds, because the objective has many local minima.

    They are `first`, combs of gap Delta, which suit a large spacing penalty, and quantiles of
    the scores' density raised to a power, which suit a small one; the last two each at several
    displacements.

    Args:
      scores: (N,) floats in [-1, 1].
      first: (K-1,), ascending.
      bandwidth: as for `descend`.

    Returns:
      (S, K-1) starts, each ascending, the first row `first`.
    """
    bandwidth = default_bandwidth(scores) if bandwidth is None else bandwidth
    grid, density = kernel_density(scores, bandwidth)
    size = first.shape[0]
    ranks = jnp.arange(1, size + 1, dtype=first.dtype)
    starts = [first]
    for shift in START_SHIFTS:
        starts.append((2 * ranks - size - 1 + shift) / size)
        for power in START_POWERS:
            mass = jnp.cumsum(density**power)
            levels = (ranks + shift / 2) / (size + 1)
            starts.append(jnp.interp(levels, mass / mass[-1], grid))
    return jnp.stack(starts)


def relocations(thresholds: jax.Array) -> jax.Array:
    """Moves each threshold in turn into the middle of each category.

    That merges two categories and splits a third, which steps of single thresholds do not find.

    Args:
      thresholds: (K-1,), ascending.

    Returns:
      ((K-1) K, K-1) starts, each ascending.
    """
    size = thresholds.shape[0]
    walls = jnp.pad(thresholds, 1, constant_values=(-1, 1))
    middles = jnp.tile((walls[1:] + walls[:-1]) / 2, size)
    moved = jnp.repeat(jnp.arange(size), size + 1)
    return jax.vmap(lambda i, middle: jnp.sort(thresholds.at[i].set(middle)))(moved, middles)


def summarize(scores: jax.Array, bandwidth: jax.Array | float | None = None) -> Summary:
    """Sorts the scores and sums them up, so that an objective costs K binary searches."""
    scores = jnp.sort(scores)
    bandwidth = default_bandwidth(scores) if bandwidth is None else bandwidth
    grid, density = kernel_density(scores, bandwidth)
    mean = jnp.mean(scores)
    # Centred, so that the difference of squares loses no digits to a common offset.
    centred = scores - mean
    sums = jnp.pad(jnp.cumsum(centred), (1, 0))
    squares = jnp.pad(jnp.cumsum(jnp.square(centred)), (1, 0))
    return Summary(scores, mean, sums, squares, grid, density)


def _hard(summary, thresholds, *, spacing_penalty, balance_penalty, pinned):
    """Returns the hard objective (), the proportions (K,) and the means (K,)."""
    size = summary.scores.shape[0]
    cuts = jnp.searchsorted(summary.scores, thresholds, side="right")
    cuts = jnp.concatenate([jnp.zeros_like(cuts[:1]), cuts, jnp.full_like(cuts[:1], size)])
    counts = jnp.diff(cuts).astype(thresholds.dtype)
    filled = jnp.maximum(counts, 1)
    sums = jnp.diff(summary.sums[cuts])
    errors = jnp.diff(summary.squares[cuts]) - jnp.square(sums) / filled
    proportions = counts / size
    # An empty category stands for the middle of its interval.
    walls = jnp.pad(thresholds, 1, constant_values=(-1, 1))
    means = jnp.where(counts > 0, sums / filled + summary.mean, (walls[1:] + walls[:-1]) / 2)
    gaps, delta = spacing(thresholds, pinned)
    objective = (
        jnp.sum(jnp.maximum(errors, 0)) / size
        + spacing_penalty * jnp.sum(jnp.square(gaps - delta))
        + balance_penalty * jnp.sum(jnp.square(proportions - 1 / counts.shape[0]))
    )
    return objective, proportions, means
