"""The engine's passes over a batch, whole or in parts. Axis letters: N tasks, M parts."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dwa_jax.gramian import gramian


def mix(coefficients: jax.Array, trees: Sequence[Any]) -> Any:
    """Returns sum over t of coefficients[t] * trees[t], in the trees' own dtypes."""
    return jax.tree.map(
        lambda *leaves: sum(
            coefficients[t].astype(leaf.dtype) * leaf for t, leaf in enumerate(leaves)
        ),
        *trees,
    )


class SplitTrunk(NamedTuple):
    """A trunk cut before its last layer, for the scope "last_layer".

    Attributes:
      lower: (theta, batch) -> x, everything below the last layer.
      last: theta -> the last layer's own parameters.
      upper: (last parameters, x, batch) -> h, the rest.
    """

    lower: Callable[..., Any]
    last: Callable[[Any], Any]
    upper: Callable[..., Any]

    def __call__(self, theta: Any, batch: Any) -> Any:
        """Runs the whole trunk."""
        return self.upper(self.last(theta), self.lower(theta, batch), batch)


class Whole:
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
        self._at(h, batch, heads, psi, phi)

    def _at(self, h, batch, heads, psi, phi):
        outputs, self.heads_vjp, self.aux = jax.vjp(
            lambda h, psi, phi: heads(h, psi, phi, batch), h, psi, phi, has_aux=True
        )
        self.num_outputs = outputs.shape[0]
        self.losses = outputs[: self.num_tasks]
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

    def every_task(self) -> dict:
        """Each needed loss's gradients in theta, psi and phi."""
        result = {}
        for row in self._needed():
            h_bar, psi, phi = self.heads_vjp(self._one_hot(row))
            result[row] = (self.trunk_vjp(h_bar)[0], psi, phi)
        return result

    def last_layer(self) -> dict:
        """Each needed loss's gradient in the last layer."""
        return {row: self.upper_vjp(h_bar)[0] for row, h_bar in self._cotangents().items()}

    def representation_gramian(self) -> jax.Array:
        cotangents = self._cotangents()
        return gramian([cotangents[row] for row in self.rows])

    def mix_at_representation(self, coefficients: jax.Array) -> tuple:
        h_bar, psi, phi = self._at_heads(coefficients)
        return self.trunk_vjp(h_bar)[0], psi, phi

    def scoped(self, scope: str) -> tuple[jax.Array, Callable]:
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


class Accumulated:
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
        return Whole(self.parts, part, self.num_tasks, self.rows)

    def _sum(self, function):
        shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], self.batch))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def body(total, part):
            return jax.tree.map(jnp.add, total, function(part)), None

        return jax.lax.scan(body, zeros, self.batch)[0]

    def representation_gramian(self) -> jax.Array:
        return self._representation

    def mix_at_representation(self, coefficients: jax.Array) -> tuple:
        return self._sum(lambda part: self._part(part).mix_at_representation(coefficients))

    def scoped(self, scope: str) -> tuple[jax.Array, Callable]:
        # Inner products of sums are not sums of inner products: the parts' gradients
        # are added before they are multiplied.
        if scope == "last_layer":
            tasks = self._sum(lambda part: self._part(part).last_layer())
            return gramian([tasks[row] for row in self.rows]), self.mix_at_representation
        matrix = gramian([self._tasks[row][0] for row in self.rows])
        return matrix, lambda c: mix(c, [self._tasks[t] for t in range(self.num_tasks)])
