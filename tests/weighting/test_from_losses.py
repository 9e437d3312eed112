"""Methods that see the losses alone: closed forms, finite differences, references by hand."""

import jax
import numpy as np
import pytest

from dwa_jax import weighting
from tests.weighting import cases

LOSSES = np.array([0.7, 0.1, 2.5])


@pytest.mark.parametrize("name", ["geometric_mean", "stch", "uncertainty", "imtl_l"])
def test_coefficients_are_the_derivative_of_the_objective_in_the_losses(name):
    with jax.enable_x64(True):
        method, variables, state = cases.first(name, 3)
        rng = np.random.default_rng(0)
        variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), variables)

        @jax.jit
        def run(losses):
            result = method.weigh(variables, state, cases.signals(losses))
            return result.objective, result.coefficients

        numeric = [(run(LOSSES + e)[0] - run(LOSSES - e)[0]) / 2e-6 for e in 1e-6 * np.eye(3)]
        np.testing.assert_allclose(run(LOSSES)[1], numeric, rtol=1e-7)


@pytest.mark.parametrize(
    ("name", "optimum"), [("uncertainty", np.log(LOSSES)), ("imtl_l", -np.log(LOSSES))]
)
def test_learned_scales_settle_where_theory_has_them(name, optimum):
    method, variables, state = cases.first(name, 3)
    step = cases.signals(LOSSES)
    gradient = jax.grad(lambda v: method.weigh(v, state, step).objective)

    def settle(_, v):
        return jax.tree.map(lambda x, g: x - 0.2 * g, v, gradient(v))

    (learned,) = jax.tree.leaves(jax.lax.fori_loop(0, 500, settle, variables))
    np.testing.assert_allclose(learned, optimum, atol=1e-4)


def test_geometric_mean_survives_a_loss_of_zero():
    method, variables, state = cases.first("geometric_mean")
    result = method.weigh(variables, state, cases.signals([0.0, 1.0]))
    np.testing.assert_allclose(result.coefficients, [5e3, 5e-5], rtol=1e-4)


@pytest.mark.parametrize("losses", [[1e4, 0.0, 0.0], [5.0, 5.0, 5.0]])
def test_stch_with_a_small_mu_is_the_maximum(losses):
    method, variables, state = cases.first("stch", 3, mu=1e-4)
    result = method.weigh(variables, state, cases.signals(losses))
    np.testing.assert_allclose(result.objective, max(losses) / 3, rtol=1e-3)


def test_random_weights_are_fresh_softmaxes_of_normal_draws():
    method, variables, state = cases.first("random", 3)

    def step(state, _):
        result = method.weigh(variables, state, cases.signals(LOSSES))
        return result.state, result.coefficients

    weights = np.asarray(jax.lax.scan(step, state, None, 4000)[1], np.float64)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    ratio = np.log(weights[:, 0] / weights[:, 1])
    np.testing.assert_allclose([ratio.mean(), ratio.std()], [0, np.sqrt(2)], atol=0.1)
    assert abs(np.corrcoef(ratio[1:], ratio[:-1])[0, 1]) < 0.06
    np.testing.assert_allclose(weights.mean(0), 1 / 3, atol=0.02)


def test_famo_is_adam_on_the_logits_by_hand():
    losses = np.random.default_rng(1).lognormal(size=(20, 3))
    rate, decay = 0.025, 1e-3
    method, variables, state = cases.first("famo", 3)
    weigh = jax.jit(method.weigh)
    logits, mean, square = np.zeros(3), np.zeros(3), np.zeros(3)
    for count, now in enumerate(losses):
        if count:
            z = np.exp(logits) / np.exp(logits).sum()
            decrease = np.log(losses[count - 1]) - np.log(now)
            gradient = z * (decrease - z @ decrease) + decay * logits
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient**2
            corrected = np.sqrt(square / (1 - 0.999**count)) + 1e-8
            logits = logits - rate * mean / (1 - 0.9**count) / corrected
        z = np.exp(logits) / np.exp(logits).sum()
        result = weigh(variables, state, cases.signals(now))
        state = result.state
        np.testing.assert_allclose(result.coefficients, z / now / np.sum(z / now), rtol=1e-4)
    np.testing.assert_allclose(state.logits, logits, atol=1e-5)


