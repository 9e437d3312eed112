"""The engine's passes over a batch, whole or in parts. Axis letters: N tasks, M parts."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dwa_jax.gramian import gramian

# Up to so many losses pass backward one after the other, which a CPU is faster at; more of
# them in a loop, or compiling takes longer than the run.
_FEW = 4


def mix(coefficients: jax.Array, trees: Any) -> Any:
    """Sums trees, in float32 or wider.

    Args:
      coefficients: (N,).
      trees: as `gramian` takes them.

    Returns:
      A tree, the sum over t of coefficients[t] times the t-th.
    """
    if not isinstance(trees, list):
        return jax.tree.map(
            lambda leaf: jnp.tensordot(
                coefficients.astype(_wide(leaf)), leaf.astype(_wide(leaf)), 1
            ),
            trees,
        )
    return jax.tree.map(
        lambda *leaves: sum(
            coefficients[t].astype(_wide(leaf)) * leaf.astype(_wide(leaf))
            for t, leaf in enumerate(leaves)
        ),
        *trees,
    )


def _wide(leaf):
    # Gradients of weights that are held in half precision come in it.
    return jnp.promote_types(leaf.dtype, jnp.float32)


def _sum_dtype(leaf):
    return _wide(leaf) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype


def select(trees: Any, rows: Sequence[int]) -> Any:
    """Returns some of N trees, in the form that they have; see `gramian`."""
    if isinstance(trees, list):
        return [trees[row] for row in rows]
    count = jax.tree.leaves(trees)[0].shape[0]
    if list(rows) == list(range(count)):
        return trees
    return jax.tree.map(lambda leaf: leaf[jnp.array(rows)], trees)


def needed(num_tasks: int, rows: Sequence[int]) -> list[int]:
    """Returns which losses' gradients are needed: the tasks', then those of further `rows`."""
    return sorted({*range(num_tasks), *rows})


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
        return needed(self.num_tasks, self.rows)

    def _one_hot(self, row):
        return jnp.zeros((self.num_outputs,), self.dtype).at[row].set(1)

    def _every(self, pull):
        """Passes each needed loss back: the gradients as `gramian` takes trees.

        Args:
          pull: from a loss's row of the identity to its gradients.
        """
        rows = [self._one_hot(row) for row in self._needed()]
        if len(rows) <= _FEW:
            return [pull(row) for row in rows]
        return jax.lax.map(pull, jnp.stack(rows))

    def _compared(self, found):
        places = self._needed()
        return select(found, [places.index(row) for row in self.rows])

    def _at_h(self, row):
        return self.heads_vjp(row)[0]

    def _at_heads(self, coefficients):
        # The heads' vjp is linear, so one call with the coefficients mixes all tasks.
        padding = self.num_outputs - self.num_tasks
        return self.heads_vjp(jnp.pad(coefficients.astype(self.dtype), (0, padding)))

    def every_task(self) -> Any:
        """Each needed loss's gradients in theta, psi and phi, as `gramian` takes trees."""

        def pull(row):
            h_bar, psi, phi = self.heads_vjp(row)
            return self.trunk_vjp(h_bar)[0], psi, phi

        return self._every(pull)

    def last_layer(self) -> Any:
        """Each needed loss's gradient in the last layer, likewise."""
        return self._every(lambda row: self.upper_vjp(self._at_h(row))[0])

    def representation_gramian(self) -> jax.Array:
        return gramian(self._compared(self._every(self._at_h)))

    def mix_at_representation(self, coefficients: jax.Array) -> tuple:
        h_bar, psi, phi = self._at_heads(coefficients)
        return self.trunk_vjp(h_bar)[0], psi, phi

    def scoped(self, scope: str) -> tuple[jax.Array, Callable]:
        whole = scope == "trainable"
        vjp = self.trunk_vjp if whole else self.upper_vjp
        tasks = self._every(lambda row: vjp(self._at_h(row)))
        # The scope's own gradient comes first.
        matrix = gramian(_first(self._compared(tasks)))

        def theta_of(coefficients):
            _, psi, phi = self._at_heads(coefficients)
            mixed = mix(coefficients, select(tasks, range(self.num_tasks)))
            return (mixed[0] if whole else self._join(*mixed)), psi, phi

        return matrix, theta_of


def _first(tuples):
    return [one[0] for one in tuples] if isinstance(tuples, list) else tuples[0]


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
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, _sum_dtype(s)), shapes)

        def add(total, one):
            return total + one.astype(total.dtype)

        def body(total, part):
            return jax.tree.map(add, total, function(part)), None

        return jax.lax.scan(body, zeros, self.batch)[0]

    def representation_gramian(self) -> jax.Array:
        return self._representation

    def mix_at_representation(self, coefficients: jax.Array) -> tuple:
        return self._sum(lambda part: self._part(part).mix_at_representation(coefficients))

    def scoped(self, scope: str) -> tuple[jax.Array, Callable]:
        # Inner products of sums are not sums of inner products: the parts' gradients
        # are added before they are multiplied.
        losses = needed(self.num_tasks, self.rows)
        places = [losses.index(row) for row in self.rows]
        if scope == "last_layer":
            tasks = self._sum(lambda part: self._part(part).last_layer())
            return gramian(select(tasks, places)), self.mix_at_representation
        matrix = gramian(_first(select(self._tasks, places)))
        return matrix, lambda c: mix(c, select(self._tasks, range(self.num_tasks)))
