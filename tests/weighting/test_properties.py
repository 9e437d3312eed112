"""What every registered method promises, in tables over methods and many Gramians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax import weighting
from tests.weighting import cases

pytestmark = pytest.mark.slow

NAMES = weighting.names()
# These name a task by its place.
BY_PLACE = {"constant", "single_task"}
# These draw from a key, one number or one order a task; the order of two others matters.
DRAWN = {"random", "pcgrad", "gradvac"}
# Coefficients fall as this power of the gradients' scale; the rest do not depend on it.
DEGREE = {"fairgrad": -1}
OPTIONS = {"nash_mtl": {"max_norm": 0.0}}


def mixed(coefficients, jacobians):
    return np.einsum("mn,mnp->mp", coefficients, jacobians)


def assert_close_directions(one, other, coefficients, jacobians, tolerance=1e-3):
    size = np.max(np.abs(coefficients) * np.linalg.norm(jacobians, axis=2), axis=1)
    assert np.all(np.linalg.norm(one - other, axis=1) <= tolerance * size)


@pytest.mark.parametrize("name", NAMES)
def test_coefficients_are_finite_whatever_the_gradients(name):
    for num_tasks in (2, 6):
        jacobians = np.stack(list(cases.degenerate(num_tasks).values()))
        every = np.concatenate([cases.gramians(jacobians), cases.gramians(1e-6 * jacobians[:-1])])
        every[-1, 0, 1] = np.nan
        result = cases.coefficients(name, every)
        assert np.isfinite(result).all(), (num_tasks, result)
        assert np.abs(result).max() < 1e12


@pytest.mark.parametrize("name", NAMES)
def test_jit_is_eager_and_the_state_keeps_its_form(name):
    jacobian, losses = cases.generic(2)[9], [0.5, 2.0]
    step = cases.signals(losses, jacobian @ jacobian.T)
    method, variables, state = cases.first(name)
    eager = method.weigh(variables, state, step)
    jitted = jax.tree.map(lambda x: x[0], cases.weigh(name, step.gramian[None], losses))
    np.testing.assert_allclose(jitted.coefficients, eager.coefficients, rtol=1e-4)
    np.testing.assert_allclose(jitted.objective, eager.objective, rtol=1e-4)
    assert eager.coefficients.shape == (2,) and eager.objective.shape == ()

    def form(tree):
        return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)

    assert form(jitted.state) == form(eager.state) == form(state)


@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_tasks(name):
    for num_tasks in (4, 5, 9):  # 2, 3 and 6 everywhere else
        step = cases.signals(np.ones(num_tasks), np.eye(num_tasks))
        method = weighting.get(name, num_tasks)
        variables, state = jax.eval_shape(method.init, jax.random.key(0))
        result = jax.eval_shape(method.weigh, variables, state, step)
        assert result.coefficients.shape == (num_tasks,)


LEARNERS = [name for name in NAMES if weighting.get(name).init(jax.random.key(0))[0]]


@pytest.mark.parametrize("name", LEARNERS)
def test_the_objective_moves_what_is_learned_and_the_coefficients_do_not(name):
    method, variables, state = cases.first(name)
    step = cases.signals([0.5, 2.0], [[4.0, 1.0], [1.0, 9.0]])
    gradient = jax.grad(lambda v: method.weigh(v, state, step).objective)(variables)
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    gradient = jax.grad(lambda v: method.weigh(v, state, step).coefficients.sum())(variables)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient))


def test_who_learns():
    assert set(LEARNERS) == {"dwa", "adaptive_w", "uncertainty", "imtl_l", "gradnorm"}


@pytest.mark.parametrize("name", sorted(set(NAMES) - BY_PLACE - DRAWN))
def test_permuting_tasks_permutes_coefficients(name):
    for num_tasks in (2, 6):
        order = np.random.default_rng(num_tasks).permutation(num_tasks)
        jacobians = cases.generic(num_tasks)
        losses = np.linspace(0.5, 1.5, num_tasks)
        plain = cases.coefficients(name, cases.gramians(jacobians), losses)
        moved = cases.coefficients(name, cases.gramians(jacobians[:, order]), losses[order])
        assert_close_directions(
            mixed(moved, jacobians[:, order]), mixed(plain, jacobians), plain, jacobians
        )


@pytest.mark.parametrize("name", sorted({"pcgrad", "gradvac"}))
def test_order_does_not_matter_to_two_tasks(name):
    jacobians = cases.generic(2)
    plain = cases.coefficients(name, cases.gramians(jacobians))
    moved = cases.coefficients(name, cases.gramians(jacobians[:, ::-1]))
    np.testing.assert_allclose(moved[:, ::-1], plain, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_positive_homogeneity(name, scale):
    options = OPTIONS.get(name, {})
    for num_tasks in (2, 3):
        gramians = cases.gramians(cases.generic(num_tasks)[6:10])
        # A power of two scales without rounding.
        exact = 2.0 ** np.round(np.log2(scale))
        plain = cases.coefficients(name, gramians, **options)
        result = cases.coefficients(name, exact**2 * gramians, **options)
        expected = plain * exact ** DEGREE.get(name, 0)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_nash_direction_is_cut_to_its_norm():
    jacobians = cases.generic(3)
    result = mixed(cases.coefficients("nash_mtl", cases.gramians(jacobians)), jacobians)
    free = mixed(cases.coefficients("nash_mtl", cases.gramians(jacobians), max_norm=0.0), jacobians)
    lengths = np.linalg.norm(free, axis=1)
    frobenius = np.linalg.norm(cases.gramians(jacobians), axis=(1, 2))
    np.testing.assert_allclose(lengths, np.sqrt(3 * frobenius), rtol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(result, axis=1), np.minimum(lengths, 1), rtol=2e-3)


@pytest.mark.parametrize(
    ("name", "options", "tasks"),
    [
        ("mgda", {}, (2, 6)),
        ("upgrad", {"regularization": 0.0}, (2, 6)),
        ("dualproj", {"regularization": 0.0}, (2, 6)),
        ("cagrad", {"c": 1.0}, (2, 6)),
        ("nash_mtl", {}, (2, 6)),
        ("fairgrad", {}, (2, 6)),
        ("config_mtl", {}, (2, 6)),
        ("pcgrad", {}, (2,)),
        ("imtl_g", {}, (2,)),
        ("equal_gradient", {}, (2,)),
    ],
)
def test_no_task_is_made_worse(name, options, tasks):
    for num_tasks in tasks:
        jacobians = cases.generic(num_tasks)
        result = cases.coefficients(name, cases.gramians(jacobians), **options)
        gains = np.einsum("mnp,mp->mn", jacobians, mixed(result, jacobians))
        norms = np.linalg.norm(jacobians, axis=2)
        size = norms * np.max(np.abs(result) * norms, axis=1, keepdims=True)
        assert np.all(gains >= -1e-5 * size), (num_tasks, np.min(gains / size))


@pytest.mark.parametrize("name", ["mgda", "upgrad", "dualproj"])
def test_direction_vanishes_where_a_positive_combination_does(name):
    options = {} if name == "mgda" else {"regularization": 0.0}
    for num_tasks in (2, 6):
        jacobians = cases.generic(num_tasks)[::2].copy()
        jacobians[:, -1] = -jacobians[:, :-1].sum(1)
        result = cases.coefficients(name, cases.gramians(jacobians), **options)
        direction = mixed(result, jacobians)
        assert_close_directions(direction, np.zeros_like(direction), result, jacobians)


@pytest.mark.parametrize("name", sorted(set(NAMES) - BY_PLACE))
def test_an_absent_task_leaves_the_others_as_they_are(name):
    jacobians = cases.generic(3)[6:10].copy()
    jacobians[:, 1] = 0
    losses = np.array([0.5, 0.0, 1.5])
    full = cases.coefficients(name, cases.gramians(jacobians), losses, present=[True, False, True])
    np.testing.assert_array_equal(full[:, 1], 0)
    if name == "random":
        # Other draws.
        np.testing.assert_allclose(full.sum(1), 1, rtol=1e-6)
        return
    pair = cases.coefficients(name, cases.gramians(jacobians[:, ::2]), losses[::2])
    np.testing.assert_allclose(full[:, ::2], pair, rtol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_any_label_is_survived(name):
    result = cases.weigh(name, np.zeros((1, 2, 2)), [0.0, 0.0], present=False)
    leaves = jax.tree.leaves((result.coefficients, result.objective, result.state))
    assert all(
        np.isfinite(leaf).all() for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)
    )


@pytest.mark.parametrize("name", [n for n in NAMES if not weighting.get(n).uses_gramian])
def test_a_method_without_use_for_the_gramian_ignores_it(name):
    two = [np.zeros((2, 2)), [[2.0, 1.0], [1.0, 9.0]]]
    one, other = cases.coefficients(name, np.stack(two))
    np.testing.assert_array_equal(one, other)
