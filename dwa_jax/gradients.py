"""The engine: per-task gradients, their Gramian, and one mixture of them.

The trunk runs forward once. Each task's cotangent at the pooled hidden state is cheap;
where the Gramian is taken (the scope) decides how many times the trunk runs backward.
The engine knows no method: it hands losses and Gramian to `weigh` and multiplies by
the coefficients that come back. Axis letters: N tasks, M microbatches, B rows, D width.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dwa_jax.gramian import gradient_norms
from dwa_jax.passes import Accumulated, SplitTrunk, Whole
from dwa_jax.recorded import Norms, Recorded, Sketched, plan
from dwa_jax.records import NORMS, RecordedTrunk

SCOPES = ("trainable", "representation", "last_layer")


class Gradients(NamedTuple):
    """One step's gradients, already mixed.

    Attributes:
      theta: of the shared parameters, sum over t of coefficient_t g_t.
      psi: of the heads, each by its own task's gradient times the same coefficient.
      phi: of what the losses learn, likewise.
      losses: (N,) task losses.
      norms: (N,) gradient norms in the scope, zeros where no Gramian was taken.
      aux: the heads' second output, summed over microbatches.
      weighed: whatever `weigh` returned.
    """

    theta: Any
    psi: Any
    phi: Any
    losses: jax.Array
    norms: jax.Array
    aux: Any
    weighed: Any


def check_norms(kind: str, columns: int) -> None:
    """Raises a ValueError where `kind` is not one of `NORMS`, or a sketch has no columns."""
    if kind not in NORMS:
        raise ValueError(f"unknown gradient norms {kind!r}; there are: {', '.join(NORMS)}")
    if columns < 1:
        raise ValueError(f"sketch_columns must be at least 1, not {columns}")


def check_scope(scope: str) -> None:
    """Raises a ValueError that lists the scopes where `scope` is not one of them."""
    if scope not in SCOPES:
        raise ValueError(f"unknown gradient scope {scope!r}; there are: {', '.join(SCOPES)}")


def mixed_gradients(
    trunk: Callable[[Any, Any], Any] | SplitTrunk | RecordedTrunk,
    heads: Callable[[Any, Any, Any, Any], tuple[jax.Array, Any]],
    weigh: Callable[[jax.Array, jax.Array | None, Any], Any],
    theta: Any,
    psi: Any,
    phi: Any,
    batch: Any,
    *,
    num_tasks: int,
    scope: str = "trainable",
    uses_gramian: bool = True,
    gramian_rows: Sequence[int] | None = None,
    microbatches: int = 1,
    norms: Norms | None = None,
) -> Gradients:
    """Computes every task's gradient and mixes them by the coefficients of a method.

    Scope "trainable" costs one forward and N backward passes, of which those of a
    `RecordedTrunk` leave out the parameters; "representation" costs one of each; "last_layer"
    one of each and N - 1 more backward passes of that layer. With microbatches the last two
    run forward twice, because the coefficients are known only once the whole batch has been
    seen.

    Args:
      trunk: (theta, batch) -> h, the pooled hidden states (B, D); a `SplitTrunk` for
        the scope "last_layer"; a `RecordedTrunk`, whose theta is a nested dict, for `norms`.
      heads: (h, psi, phi, batch) -> (losses (E,), aux). The first N losses are the
        tasks'; further ones may serve `gramian_rows`. With microbatches, losses and aux
        are this part's shares: they add up.
      weigh: (losses (N,), gramian (N, N) or None, aux) -> anything with `.coefficients`.
      theta: shared trainable parameters.
      psi: the heads' parameters.
      phi: what the losses learn.
      batch: anything; with microbatches, a tree of arrays with a leading axis M.
      num_tasks: N.
      scope: one of `SCOPES`.
      uses_gramian: false takes no Gramian at all, at the price of "representation".
      gramian_rows: for each task, which of the E losses its gradient norm is taken of;
        by default its own.
      microbatches: M.
      norms: how the Gramian of the scope "trainable" is found; by default one whole gradient
        a task. With microbatches a sketch adds up over the parts, for a second pass forward;
        exact norms need the whole batch's gradients, one tree a task.

    Returns:
      A `Gradients`.

    Raises:
      ValueError: the scope is unknown, or "last_layer" without a `SplitTrunk`.
    """
    check_scope(scope)
    if scope == "last_layer" and not isinstance(trunk, SplitTrunk):
        raise ValueError("the scope 'last_layer' needs a SplitTrunk")
    if scope != "last_layer" and isinstance(trunk, SplitTrunk):
        trunk = trunk.__call__
    rows = tuple(range(num_tasks)) if gramian_rows is None else tuple(gramian_rows)
    parts = (trunk, heads, theta, psi, phi)

    at_trunk = uses_gramian and scope == "trainable"
    planned = None
    recorded: Any = trunk
    how = Norms("trees") if norms is None else norms
    if isinstance(trunk, RecordedTrunk):
        if at_trunk:
            part = batch if microbatches == 1 else jax.tree.map(lambda x: x[0], batch)
            losses = len({*range(num_tasks), *rows})
            planned = plan(trunk, theta, part, losses, how, additive=microbatches > 1)
        parts = (trunk.plain, *parts[1:])
    run: Whole | Accumulated
    if planned is not None and microbatches == 1:
        run = Recorded((recorded, *parts[1:]), batch, num_tasks, rows, planned, how)
    elif planned is not None:
        run = Sketched(parts, batch, num_tasks, rows, recorded, planned, how)
    elif microbatches == 1:
        run = Whole(parts, batch, num_tasks, rows)
    else:
        run = Accumulated(parts, batch, num_tasks, rows, keep_tasks=at_trunk)
    matrix, theta_of = None, run.mix_at_representation
    if at_trunk or (uses_gramian and scope == "last_layer"):
        matrix, theta_of = run.scoped(scope)
    elif uses_gramian:
        matrix = run.representation_gramian()
    weighed = weigh(jax.lax.stop_gradient(run.losses), matrix, run.aux)
    lengths = jnp.zeros((num_tasks,), jnp.result_type(run.losses, jnp.float32))
    if matrix is not None:
        lengths = gradient_norms(matrix)
    theta, psi, phi = theta_of(weighed.coefficients)
    return Gradients(theta, psi, phi, run.losses, lengths, run.aux, weighed)