def test_famo_learns_nothing_from_a_task_it_missed():
    method, variables, state = cases.first("famo", 2, weight_decay=0.0)
    for losses, present in (([1.0, 2.0], [1, 1]), ([1.0, 0.0], [1, 0]), ([1.0, 9.0], [1, 1])):
        state = method.weigh(variables, state, cases.signals(losses, present=present)).state
    np.testing.assert_allclose(state.logits, [0, 0], atol=1e-7)
    np.testing.assert_allclose(state.log_losses, np.log([1.0, 9.0]), rtol=1e-6)


def test_famo_gives_weight_to_the_task_that_stands_still():
    method, variables, state = cases.first("famo", 2)
    for step in range(10):
        losses = [2.0, 2.0 * 0.8**step]
        state = method.weigh(variables, state, cases.signals(losses)).state
    assert state.logits[0] > 0.1 > -0.1 > state.logits[1]


def test_dynamic_weight_average_by_hand():
    means = np.array([[1.0, 2.0], [0.5, 1.8], [0.4, 1.2]])
    method, variables, state = cases.first("dynamic_weight_average", temperature=0.5, period=2)
    found = []
    for mean in means:
        for wobble in (0.9, 1.1):
            result = method.weigh(variables, state, cases.signals(wobble * mean))
            found.append(np.asarray(result.coefficients))
            state = result.state
    np.testing.assert_allclose(found[:4], np.ones((4, 2)))
    powers = np.exp(means[1] / means[0] / 0.5)
    np.testing.assert_allclose(found[4:], [2 * powers / powers.sum()] * 2, rtol=1e-5)


def test_dynamic_weight_average_keeps_what_it_knew_of_a_missing_task():
    method, variables, state = cases.first("dynamic_weight_average", period=1)
    for losses, present in (([1, 4], [1, 1]), ([1, 2], [1, 1]), ([1, 0], [1, 0]), ([1, 2], [1, 1])):
        result = method.weigh(variables, state, cases.signals(losses, present=present))
        state = result.state
    powers = np.exp(np.array([1.0, 0.5]) / 2)
    np.testing.assert_allclose(result.coefficients, 2 * powers / powers.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("stch", {"mu": 0.0}, "mu must be positive"),
        ("stch", {"weights": (1.0,)}, "1 weights"),
        ("stch", {"reference": (1.0, 1.0, 1.0)}, "3 reference"),
        ("stch", {"weights": (1.0, -1.0)}, "must not be negative"),
        ("famo", {"learning_rate": -1.0}, "must not be negative"),
        ("dynamic_weight_average", {"temperature": 0.0}, "temperature must be positive"),
        ("dynamic_weight_average", {"period": 0}, "period must be at least 1"),
        ("gradnorm", {"alpha": -1.0}, "alpha must not be negative"),
        ("gradvac", {"decay": 1.5}, "decay must be in"),
        ("gradvac", {"max_target": 1.0}, "max_target must be in"),
        ("cagrad", {"c": -1.0}, "must not be negative"),
        ("upgrad", {"preferences": (1.0,)}, "1 preferences"),
        ("dualproj", {"preferences": (1.0, -1.0)}, "must not be negative"),
        ("dualproj", {"regularization": -1.0}, "regularization must not be negative"),
        ("nash_mtl", {"max_norm": -1.0}, "max_norm must not be negative"),
        ("fairgrad", {"alpha": -1.0}, "alpha must not be negative"),
        ("aligned_mtl", {"scale": "max"}, "scale must be min, median or rmse"),
    ],
)
def test_options_out_of_range_are_refused(name, options, match):
    with pytest.raises(ValueError, match=match):
        weighting.get(name, 2, **options)
