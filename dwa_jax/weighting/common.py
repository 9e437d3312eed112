"""What several methods share: masks over the tasks present and a Gramian that is safe to use.

Axis letters: N tasks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dwa_jax.weighting.protocol import Signals, Weighed, Weighting, present_mask


def mean_weights(present: jax.Array) -> jax.Array:
    """Returns (N,) equal weights over the tasks present; all 0 where there is none."""
    return present / jnp.maximum(present.sum(), 1)


def masked_softmax(logits: jax.Array, present: jax.Array) -> jax.Array:
    """Returns the (N,) softmax over the tasks present, 0 for the others."""
    kept = present > 0
    top = jnp.max(jnp.where(kept, logits, -jnp.inf))
    top = jax.lax.stop_gradient(jnp.where(kept.any(), top, 0))
    # The inner `where` keeps an absent task's logit out of the gradient as well.
    exponentials = jnp.where(kept, jnp.exp(jnp.where(kept, logits - top, 0)), 0)
    return exponentials / jnp.where(kept.any(), exponentials.sum(), 1)


def matvec(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """Returns the (N,) product; written out, as a GPU may round a small matmul to 10 bits."""
    return jnp.sum(matrix * vector[None, :], axis=1)


def safe_gramian(signals: Signals) -> tuple[jax.Array, jax.Array]:
    """Prepares the Gramian for methods that would let one bad entry spoil every weight.

    Args:
      signals: one step's.

    Returns:
      (N, N) Gramian, zero in the rows and columns of absent tasks and zero everywhere if
      an entry is not finite; (N,) mask of the tasks present, in its dtype.
    """
    present = present_mask(signals).astype(signals.gramian.dtype)
    both = (present[:, None] > 0) & (present[None, :] > 0)
    gramian = jnp.where(both, signals.gramian, 0)
    return jnp.where(jnp.isfinite(gramian).all(), gramian, 0), present


def unit_trace(gramian: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the (N, N) Gramian over its trace, and the trace; a zero one stays as it is."""
    trace = jnp.trace(gramian)
    return gramian / jnp.where(trace > 0, trace, 1), trace


class Cosines(NamedTuple):
    """A Gramian split into angles and lengths, which keeps small gradients in sight.

    Attributes:
      matrix: (N, N) cosines between gradients; a task without a gradient is orthogonal
        to all others.
      norms: (N,) gradient norms, 1 for a task without a gradient.
      usable: (N,) 1 for a task with a gradient.
    """

    matrix: jax.Array
    norms: jax.Array
    usable: jax.Array


def cosines(gramian: jax.Array) -> Cosines:
    """Splits an (N, N) Gramian into cosines and norms."""
    diagonal = jnp.diagonal(gramian)
    has_gradient = diagonal > 0
    norms = jnp.sqrt(jnp.where(has_gradient, diagonal, 1))
    matrix = jnp.clip(gramian / norms[:, None] / norms[None, :], -1, 1)
    matrix = jnp.where(jnp.eye(gramian.shape[0], dtype=bool), 1, matrix)
    return Cosines(matrix, norms, has_gradient.astype(gramian.dtype))


def gramian_method(solve: Callable[[jax.Array, jax.Array], jax.Array]) -> Weighting:
    """Makes a method that learns and carries nothing out of a function of the Gramian.

    Where every gradient is 0, or one is not finite, the tasks present weigh the same, so
    that the heads go on learning.

    Args:
      solve: ((N, N) Gramian as from `safe_gramian`, (N,) mask) -> (N,) coefficients; it
        may return anything for a zero Gramian.

    Returns:
      A `Weighting`.
    """

    def init(key):
        del key
        return {}, ()

    def weigh(variables, state, signals):
        del variables
        gramian, present = safe_gramian(signals)
        has_gradient = jnp.trace(gramian) > 0
        # A harmless stand-in for the zero Gramian, so that no branch divides by 0.
        gramian = jnp.where(has_gradient, gramian, jnp.diag(present))
        coefficients = jnp.where(has_gradient, solve(gramian, present), mean_weights(present))
        return weighed(coefficients, 0, state)

    return Weighting(init, weigh)


def weighed(coefficients: jax.Array, objective: jax.Array | float, state: Any) -> Weighed:
    """Returns a `Weighed` with detached coefficients, which are also what is logged."""
    coefficients = jax.lax.stop_gradient(coefficients)
    objective = jnp.asarray(objective, coefficients.dtype)
    return Weighed(coefficients, objective, state, {"weight": coefficients})
