"""Methods that see the Gramian: defining equations, optimality, and references by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from dwa_jax.weighting import cones, quadratic, spectral
from tests.weighting import cases

pytestmark = pytest.mark.slow


def unit(jacobians):
    return jacobians / np.linalg.norm(jacobians, axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("num_tasks", [2, 3, 10])
def test_mgda_meets_the_variational_inequality(num_tasks):
    # The shortest point d of a convex set has g'd >= |d|^2 for every g in it.
    jacobians = unit(cases.generic(num_tasks))
    weights = cases.coefficients("mgda", cases.gramians(jacobians))
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    assert weights.min() >= 0
    direction = np.einsum("mn,mnp->mp", weights, jacobians)
    gains = np.einsum("mnp,mp->mn", jacobians, direction)
    assert np.all(gains >= np.sum(direction**2, 1, keepdims=True) - 1e-5)


@pytest.mark.parametrize(
    ("gramian", "expected"),
    [
        ([[1, 0], [0, 1e10]], [1, 1e-10]),
        ([[1, 2], [2, 4]], [1, 0]),
        ([[1, -2], [-2, 4]], [2 / 3, 1 / 3]),
        ([[1e-12, 0], [0, 1e12]], [1, 1e-24]),
        ([[0, 0], [0, 4]], [1, 0]),
    ],
)
def test_mgda_of_two_tasks_in_closed_form(gramian, expected):
    np.testing.assert_allclose(cases.coefficients("mgda", [gramian])[0], expected, rtol=1e-5)


@pytest.mark.parametrize("num_tasks", [2, 3, 6, 10])
def test_cagrad_is_optimal(num_tasks):
    jacobians = unit(cases.generic(num_tasks))[:8]
    ours = cases.coefficients("cagrad", cases.gramians(jacobians))
    for coefficients, jacobian in zip(ours, jacobians, strict=True):
        mean, gramian = jacobian.mean(0), jacobian @ jacobian.T
        radius = 0.5 * np.linalg.norm(mean)
        direction = coefficients @ jacobian
        np.testing.assert_allclose(np.linalg.norm(direction - mean), radius, rtol=1e-3)

        def dual(w, b=jacobian @ mean, gramian=gramian, radius=radius):
            return w @ b + radius * np.sqrt(max(w @ gramian @ w, 0))

        start = np.full(num_tasks, 1 / num_tasks)
        solution = optimize.minimize(
            dual,
            start,
            bounds=[(0, 1)] * num_tasks,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-12, "maxiter": 500},
        )
        # Weak duality: no direction's worst gain exceeds this.
        assert np.min(jacobian @ direction) >= solution.fun - 2e-4 * np.linalg.norm(direction)


def test_cagrad_search_for_many_tasks_agrees_with_the_closed_form(monkeypatch):
    jacobians = unit(cases.generic(4))
    closed = cases.coefficients("cagrad", cases.gramians(jacobians))
    monkeypatch.setattr(cones, "MAX_ENUMERATED", 0)
    solve = jax.jit(jax.vmap(cones.cagrad(4).weigh, (None, None, 0)))
    step = cases.signals(np.ones(4))
    steps = jax.tree.map(lambda x: jnp.broadcast_to(x, (16, *x.shape)), step)
    steps = steps._replace(gramian=jnp.asarray(cases.gramians(jacobians), jnp.float32))
    searched = np.asarray(solve({}, (), steps).coefficients, np.float64)
    gap = np.einsum("mn,mnp->mp", searched - closed, jacobians)
    assert np.linalg.norm(gap, axis=1).max() < 2e-3


def test_cagrad_without_a_radius_is_the_mean():
    gramians = cases.gramians(cases.generic(3))
    np.testing.assert_allclose(cases.coefficients("cagrad", gramians, c=0.0), 1 / 3, rtol=1e-6)


@pytest.mark.parametrize(("num_tasks", "alpha"), [(2, 1.0), (3, 0.5), (3, 3.0), (6, 0.5), (6, 3.0)])
def test_fairgrad_solves_its_equation(num_tasks, alpha):
    # In float64, where even gradients that nearly cancel leave digits to check.
    gramians = cases.gramians(cases.generic(num_tasks))
    with jax.enable_x64(True):
        method, variables, state = cases.first("fairgrad", num_tasks, alpha=alpha)
        weigh = jax.jit(method.weigh)
        for gramian in gramians:
            a = np.asarray(
                weigh(variables, state, cases.signals(np.ones(num_tasks), gramian)).coefficients
            )
            assert a.min() > 0
            np.testing.assert_allclose(gramian @ a, a ** (-1 / alpha), rtol=1e-8)


def test_fairgrad_without_fairness_is_the_mean():
    gramians = cases.gramians(cases.generic(3))
    np.testing.assert_allclose(cases.coefficients("fairgrad", gramians, alpha=0.0), 1 / 3)


@pytest.mark.parametrize("num_tasks", [2, 3, 6])
def test_nash_solves_its_equation(num_tasks):
    gramians = cases.gramians(cases.generic(num_tasks))
    with jax.enable_x64(True):
        method, variables, state = cases.first("nash_mtl", num_tasks, max_norm=0.0)
        weigh = jax.jit(method.weigh)
        for gramian in gramians:
            step = cases.signals(np.ones(num_tasks), gramian)
            a = np.asarray(weigh(variables, state, step).coefficients)
            np.testing.assert_allclose(
                gramian @ a * a, np.full(num_tasks, np.linalg.norm(gramian)), rtol=1e-8
            )


@pytest.mark.parametrize("num_tasks", [2, 3, 6])
def test_imtl_g_projects_equally_on_every_gradient(num_tasks):
    jacobians = cases.generic(num_tasks)[::2]
    weights = cases.coefficients("imtl_g", cases.gramians(jacobians))
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-4)
    direction = np.einsum("mn,mnp->mp", weights, jacobians)
    units = jacobians / np.linalg.norm(jacobians, axis=2, keepdims=True)
    projections = np.einsum("mnp,mp->mn", units, direction)
    np.testing.assert_allclose(projections, projections[:, :1].repeat(num_tasks, 1), rtol=1e-2)


def test_imtl_g_of_two_tasks_is_the_equal_gradient():
    gramians = cases.gramians(cases.generic(2))
    imtl_g = cases.coefficients("imtl_g", gramians)
    np.testing.assert_allclose(imtl_g, cases.coefficients("equal_gradient", gramians), rtol=1e-5)


def test_equal_gradient_is_twice_adaptive_lambda():
    gramians = cases.gramians(cases.generic(2))
    halves = cases.coefficients("adaptive_lambda", gramians)
    np.testing.assert_allclose(
        cases.coefficients("equal_gradient", gramians), 2 * halves, rtol=1e-5
    )


def test_aligned_mtl_far_apart_is_orthogonal_and_equally_long():
    # Orthogonal gradients are aligned already: each is brought to the shortest one's length.
    norms = np.logspace(-5, 5, 6)
    result = cases.coefficients("aligned_mtl", [np.diag(norms**2)])[0]
    np.testing.assert_allclose(result * norms, np.full(6, norms[0] / 6), rtol=1e-4)


def test_db_mtl_by_hand():
    jacobian = cases.generic(3)[8]
    losses = np.array([0.5, 1.0, 4.0])
    of_logs = np.linalg.norm(jacobian, axis=1) / losses
    result = cases.coefficients("db_mtl", [jacobian @ jacobian.T], losses)[0]
    np.testing.assert_allclose(result, of_logs.max() / of_logs / losses, rtol=1e-5)


def test_gradnorm_objective_and_its_gradient_by_hand():
    norms, alpha = np.array([3.0, 0.5, 1.0]), 1.5
    initial, losses = np.array([1.0, 2.0, 4.0]), np.array([0.5, 1.9, 1.0])
    method, _, state = cases.first("gradnorm", 3, alpha=alpha)
    log_weights = np.array([0.3, -0.2, 0.1])
    weights = 3 * np.exp(log_weights) / np.exp(log_weights).sum()
    with jax.enable_x64(True):
        variables = {"log_weights": jnp.asarray(log_weights)}
        start = method.weigh(variables, state, cases.signals(initial, np.diag(norms**2)))
        np.testing.assert_allclose(start.state.initial_losses, initial)
        step = cases.signals(losses, np.diag(norms**2))
        result = method.weigh(variables, start.state, step)
        gradient = jax.grad(lambda v: method.weigh(v, start.state, step).objective)(variables)
    rate = losses / initial / np.mean(losses / initial)
    target = np.mean(weights * norms) * rate**alpha
    np.testing.assert_allclose(result.coefficients, weights, rtol=1e-6)
    np.testing.assert_allclose(result.objective, np.abs(weights * norms - target).sum(), rtol=1e-6)
    np.testing.assert_allclose(result.state.initial_losses, initial)

    def objective(logs):
        w = 3 * np.exp(logs) / np.exp(logs).sum()
        return np.abs(w * norms - target).sum()

    numeric = [
        (objective(log_weights + e) - objective(log_weights - e)) / 2e-6 for e in 1e-6 * np.eye(3)
    ]
    np.testing.assert_allclose(gradient["log_weights"], numeric, rtol=1e-6)


def test_gradnorm_descends_to_equal_gradients_where_rates_are_equal():
    norms = np.array([3.0, 0.5, 1.0])
    method, variables, state = cases.first("gradnorm", 3)
    step = cases.signals([1.0, 1.0, 1.0], np.diag(norms**2))
    gradient = jax.grad(lambda v: method.weigh(v, state, step).objective)

    def descend(_, v):
        return jax.tree.map(lambda x, g: x - 1e-3 * g, v, gradient(v))

    learned = jax.jit(lambda v: jax.lax.fori_loop(0, 4000, descend, v))(variables)
    weights = method.weigh(learned, state, step).coefficients
    np.testing.assert_allclose(weights, 3 / norms / np.sum(1 / norms), atol=0.01)


def test_gradnorm_waits_for_a_task_it_has_not_seen():
    method, variables, state = cases.first("gradnorm", 2)
    gramian = np.diag([1.0, 0.0])
    state = method.weigh(variables, state, cases.signals([3.0, 0.0], gramian, [1, 0])).state
    np.testing.assert_array_equal(state.seen, [True, False])
    state = method.weigh(variables, state, cases.signals([2.0, 5.0], np.eye(2))).state
    np.testing.assert_allclose(state.initial_losses, [3.0, 5.0])


def test_gradvac_with_gradients_that_stay_parallel_does_not_blow_up():
    method, variables, state = cases.first("gradvac")
    weigh = jax.jit(method.weigh)
    for _ in range(60):
        state = weigh(variables, state, cases.signals([1, 1], np.ones((2, 2)))).state
    result = weigh(variables, state, cases.signals([1, 1], np.eye(2)))
    assert np.isfinite(result.coefficients).all() and result.coefficients.max() < 100


# The solvers underneath.


@pytest.mark.parametrize("size", [2, 5, 8, 12])
def test_bounded_quadratic_beside_non_negative_least_squares(size):
    rng = np.random.default_rng(size)
    matrices = unit(cases.generic(size, count=8))
    matrices = cases.gramians(matrices) + 1e-4 * np.eye(size)
    lower = rng.uniform(size=(8, size)) / size
    linear = 0.1 * rng.normal(size=(8, size))
    with jax.enable_x64(True):
        solve = jax.jit(jax.vmap(quadratic.bounded_quadratic))
        ours = np.asarray(solve(jnp.asarray(matrices), jnp.asarray(linear), jnp.asarray(lower)))
    for one, a, q, bound in zip(ours, matrices, linear, lower, strict=True):
        # |Fx + F^-T q|^2 / 2 is the objective up to a constant, for A = F'F.
        factor = np.linalg.cholesky(a).T
        right = -factor @ bound - np.linalg.solve(factor.T, q)
        np.testing.assert_allclose(one, bound + optimize.nnls(factor, right)[0], rtol=1e-6)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_eigenvalues_of_a_graded_matrix_keep_their_digits(size):
    jacobian = cases.generic(size)[8] * np.logspace(0, -6, size)[:, None]
    exact = np.linalg.svd(jacobian, compute_uv=False) ** 2
    gramian = jnp.asarray(jacobian @ jacobian.T, jnp.float32)
    values, vectors = jax.jit(spectral.eigh)(gramian)
    np.testing.assert_allclose(values, exact, rtol=1e-3)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(size), atol=1e-5)


@pytest.mark.parametrize("size", [3, 8, 9, 32])
def test_small_eigenvalues_of_graded_matrices_are_as_accurate_as_large_ones(size):
    rng = np.random.default_rng(size)
    rows = rng.normal(size=(size, 3 * size)) * np.logspace(0, -4, size)[:, None]
    gramian = (rows @ rows.T).astype(np.float32)
    values, vectors = jax.jit(spectral.eigh)(jnp.asarray(gramian))
    assert values.dtype == vectors.dtype == np.float32
    reference = np.linalg.eigvalsh(gramian.astype(np.float64))[::-1]
    np.testing.assert_allclose(values, reference, rtol=2e-4)
    vectors = np.asarray(vectors, np.float64)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(size), atol=1e-5)
    together = jax.jit(jax.vmap(spectral.eigh))(jnp.asarray(np.stack([np.eye(size), gramian])))
    np.testing.assert_allclose(together[0][1], values, rtol=1e-4)
