"""The Dynamic Weight Adapter beside equations 6 and 13 to 15 by hand, option by option."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax import weighting
from dwa_jax.weighting.dwa import balanced_lambda
from tests.weighting import cases

pytestmark = pytest.mark.slow

NORMS = np.array([3.0, 0.5])
LOSSES = np.array([0.8, 1.6])


def run(losses=LOSSES, norms=NORMS, present=None, variables=None, state=None, **options):
    method, start, carried = cases.first("dwa", len(losses), **options)
    variables = start if variables is None else variables
    step = cases.signals(losses, np.diag(np.square(norms)), present)
    return method.weigh(variables, carried if state is None else state, step)


def random_variables(inputs=2, width=16, tasks=2, seed=0):
    # FC2 starts at 0, where its own gradient is all there is.
    rng = np.random.default_rng(seed)
    return {
        "fc1": {"kernel": rng.normal(size=(inputs, width)), "bias": rng.normal(size=width)},
        "fc2": {"kernel": rng.normal(size=(width, tasks)), "bias": rng.normal(size=tasks)},
    }


def network(variables, inputs):
    hidden = np.maximum(inputs @ variables["fc1"]["kernel"] + variables["fc1"]["bias"], 0)
    logits = hidden @ variables["fc2"]["kernel"] + variables["fc2"]["bias"]
    return np.exp(logits) / np.exp(logits).sum()


# Equation 6.


@pytest.mark.parametrize(
    ("norms", "present", "expected"),
    [
        ([3.0, 1.0], [1, 1], [0.25, 0.75]),
        ([0.0, 0.0], [1, 1], [0.5, 0.5]),
        ([0.0, 2.0], [1, 1], [1.0, 0.0]),
        ([np.inf, 2.0], [1, 1], [0.5, 0.5]),
        ([np.nan, 2.0], [1, 1], [0.5, 0.5]),
        ([np.inf, np.inf], [1, 1], [0.5, 0.5]),
        ([3.0, 1.0], [0, 1], [0.0, 1.0]),
        ([0.0, 1.0], [0, 1], [0.0, 1.0]),
        ([np.nan, 1.0], [0, 1], [0.0, 1.0]),
        ([3.0, 1.0], [0, 0], [0.0, 0.0]),
        ([1e-30, 1e12], [0, 1], [0.0, 1.0]),
        ([1.0, 2.0, 4.0], [1, 1, 1], [4 / 7, 2 / 7, 1 / 7]),
        ([1.0, 2.0, 4.0], [1, 0, 1], [0.8, 0.0, 0.2]),
        ([0.0, 2.0, 0.0], [1, 1, 1], [0.5, 0.0, 0.5]),
    ],
)
def test_lambda(norms, present, expected):
    result = balanced_lambda(jnp.asarray(norms), jnp.asarray(present, float))
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_lambda_of_two_tasks_is_equation_6():
    norms = np.random.default_rng(0).lognormal(size=(50, 2))
    result = jax.vmap(balanced_lambda, (0, None))(jnp.asarray(norms), jnp.ones(2))
    np.testing.assert_allclose(result, norms[:, ::-1] / norms.sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("num_tasks", [2, 3, 6])
def test_lambda_makes_weighted_gradients_equally_long_at_any_scale(num_tasks):
    norms = np.random.default_rng(num_tasks).lognormal(sigma=2, size=num_tasks)
    norms = norms * np.array([1e-12, 1e-6, 1.0, 1e6, 1e12])[:, None]
    gramians = np.einsum("mn,nk->mnk", norms**2, np.eye(num_tasks))
    result = np.asarray(cases.weigh("dwa", gramians).metrics["lambda"])
    np.testing.assert_allclose(result.sum(1), 1, rtol=1e-5)
    lengths = result * norms
    np.testing.assert_allclose(lengths, lengths[:, :1].repeat(num_tasks, 1), rtol=1e-5)


def test_lambda_with_norms_24_orders_apart():
    norms = np.logspace(-12, 12, 6)
    result = np.asarray(run(np.ones(6), norms).metrics["lambda"], np.float64)
    np.testing.assert_allclose(result, (1 / norms) / np.sum(1 / norms), rtol=1e-5)


# Equations 13 to 15.


def test_coefficients_start_at_lambda_over_two():
    result = run()
    np.testing.assert_allclose(result.metrics["weight"], [0.5, 0.5])
    np.testing.assert_allclose(result.coefficients, NORMS[::-1] / NORMS.sum() / 2, rtol=1e-6)


def test_weights_are_the_network_of_the_weighted_losses():
    variables = random_variables()
    balance = NORMS[::-1] / NORMS.sum()
    weights = network(variables, balance * LOSSES)
    result = run(variables=variables)
    np.testing.assert_allclose(result.metrics["weight"], weights, rtol=1e-5)
    np.testing.assert_allclose(result.coefficients, balance * weights, rtol=1e-5)
    np.testing.assert_allclose(result.objective, np.sum(balance * weights * LOSSES), rtol=1e-5)


def test_class_inputs_are_the_proportions_and_their_entropy():
    p = np.array([0.2, 0.5, 0.3])
    variables = random_variables(inputs=6)
    inputs = [*(NORMS[::-1] / NORMS.sum() * LOSSES), *p, -np.sum(p * np.log(p))]
    result = run(variables=variables, class_inputs=3)
    np.testing.assert_allclose(result.metrics["weight"], network(variables, inputs), rtol=1e-5)


def test_entropy_of_an_absent_class_is_zero():
    method, _, state = cases.first("dwa", class_inputs=3)
    step = cases.signals(LOSSES, np.diag(NORMS**2), proportions=(0.0, 1.0, 0.0))
    variables = random_variables(inputs=6)
    result = method.weigh(variables, state, step)
    inputs = [*(NORMS[::-1] / NORMS.sum() * LOSSES), 0, 1, 0, 0]
    np.testing.assert_allclose(result.metrics["weight"], network(variables, inputs), rtol=1e-5)


def perturbations(variables):
    # Every entry, one after the other.
    leaves, tree = jax.tree.flatten(variables)
    for index, leaf in enumerate(leaves):
        for entry in np.ndindex(leaf.shape):

            def moved(by, index=index, entry=entry):
                changed = [np.array(leaf) for leaf in leaves]
                changed[index][entry] += by
                return tree.unflatten(changed)

            yield index, entry, moved


@pytest.mark.parametrize(
    "options", [{}, {"kl_to_uniform": 0.3}, {"floor": 0.1}, {"floor": 0.1, "kl_to_uniform": 0.3}]
)
def test_gradient_of_the_objective_is_that_of_finite_differences(options):
    with jax.enable_x64(True):
        variables = random_variables(width=4)
        method, _, state = cases.first("dwa", width=4, **options)
        step = cases.signals(LOSSES, np.diag(NORMS**2))
        objective = jax.jit(lambda v: method.weigh(v, state, step).objective)
        gradient = jax.tree.leaves(jax.grad(objective)(variables))
        for index, entry, moved in perturbations(variables):
            numeric = (objective(moved(1e-5)) - objective(moved(-1e-5))) / 2e-5
            np.testing.assert_allclose(gradient[index][entry], numeric, rtol=1e-6, atol=1e-10)


def test_descent_favours_the_smaller_weighted_loss_down_to_the_floor():
    method, variables, state = cases.first("dwa", floor=0.05)
    step = cases.signals([0.2, 2.0], np.eye(2))
    objective = jax.grad(lambda v: method.weigh(v, state, step).objective)

    @jax.jit
    def descend(variables):
        return jax.lax.fori_loop(
            0, 3000, lambda _, v: jax.tree.map(lambda x, g: x - g, v, objective(v)), variables
        )

    weights = method.weigh(descend(variables), state, step).metrics["weight"]
    np.testing.assert_allclose(weights, [0.95, 0.05], atol=0.01)


# Options.


@pytest.mark.parametrize("floor", [0.0, 0.1, 0.3])
def test_floor_shrinks_the_simplex(floor):
    variables = random_variables()
    plain = run(variables=variables).metrics["weight"]
    result = run(variables=variables, floor=floor).metrics["weight"]
    np.testing.assert_allclose(result, floor + (1 - 2 * floor) * plain, rtol=1e-5)


def test_kl_to_uniform_is_added_to_the_objective():
    variables = random_variables()
    weights = np.asarray(run(variables=variables).metrics["weight"], np.float64)
    gap = run(variables=variables, kl_to_uniform=0.7).objective - run(variables=variables).objective
    np.testing.assert_allclose(gap, 0.7 * np.sum(weights * np.log(2 * weights)), rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 5.0])
def test_temperature_is_the_optimum_over_all_weights(temperature):
    losses, norms = np.array([0.3, 0.9, 2.0]), np.array([1.0, 2.0, 3.0])
    result = run(losses, norms, temperature=temperature)
    weighted = np.asarray(result.metrics["lambda"], np.float64) * losses

    def regularised(w):
        return w @ weighted + temperature * np.sum(w * np.log(np.maximum(3 * w, 1e-300)), -1)

    best = regularised(np.asarray(result.metrics["weight"], np.float64))
    rivals = np.random.default_rng(0).dirichlet(np.ones(3), 5000)
    assert best <= regularised(rivals).min() + 1e-7
    assert cases.first("dwa", temperature=temperature)[1] == {}


@pytest.mark.parametrize("options", [{}, {"temperature": 0.4}, {"floor": 0.1}])
def test_through_weights_is_the_total_differentiated_by_finite_differences(options):
    with jax.enable_x64(True):
        learns = "temperature" not in options
        variables = random_variables() if learns else {}
        result = run(variables=variables, through_weights=True, **options)
        numeric = []
        for step in 1e-5 * np.eye(2):
            high = run(LOSSES + step, variables=variables, **options).objective
            low = run(LOSSES - step, variables=variables, **options).objective
            numeric.append((high - low) / 2e-5)
        np.testing.assert_allclose(result.coefficients, numeric, rtol=1e-7)
        detached = run(variables=variables, **options).coefficients
        assert np.abs(detached - result.coefficients).max() > 1e-3


@pytest.mark.parametrize("num_tasks", [2, 5])
def test_rescale_starts_every_task_at_one(num_tasks):
    norms = np.ones(num_tasks)
    plain = run(np.ones(num_tasks), norms).coefficients
    result = run(np.ones(num_tasks), norms, rescale=True).coefficients
    np.testing.assert_allclose(plain, np.full(num_tasks, num_tasks**-2.0), rtol=1e-6)
    np.testing.assert_allclose(result, np.ones(num_tasks), rtol=1e-6)


def test_norm_decay_averages_what_was_seen():
    sequence = [([4.0, 1.0], None), ([2.0, 3.0], [1, 0]), ([8.0, np.nan], None), ([2.0, 5.0], None)]
    averages = [[4, 1], [3.5, 1], [4.625, 1], [3.96875, 2]]
    state = cases.first("dwa", norm_decay=0.75)[2]
    for (norms, present), expected in zip(sequence, averages, strict=True):
        result = run(norms=norms, present=present, state=state, norm_decay=0.75)
        state = result.state
        np.testing.assert_allclose(state.norms, expected, rtol=1e-6)
        here = np.ones(2) if present is None else np.asarray(present)
        inverse = here / np.asarray(expected)
        np.testing.assert_allclose(result.metrics["lambda"], inverse / inverse.sum(), rtol=1e-6)


def test_norm_decay_with_a_first_norm_that_is_not_finite():
    result = run(norms=[np.nan, 3.0], norm_decay=0.9)
    np.testing.assert_allclose(result.metrics["lambda"], [0.5, 0.5])
    assert result.state.norms[0] < 0
    later = run(norms=[1.0, 3.0], norm_decay=0.9, state=result.state)
    np.testing.assert_allclose(later.metrics["lambda"], [0.75, 0.25], rtol=1e-6)


def test_state_without_decay_holds_the_last_norms():
    np.testing.assert_allclose(run().state.norms, NORMS, rtol=1e-6)


def test_an_absent_task_gets_nothing_and_the_other_all():
    for options in ({}, {"floor": 0.2}, {"temperature": 1.0}, {"kl_to_uniform": 1.0}):
        learns = "temperature" not in options
        result = run(present=[0, 1], variables=random_variables() if learns else {}, **options)
        np.testing.assert_allclose(result.coefficients, [0, 1], atol=1e-6)


def test_no_task_at_all_gives_zeros_and_a_zero_gradient():
    variables = random_variables()
    np.testing.assert_array_equal(run(present=[0, 0]).coefficients, [0, 0])
    gradient = jax.grad(lambda v: run(present=[0, 0], variables=v, kl_to_uniform=1.0).objective)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient(variables)))


@pytest.mark.parametrize(("name", "key"), [("adaptive_lambda", "weight"), ("adaptive_w", "lambda")])
def test_each_ablation_fixes_one_factor_at_a_half(name, key):
    method, variables, state = cases.first(name)
    step = cases.signals(LOSSES, np.diag(NORMS**2))
    result = method.weigh(variables, state, step)
    np.testing.assert_allclose(result.metrics[key], [0.5, 0.5])
    assert method.uses_gramian == (name == "adaptive_lambda")
    assert bool(variables) == (name == "adaptive_w")


# Transformations.


def test_jit_and_vmap_agree_with_one_eager_step():
    method, _, state = cases.first("dwa", norm_decay=0.5)
    variables = random_variables()
    rng = np.random.default_rng(0)
    losses, norms = rng.lognormal(size=(5, 2)), rng.lognormal(size=(5, 2))

    def weigh(losses, norms):
        return method.weigh(variables, state, cases.signals(losses, jnp.diag(norms**2)))

    batched = jax.jit(jax.vmap(weigh))(losses, norms)
    for index in range(5):
        one = weigh(losses[index], norms[index])
        jax.tree.map(
            lambda a, b, index=index: np.testing.assert_allclose(a[index], b, rtol=1e-5),
            batched,
            one,
        )


def test_coefficients_are_detached():
    step = cases.signals(LOSSES, np.diag(NORMS**2))
    method, _, state = cases.first("dwa", through_weights=True)
    gradient = jax.grad(lambda v: method.weigh(v, state, step).coefficients.sum())
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient(random_variables())))


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("dwa", {"floor": 0.5}, "floor must be in"),
        ("dwa", {"floor": -0.1}, "floor must be in"),
        ("dwa", {"norm_decay": 1.0}, "norm_decay must be in"),
        ("dwa", {"temperature": 0.0}, "temperature must be positive"),
        ("dwa", {"kl_to_uniform": -1.0}, "kl_to_uniform"),
        ("dwa", {"width": 0}, "width must be at least 1"),
        ("dwa", {"flor": 0.1}, "its options: .*'floor'"),
        ("adaptive_lambda", {"floor": 0.1}, r"its options: \['rescale', 'norm_decay'\]"),
        ("adaptive_w", {"norm_decay": 0.1}, "norm_decay"),
    ],
)
def test_options_out_of_range_are_refused(name, options, match):
    with pytest.raises(ValueError, match=match):
        weighting.get(name, 2, **options)


def test_rescaling_counts_the_tasks_that_are_present():
    method = weighting.get("dwa", 2, rescale=True)
    variables, state = method.init(jax.random.key(0))
    signals = weighting.Signals(
        jnp.array([0.5, 0.0]),
        jnp.diag(jnp.array([4.0, 0.0])),
        jnp.zeros(5),
        jnp.zeros(5),
        jnp.array([True, False]),
    )
    np.testing.assert_allclose(method.weigh(variables, state, signals).coefficients, [1, 0])


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_the_learned_weights_go_to_the_smaller_loss_as_far_as_the_floor(floor):
    method = weighting.get("dwa", 2, floor=floor)
    variables, state = method.init(jax.random.key(0))
    signals = weighting.Signals(
        jnp.array([1.0, 0.3]), jnp.eye(2), jnp.zeros(5), jnp.full((5,), 0.2)
    )
    start = method.weigh(variables, state, signals)
    # Equal weights and equal norms: a quarter each.
    np.testing.assert_allclose(start.coefficients, [0.25, 0.25])
    descend = jax.jit(jax.grad(lambda v: method.weigh(v, state, signals).objective))
    for _ in range(300):
        variables = jax.tree.map(lambda v, g: v - 0.5 * g, variables, descend(variables))
    weights = method.weigh(variables, state, signals).metrics["weight"]
    assert floor <= weights[0] < floor + 0.03
