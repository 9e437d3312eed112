"""Inner products of gradients, and what of them is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax.gramian import gradient_norms, gramian


def test_gramian_is_taken_in_float32_under_bfloat16():
    trees = [{"a": jnp.full((4096,), 0.1, jnp.bfloat16)}, {"a": jnp.ones((4096,), jnp.bfloat16)}]
    matrix = gramian(trees)
    assert matrix.dtype == jnp.float32
    tenth = float(jnp.bfloat16(0.1))
    np.testing.assert_allclose(matrix, 4096 * np.array([[tenth**2, tenth], [tenth, 1]]), rtol=1e-5)


@pytest.mark.parametrize("tasks", [2, 3])
def test_norms_are_those_of_each_tree_and_cost_nothing_more(tasks):
    rng = np.random.default_rng(0)
    trees = [
        {"a": jnp.asarray(rng.normal(size=(5, 4)), jnp.float32), "b": jnp.float32(rng.normal())}
        for _ in range(tasks)
    ]
    expected = [np.hypot(np.linalg.norm(tree["a"]), abs(tree["b"])) for tree in trees]
    np.testing.assert_allclose(gradient_norms(gramian(trees)), expected, rtol=1e-6)

    def count(function):
        return jax.jit(function).lower(trees).compile().as_text().count(" reduce(")

    each = count(lambda trees: [gramian([tree])[0, 0] for tree in trees])
    assert count(lambda trees: gradient_norms(gramian(trees))) == each
    assert count(gramian) > each
