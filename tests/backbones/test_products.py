"""Products with a derivative of their own are plain products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax.backbones import products


@pytest.mark.parametrize(("num_in", "num_out"), [(4, 7), (7, 4)])
def test_value_and_gradients_are_those_of_a_plain_product(num_in, num_out):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 3, num_in)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(num_in, num_out)), jnp.float32)

    def gradients(function):
        def total(x, kernel):
            return jnp.sum(jnp.sin(function(x, kernel)))

        return jax.value_and_grad(total, argnums=(0, 1))(x, kernel)

    expected = jax.tree.leaves(gradients(jnp.dot))
    for ours, theirs in zip(jax.tree.leaves(gradients(products.product)), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of XLA's products on CPU")
@pytest.mark.parametrize(("num_in", "num_out", "turned"), [(64, 96, True), (96, 64, False)])
def test_a_matrix_gradient_sums_over_the_last_axis_unless_its_input_is_wide(
    num_in, num_out, turned
):
    x, kernel = jnp.ones((32, num_in)), jnp.ones((num_in, num_out))

    def gradient(x, kernel):
        return jax.grad(lambda kernel: jnp.sum(products.product(x, kernel) ** 2))(kernel)

    text = jax.jit(gradient).lower(x, kernel).compile().as_text()
    assert ("lhs_contracting_dims={0}" not in text) == turned
