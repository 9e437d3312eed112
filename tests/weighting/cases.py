"""Signals and Jacobians for tests of the weighting methods. N tasks, P parameters, M matrices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dwa_jax import weighting


def signals(losses, gramian=None, present=None, proportions=(0.2, 0.5, 0.3)):
    """Returns one step's signals in JAX's current default precision."""
    losses = jnp.asarray(losses, float)
    size = losses.shape[0]
    return weighting.Signals(
        losses=losses,
        gramian=jnp.zeros((size, size)) if gramian is None else jnp.asarray(gramian, float),
        class_losses=jnp.zeros(len(proportions)),
        class_proportions=jnp.asarray(proportions, float),
        present=None if present is None else jnp.asarray(present, bool),
    )


def first(name, num_tasks=2, **options):
    """Returns a method with its starting variables and state."""
    method = weighting.get(name, num_tasks, **options)
    return method, *method.init(jax.random.key(0))


@functools.cache
def _compiled(name, num_tasks, options):
    method, variables, state = first(name, num_tasks, **dict(options))

    def one(losses, gramian, present):
        return method.weigh(variables, state, signals(losses, gramian, present))

    return jax.jit(jax.vmap(one))


BATCH = 16


def weigh(name, gramians, losses=None, present=None, **options):
    """Returns what a method says of its first step, for at most 16 Gramians (M, N, N).

    The batch is filled up, so that each method is compiled once a number of tasks.
    """
    gramians = np.asarray(gramians, np.float32)
    count, size = gramians.shape[:2]
    losses = np.linspace(0.5, 1.5, size) if losses is None else losses
    inputs = (
        np.broadcast_to(np.asarray(losses, np.float32), (count, size)),
        gramians,
        np.broadcast_to(True if present is None else present, (count, size)),
    )
    assert count <= BATCH
    rows = np.minimum(np.arange(BATCH), count - 1)
    function = _compiled(name, size, tuple(sorted(options.items())))
    return jax.tree.map(lambda x: x[:count], function(*(x[rows] for x in inputs)))


def coefficients(name, gramians, losses=None, present=None, **options):
    """Returns the (M, N) coefficients of a method's first step for (M, N, N) Gramians."""
    parts = [
        weigh(name, gramians[start : start + BATCH], losses, present, **options).coefficients
        for start in range(0, len(gramians), BATCH)
    ]
    return np.concatenate(parts).astype(np.float64)


def gramians(jacobians):
    """Returns (M, N, N) Gramians, computed in float64."""
    return jacobians @ np.swapaxes(jacobians, 1, 2)


def generic(num_tasks, count=16, seed=0):
    """(M, N, P) Jacobians of unequal rows, half of them in conflict, at scales 1e-6 to 1e6."""
    rng = np.random.default_rng([seed, num_tasks])
    result = rng.normal(size=(count, num_tasks, num_tasks + 3))
    result *= np.exp(rng.normal(size=(count, num_tasks, 1)))
    # Most of the mean taken away leaves gradients that nearly cancel.
    result[1::2] -= rng.uniform(0.3, 0.9, (len(result[1::2]), 1, 1)) * result[1::2].mean(
        1, keepdims=True
    )
    return result * np.logspace(-6, 6, count)[:, None, None]


def degenerate(num_tasks, seed=0):
    """Jacobians by name with dependent or vanishing rows."""
    rng = np.random.default_rng([seed, num_tasks])
    base = rng.normal(size=(num_tasks, num_tasks + 2))

    def with_rows(**rows):
        result = base.copy()
        for index, row in rows.items():
            result[int(index[1:])] = row
        return result

    return {
        "equal": with_rows(_1=base[0]),
        "parallel": with_rows(_1=2 * base[0]),
        "opposed": with_rows(_1=-base[0]),
        "opposed_unequal": with_rows(_1=-3 * base[0]),
        "one_zero": with_rows(_1=np.zeros(num_tasks + 2)),
        "all_zero": np.zeros_like(base),
        "all_equal": np.repeat(base[:1], num_tasks, 0),
        "one_line": np.outer(rng.normal(size=num_tasks), base[0]),
        "far_apart": base * np.logspace(-5, 5, num_tasks)[:, None],
    }
