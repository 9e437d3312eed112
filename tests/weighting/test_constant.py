"""Fixed weights: the papers' mixture, one task alone, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax import weighting
from tests.weighting import cases


@pytest.mark.parametrize(
    ("num_tasks", "weights", "expected"),
    [
        (2, None, [0.75, 0.25]),
        (4, None, [0.25] * 4),
        (2, (2.0, 0.0), [2.0, 0.0]),
        (3, [1, 2, 3], [1.0, 2.0, 3.0]),
    ],
)
def test_coefficients_are_the_weights(num_tasks, weights, expected):
    method, variables, state = cases.first("constant", num_tasks, weights=weights)
    losses = np.arange(1.0, num_tasks + 1)
    result = jax.jit(method.weigh)(variables, state, cases.signals(losses))
    np.testing.assert_array_equal(result.coefficients, expected)
    np.testing.assert_allclose(result.objective, np.dot(expected, losses), rtol=1e-6)
    assert not method.uses_gramian
    assert jax.tree.leaves((variables, state, result.state)) == []


@pytest.mark.parametrize("task", [0, 1, 2])
def test_single_task_is_one_hot(task):
    method, variables, state = cases.first("single_task", 3, task=task)
    result = method.weigh(variables, state, cases.signals([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(result.coefficients, np.eye(3)[task])


def test_weights_have_the_dtype_of_the_losses():
    method, variables, state = cases.first("constant")
    step = cases.signals([1.0, 2.0])._replace(losses=jnp.ones(2, jnp.bfloat16))
    assert method.weigh(variables, state, step).coefficients.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("constant", {"weights": (1.0,)}, "1 weights .* for 2 tasks"),
        ("constant", {"weights": (1.0, -1.0)}, "not negative"),
        ("constant", {"weights": (1.0, float("nan"))}, "finite"),
        ("single_task", {"task": 2}, r"task must be in \[0, 2\), not 2"),
        ("single_task", {"weight": 2}, r"its options: \['task'\]"),
        ("constnat", {}, "did you mean 'constant'"),
    ],
)
def test_mistakes_are_named(name, options, match):
    with pytest.raises(ValueError, match=match):
        weighting.get(name, 2, **options)
