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

from dwa_jax.gramian import gradient_norms, gramian

SCOPES = ("trainable", "representation", "last_layer")


class SplitTrunk(NamedTuple):
    """A trunk cut before its last layer, for the scope "last_layer".

    Attributes:
      lower: (theta, batch) -> x, everything below the last layer.
      last: theta -> the last layer's own parameters.
      upper: (last parameters, x, batch) -> h, the rest.
    """

    lower: Callable[[Any, Any], Any]
    last: Callable[[Any], Any]
    upper: Callable[[Any, Any, Any], Any]

    def __call__(self, theta: Any, batch: Any) -> Any:
        """Runs the whole trunk."""
        return self.upper(self.last(theta), self.lower(theta, batch), batch)


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


def check_scope(scope: str) -> None:
    """Raises a ValueError that lists the scopes where `scope` is not one of them."""
    if scope not in SCOPES:
        raise ValueError(f"unknown gradient scope {scope!r}; there are: {', '.join(SCOPES)}")


def mix(coefficients: jax.Array, trees: Sequence[Any]) -> Any:
    """Returns sum over t of coefficients[t] * trees[t], in the trees' own dtypes."""
    return jax.tree.map(
        lambda *leaves: sum(
            coefficients[t].astype(leaf.dtype) * leaf for t, leaf in enumerate(leaves)
        ),
        *trees,
    )


def mixed_gradients(
    trunk: Callable[[Any, Any], Any] | SplitTrunk,
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
) -> Gradients:
    """Computes every task's gradient and mixes them by the coefficients of a method.

    Scope "trainable" costs one forward and N backward passes; "representation" one of
    each; "last_layer" one of each and N - 1 more backward passes of that layer. With
    microbatches the last two run forward twice, because the coefficients are known only
    once the whole batch has been seen.

    Args:
      trunk: (theta, batch) -> h, the pooled hidden states (B, D); a `SplitTrunk` for
        the scope "last_layer".
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
    run: _Whole | _Accumulated
    if microbatches == 1:
        run = _Whole(parts, batch, num_tasks, rows)
    else:
        run = _Accumulated(parts, batch, num_tasks, rows, keep_tasks=at_trunk)
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


class _Whole:
    """The engine's passes over a batch that is held in one piece."""

    def __init__(self, parts: tuple, batch: Any, num_tasks: int, rows: Sequence[int]):
        trunk, heads, theta, psi, phi = parts
        self.rows, self.num_tasks = rows, num_tasks
        if isinstance(trunk, SplitTrunk):
            x, self.lower_vjp = jax.vjp(lambda t: trunk.lower(t, batch), theta)
            last, self.last_vjp = jax.vjp(trunk.last, theta)
            h, self.upper_vjp = jax.vjp(lambda p, x: trunk.upper(p, x, batch), last, x)
            self.trunk_vjp = self._through_split
        else:
            h, self.trunk_vjp = jax.vjp(lambda t: trunk(t, batch), theta)
        outputs, self.heads_vjp, self.aux = jax.vjp(
            lambda h, psi, phi: heads(h, psi, phi, batch), h, psi, phi, has_aux=True
        )
        self.num_outputs = outputs.shape[0]
        self.losses = outputs[:num_tasks]
        self.dtype = outputs.dtype

    def _through_split(self, h_bar):
        last_bar, x_bar = self.upper_vjp(h_bar)
        return (self._join(last_bar, x_bar),)

    def _join(self, last_bar, x_bar):
        (lower,), (last,) = self.lower_vjp(x_bar), self.last_vjp(last_bar)
        return jax.tree.map(jnp.add, lower, last)

    def _needed(self):
        return sorted({*range(self.num_tasks), *self.rows})

    def _one_hot(self, row):
        return jnp.zeros((self.num_outputs,), self.dtype).at[row].set(1)

    def _cotangents(self):
        # Each needed loss's own gradient at h.
        return {row: self.heads_vjp(self._one_hot(row))[0] for row in self._needed()}

    def _at_heads(self, coefficients):
        # The heads' vjp is linear, so one call with the coefficients mixes all tasks.
        padding = self.num_outputs - self.num_tasks
        return self.heads_vjp(jnp.pad(coefficients.astype(self.dtype), (0, padding)))

    def every_task(self):
        """Each needed loss's gradients in theta, psi and phi."""
        result = {}
        for row in self._needed():
            h_bar, psi, phi = self.heads_vjp(self._one_hot(row))
            result[row] = (self.trunk_vjp(h_bar)[0], psi, phi)
        return result

    def last_layer(self):
        """Each needed loss's gradient in the last layer."""
        return {row: self.upper_vjp(h_bar)[0] for row, h_bar in self._cotangents().items()}

    def representation_gramian(self):
        cotangents = self._cotangents()
        return gramian([cotangents[row] for row in self.rows])

    def mix_at_representation(self, coefficients):
        h_bar, psi, phi = self._at_heads(coefficients)
        return self.trunk_vjp(h_bar)[0], psi, phi

    def scoped(self, scope):
        cotangents = self._cotangents()
        if scope == "trainable":
            tasks = {row: self.trunk_vjp(h_bar)[0] for row, h_bar in cotangents.items()}
            matrix = gramian([tasks[row] for row in self.rows])
        else:
            tasks = {row: self.upper_vjp(h_bar) for row, h_bar in cotangents.items()}
            matrix = gramian([tasks[row][0] for row in self.rows])

        def theta_of(coefficients):
            _, psi, phi = self._at_heads(coefficients)
            mixed = mix(coefficients, [tasks[t] for t in range(self.num_tasks)])
            return (mixed if scope == "trainable" else self._join(*mixed)), psi, phi

        return matrix, theta_of


class _Accumulated:
    """The engine's passes over a batch in M parts whose shares of everything add up."""

    def __init__(
        self, parts: tuple, batch: Any, num_tasks: int, rows: Sequence[int], keep_tasks: bool
    ):
        self.parts, self.batch = parts, batch
        self.rows, self.num_tasks = rows, num_tasks

        def forward(part):
            run = self._part(part)
            tasks = run.every_task() if keep_tasks else None
            return run.losses, run.aux, run.representation_gramian(), tasks

        self.losses, self.aux, self._representation, self._tasks = self._sum(forward)

    def _part(self, part):
        return _Whole(self.parts, part, self.num_tasks, self.rows)

    def _sum(self, function):
        shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], self.batch))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def body(total, part):
            return jax.tree.map(jnp.add, total, function(part)), None

        return jax.lax.scan(body, zeros, self.batch)[0]

    def representation_gramian(self):
        return self._representation

    def mix_at_representation(self, coefficients):
        return self._sum(lambda part: self._part(part).mix_at_representation(coefficients))

    def scoped(self, scope):
        # Inner products of sums are not sums of inner products: the parts' gradients
        # are added before they are multiplied.
        if scope == "last_layer":
            tasks = self._sum(lambda part: self._part(part).last_layer())
            return gramian([tasks[row] for row in self.rows]), self.mix_at_representation
        matrix = gramian([self._tasks[row][0] for row in self.rows])
        return matrix, lambda c: mix(c, [self._tasks[t] for t in range(self.num_tasks)])
