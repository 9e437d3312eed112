"""Every order of x (W + U V) is the same function, and the cheapest one is taken."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax.backbones import low_rank

pytestmark = pytest.mark.slow

ORDERS = [low_rank.Order(*flags) for flags in itertools.product((False, True), repeat=2)]


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_has_the_value_and_gradients_of_the_plain_one(order):
    rng = np.random.default_rng(0)
    shapes = ((2, 3, 5), (5, 4), (5, 2), (2, 4))
    arguments = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]

    def gradients(function):
        def total(*parts):
            return jnp.sum(jnp.sin(function(*parts)))

        return jax.value_and_grad(total, argnums=(0, 1, 2, 3))(*arguments)

    expected = gradients(lambda x, w, u, v: x @ w + (x @ u) @ v)
    found = gradients(lambda *parts: low_rank._multiply(order, "", *parts))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def flops(order, rows, num_in, num_out, rank):
    """XLA's count of a step whose matrix is frozen."""
    x, bar = (jax.ShapeDtypeStruct((rows, n), jnp.float32) for n in (num_in, num_out))
    shapes = ((num_in, num_out), (num_in, rank), (rank, num_out))
    w, u, v = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)

    def run(x, w, u, v, bar):
        y, vjp = jax.vjp(lambda x, u, v: low_rank._multiply(order, "", x, w, u, v), x, u, v)
        return y, vjp(bar)

    return jax.jit(run).lower(x, w, u, v, bar).compile().cost_analysis()["flops"]


@pytest.mark.parametrize(
    ("rows", "num_in", "num_out", "rank"),
    [(16, 64, 64, 4), (512, 32, 64, 4), (512, 32, 64, 32), (64, 64, 64, 48)],
)
def test_the_order_chosen_is_the_cheapest_by_the_compilers_count(rows, num_in, num_out, rank):
    counted = {order: flops(order, rows, num_in, num_out, rank) for order in ORDERS}
    chosen = low_rank.choose_order(rows, num_in, num_out, rank)
    # XLA counts additions as well.
    assert counted[chosen] <= 1.02 * min(counted.values()), (chosen, counted)


def test_few_rows_go_through_the_factors_and_many_through_the_matrix():
    assert low_rank.choose_order(16, 512, 512, 8) == low_rank.Order(False, False)
    assert low_rank.choose_order(100_000, 512, 512, 8) == low_rank.Order(True, False)
    assert low_rank.choose_order(100_000, 512, 512, 512) == low_rank.Order(True, True)


def test_half_precision_keeps_small_updates():
    x = jnp.tile(jnp.asarray([1, -1], jnp.bfloat16), (4096, 4))
    kernel, v = jnp.ones((8, 8), jnp.bfloat16), jnp.ones((1, 8), jnp.bfloat16)
    u = jnp.tile(jnp.asarray([2.0**-10, 0], jnp.bfloat16), 4)[:, None]
    assert low_rank.choose_order(4096, 8, 8, 1).merged
    # W + U V would be W: 2^-10 is less than half of bfloat16's step at 1.
    assert (kernel + u @ v == kernel).all()
    assert (low_rank.multiply(x, kernel, u, v) == 4 * 2.0**-10).all()
