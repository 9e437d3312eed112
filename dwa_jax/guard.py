"""Updates that would do harm are left out: what is not finite, and, if asked for, spikes.

A step computes its update as always and then decides with one boolean whether the old
or the new arrays go on. Axis letters: W window, S watched series.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class Window(NamedTuple):
    """The last values of the watched series, each in a ring of its own.

    Attributes:
      values: (W, S).
      counts: (S,) values that ever entered a ring; value n is in slot n mod W.
    """

    values: jax.Array
    counts: jax.Array


class Guard(NamedTuple):
    """What is carried from step to step.

    Attributes:
      skipped: () updates left out so far.
      in_a_row: () of them, those since the last one that was not.
      window: a `Window`, or () where spikes are not looked for.
    """

    skipped: jax.Array
    in_a_row: jax.Array
    window: Any


def init(num_series: int, window: int = 0) -> Guard:
    """Makes the first state.

    Args:
      num_series: S.
      window: W; 0 where spikes are not looked for.

    Raises:
      ValueError: a window of fewer than two values has no deviation.
    """
    if window and window < 2:
        raise ValueError(f"spike_window must be at least 2, not {window}")
    rings: Window | tuple[()] = ()
    if window:
        rings = Window(
            jnp.zeros((window, num_series), jnp.float32), jnp.zeros((num_series,), jnp.int32)
        )
    return Guard(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), rings)


def all_finite(*trees: Any) -> jax.Array:
    """Returns () true where no number of the trees is NaN or infinite.

    By each tree's norm, one number for all its leaves: for gradients the optimizer's
    clipping takes the same norm, and the compiler takes it once. Sound numbers whose
    squares add up beyond the largest float count as infinite.
    """
    return jnp.stack([jnp.isfinite(optax.tree.norm(tree)) for tree in trees]).all()


def judge(
    guard: Guard,
    finite: jax.Array,
    values: jax.Array,
    present: jax.Array,
    *,
    sigmas: float = 0.0,
) -> tuple[jax.Array, Guard]:
    """Decides whether this step's update is made, and counts.

    A value is a spike where its ring is full and it lies more than `sigmas` standard
    deviations above the ring's mean. A spike enters the ring as the bound that it passed:
    it cannot hide the next one, and a level that stays high is accepted in the end.

    Args:
      guard: the state so far.
      finite: () whether everything is finite.
      values: (S,) this step's values of the watched series.
      present: (S,) booleans; false leaves that series alone at this step.
      sigmas: standard deviations; used where the guard has a window.

    Returns:
      (() whether to make the update, the next state).
    """
    good, window = finite, guard.window
    if isinstance(window, Window):
        spike, moved = _watch(window, values.astype(window.values.dtype), present, sigmas)
        good = finite & ~spike
        window = keep_if(finite, moved, window)
    bad = 1 - good.astype(jnp.int32)
    return good, Guard(guard.skipped + bad, (guard.in_a_row + 1) * bad, window)


def _watch(window, values, present, sigmas):
    size = window.values.shape[0]
    mean = window.values.mean(axis=0)
    # Where a series hardly moves, its deviation is rounding: a thousandth of the mean then.
    sigma = jnp.maximum(window.values.std(axis=0), 1e-3 * jnp.abs(mean))
    bound = mean + sigmas * sigma
    high = present & (window.counts >= size) & (sigma > 0) & (values > bound)
    slot = (jnp.arange(size)[:, None] == window.counts % size) & present
    rings = jnp.where(slot, jnp.where(high, bound, values), window.values)
    return high.any(), Window(rings, window.counts + present)


def keep_if(good: jax.Array, new: Any, old: Any) -> Any:
    """Returns `new` where `good`, else `old`: trees of one structure."""
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)
