"""Gradients from what a trunk's matrices were given and what came back at their outputs.

At a matrix whose input is X (n, I), task t's gradient is X^T G_t, G_t (n, O) its cotangent at
the output. So the tasks' inner products need no gradient, and the mixture needs one:
X^T (sum of c_t G_t). The engine knows no model: a trunk lists its sites, a `Site` each.

Sources: Goodfellow 2015, "Efficient Per-Example Gradient Computations"; Bu et al. 2022,
"Differentially Private Optimization on Large Model at Small Cost" (both a row at a time);
Johnson and Lindenstrauss 1984 and Achlioptas 2003 for random signs.

Axis letters: N tasks, n tokens, I in, O out, V rows of a table, k columns of the sketch.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dwa_jax.backbones.products import transposed_product
from dwa_jax.gramian import exact_product
from dwa_jax.passes import mix, select

NORMS = ("exact", "sketch", "trees")
# Multiplications in whose time a number is written and read twice.
_TOUCH = 64


class Site(NamedTuple):
    """A matrix, or a stack of them, whose inputs and outputs a trunk hands out.

    Attributes:
      name: key of its input and of its probe.
      kind: "dense", x W + b; or "embedding", a table looked up by row.
      path: of the matrix among the shared parameters.
      bias: of its bias where it has one that trains, else None.
      layers: which rows of a stacked parameter these are; None: the parameter is no stack.
      stacked: whether input and probe have a leading axis over `layers`.
      given: shape of the input, (layers,) tokens and I; of an embedding's ids, without I.
      outputs: O.
      dtype: of the output.
      turned: whether its input is turned for its gradients, see `products.turns`.
    """

    name: str
    kind: str
    path: str
    bias: str | None
    layers: tuple[int, ...] | None
    stacked: bool
    given: tuple[int, ...]
    outputs: int
    dtype: Any
    turned: bool = False

    @property
    def probe(self) -> tuple[int, ...]:
        """Shape of the output."""
        tokens = self.given if self.kind == "embedding" else self.given[:-1]
        return (*tokens, self.outputs)

    @property
    def tokens(self) -> int:
        """n, in one layer."""
        return math.prod(self.probe[1 if self.stacked else 0 : -1])


class RecordedTrunk(NamedTuple):
    """A trunk that can hand out what passes through its matrices.

    Attributes:
      plain: (theta, batch) -> h.
      sites: (theta, batch) -> its sites, of parameters that train; shapes alone are looked at.
      run: (theta, probes, batch) -> (h, inputs): the same, with the cotangent of a site's
        output as that of its probe (of the output's shape, by name), and inputs by name.
    """

    plain: Callable[[Any, Any], Any]
    sites: Callable[[Any, Any], tuple[Site, ...]]
    run: Callable[[Any, dict, Any], tuple[Any, dict]]


class Record(NamedTuple):
    """One matrix in one pass.

    Attributes:
      site: where it is.
      layer: its row of a stacked parameter, or None.
      given: X (n, I), or the ids (n,).
      cotangents: G of every loss, a list of (n, O) or, of many losses, one (N, n, O).
    """

    site: Site
    layer: int | None
    given: jax.Array
    cotangents: Any


def apart(sites: Sequence[Site], passed: dict) -> list[tuple[Site, int | None, jax.Array]]:
    """Takes stacks of layers apart.

    Args:
      sites: of the trunk.
      passed: by name of a site: what its matrix was given, or one loss's cotangents.

    Returns:
      (site, row of a stacked parameter or None, array (n, I) or (n, O), or the ids (n,)) of
      every matrix.
    """
    found = []
    for site in sites:
        for row, layer in enumerate(site.layers or (None,)):
            one = passed[site.name]
            ids = site.kind == "embedding" and one.shape == site.given
            one = one[row] if site.stacked else one
            one = one.reshape(-1) if ids else one.reshape(site.tokens, -1)
            found.append((site, layer, one))
    return found


def choose_way(site: Site, losses: int, columns: int, *, additive: bool = False) -> str:
    """Chooses the way to a matrix's inner products that multiplies least.

    Args:
      site: any.
      losses: N.
      columns: k of a sketch; 0 allows none.
      additive: whether parts of a batch must add up.

    Returns:
      "rows", of an embedding: each row's gradient is that of its tokens, summed; exact.
      "direct": X^T G_t, exact; the gradients are kept for the mixture.
      "ghost": (X X^T + 1) G_t . G_t, exact.
      "sketch": |X^T G_t R|^2, R of random signs.
    """
    if site.kind == "embedding":
        return "rows"
    if additive:
        return "sketch"
    costs = way_multiplications(site, losses, columns)
    costs["direct"] += losses * _TOUCH * site.given[-1] * site.outputs
    return min(costs, key=lambda way: costs[way])


def way_multiplications(site: Site, losses: int, columns: int) -> dict[str, int]:
    """Counts what each way costs at a dense site, the mixed gradient's product included.

    Args:
      site: any that is no embedding.
      losses: N.
      columns: k of a sketch; 0 allows none.
    """
    n, num_in, num_out = site.tokens, site.given[-1], site.outputs
    mixed = n * num_in * num_out
    costs = {
        "direct": losses * mixed,
        "ghost": n * n * (num_in + losses * num_out) + mixed,
    }
    if columns:
        costs["sketch"] = losses * n * columns * (num_in + num_out) + mixed
    return costs


def signs(key: Any, sites: Sequence[Site], columns: int, dtype: Any) -> dict:
    """Draws every site's random signs over the root of k.

    Args:
      key: of this step.
      sites: of the trunk.
      columns: k.
      dtype: of the result.

    Returns:
      {(site name, layer): (O, k)}.
    """
    sizes = {
        (site.name, layer): (site.outputs, columns)
        for site in sites
        for layer in site.layers or (None,)
    }
    total = sum(math.prod(shape) for shape in sizes.values())
    # A bit a sign: drawn one by one they would take a tenth of a small step.
    words = jax.random.bits(key, (-(-total // 32), 1), jnp.uint32)
    bits = (words >> jnp.arange(32, dtype=jnp.uint32)[None]) & jnp.uint32(1)
    values = (2 * bits.astype(jnp.int32) - 1).reshape(-1).astype(dtype)
    values = values * jnp.asarray(columns**-0.5, dtype)
    found, at = {}, 0
    for name, shape in sizes.items():
        found[name] = values[at : at + math.prod(shape)].reshape(shape)
        at += math.prod(shape)
    return found


def each(function: Callable, of_losses: Any) -> Any:
    """Applies a function to every loss's array."""
    if isinstance(of_losses, list):
        return [function(one) for one in of_losses]
    return jax.vmap(function)(of_losses)


def inner(left: Any, right: Any) -> Any:
    """Every inner product of two lists of arrays; what this returns adds up.

    Returns:
      {(s, t): ()}, s <= t, so that those that nobody asks for are not computed; of many
      losses (N, N).
    """
    dtype = jnp.promote_types(left[0].dtype, jnp.float32)
    if isinstance(left, list):
        count = range(len(left))
        return {
            (s, t): jnp.sum(left[s].astype(dtype) * right[t].astype(dtype))
            for s in count
            for t in count[s:]
        }
    left, right = (one.reshape(one.shape[0], -1).astype(dtype) for one in (left, right))
    return exact_product(left, right.T)


def matrix_record(total: Any) -> jax.Array:
    """Makes an (N, N) Gramian of a sum of what `inner` returns."""
    if not isinstance(total, dict):
        return total
    count = range(max(total)[0] + 1)
    # In one line, which `gramian.gradient_norms` counts on.
    line = [total[min(s, t), max(s, t)] for s in count for t in count]
    return jnp.stack(line).reshape(len(count), len(count))


def features(record: Record, way: str, drawn: jax.Array | None, table: int = 0) -> list:
    """What stands for a record's gradients: arrays whose inner products are theirs.

    Args:
      record: any.
      way: "direct", "sketch" or "rows".
      drawn: (O, k) signs of a sketch.
      table: V, where an embedding's gradient, or a sketch of it, is that of the whole table;
        0 takes the rows of this batch alone, and no sketch.

    Returns:
      The gradients' parts, each a list of the losses' arrays or one with a leading axis N.
    """
    site, x, bars = record.site, record.given, record.cotangents
    if drawn is not None:
        bars = each(lambda bar: bar @ drawn.astype(bar.dtype), bars)
    if way == "rows":
        if table:
            return [
                each(lambda bar: jnp.zeros((table, bar.shape[1]), bar.dtype).at[x].add(bar), bars)
            ]
        place = _places(x)
        # Of duplicates the first place holds the sum, the others nothing.
        return [each(lambda bar: jnp.zeros_like(bar).at[place].add(bar), bars)]
    if way == "sketch" and isinstance(bars, list):
        # One product for all of them; each alone would be too narrow to be fast.
        joined = x.T @ jnp.concatenate(bars, axis=1)
        whole: Any = jnp.split(joined, len(bars), axis=1)
    elif way == "sketch":
        whole = jnp.einsum("nd,tnk->tdk", x, bars)
    else:
        whole = each(lambda bar: transposed_product(x, bar, turned=site.turned), bars)
    if site.bias is None:
        return [whole]
    return [whole, each(lambda bar: bar.sum(axis=0), bars)]


def ghost(record: Record, rows: Sequence[int]) -> Any:
    """The inner products of a record's gradients, without them.

    The kernel X X^T, plus one for a bias, is formed once for all losses.
    """
    x = record.given
    kernel = x @ x.T
    if record.site.bias is not None:
        kernel = kernel + jnp.ones((), kernel.dtype)
    bars = select(record.cotangents, rows)
    products = inner(each(lambda bar: kernel @ bar, bars), bars)
    if isinstance(bars, list):
        # A norm by G G^T, which is as many products and n^2 numbers instead of n O.
        dtype = jnp.promote_types(kernel.dtype, jnp.float32)
        for t, bar in enumerate(bars):
            products[t, t] = jnp.sum(kernel.astype(dtype) * (bar @ bar.T).astype(dtype))
    return products


def gradient(
    record: Record, coefficients: jax.Array, tasks: Sequence[int], kept: list | None
) -> dict:
    """The mixed gradient of a record's parameters.

    Args:
      record: any.
      coefficients: (N,).
      tasks: which of the losses they are of.
      kept: the gradients themselves, by `features`, where they were formed.

    Returns:
      {path: array}; of an embedding the cotangent (n, O), for one scatter into the table.
    """
    site = record.site
    if kept is not None:
        mixed = [mix(coefficients, select(one, tasks)) for one in kept]
    else:
        bar = mix(coefficients, select(record.cotangents, tasks)).astype(site.dtype)
        if site.kind == "embedding":
            return {site.path: bar}
        mixed = [transposed_product(record.given, bar, turned=site.turned)]
        if site.bias is not None:
            mixed.append(bar.sum(axis=0))
    return dict(zip([site.path, site.bias], mixed, strict=False))


def _places(ids):
    # For each token the first place, in the order of the ids, that holds its id.
    order = jnp.argsort(ids)
    ordered = ids[order]
    fresh = jnp.concatenate([jnp.ones((1,), bool), ordered[1:] != ordered[:-1]])
    first = jax.lax.cummax(jnp.where(fresh, jnp.arange(ids.size), 0))
    return jnp.zeros_like(first).at[order].set(first)
