"""The papers' imbalance loss: by hand, closed forms, finite differences, its divergence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import torch

from dwa_jax import losses
from tests.losses import cases
from tests.losses.cases import K

pytestmark = pytest.mark.slow


def _by_hand(batch, logits, alpha, beta, p=None):
    category, mask = np.asarray(batch["category"]), np.asarray(batch["category_mask"]) > 0
    logs = scipy.special.log_softmax(np.asarray(logits, np.float64), axis=1)
    total = 0.0
    for k in range(K):
        mine = (category == k) & mask
        share = mine.sum() / mask.sum() if p is None else p[k]
        if share > 0:
            # The class's part of the mean over all rows.
            loss = -logs[mine, k].sum() / mask.sum()
            total += share**-beta * (loss - alpha * np.log(share))
    return total


@pytest.mark.parametrize("categories", [None, [0, 0, 0, 2, 2, 3], [1, 1, 1]])
def test_imbalance_loss_class_by_class(categories):
    batch, logits = cases.batch(1, categories)
    task = losses.imbalance_loss(alpha=0.4, beta=0.8)
    value = cases.value(task, logits, batch)
    np.testing.assert_allclose(value, _by_hand(batch, logits, 0.4, 0.8), rtol=1e-5)


def test_without_alpha_and_beta_it_is_pytorchs_cross_entropy():
    batch, logits = cases.batch(2)
    task = losses.imbalance_loss(alpha=0.0, beta=0.0)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(np.asarray(logits)), torch.tensor(np.asarray(batch["category"])).long()
    )
    value = cases.value(task, logits, batch)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    plain = losses.cross_entropy_loss()
    np.testing.assert_allclose(cases.value(plain, logits, batch), value, rtol=1e-6)


@pytest.mark.parametrize("kind", losses.PROPORTIONS)
def test_beta_weighs_rows_by_a_power_of_p_and_0_leaves_cross_entropy(kind):
    # A data set where classes are shared out otherwise than in the batch, class 3 at 5 %.
    batch, logits = cases.batch(5, [0, 0, 0, 0, 0, 1, 1, 3])
    average = jnp.array([0.55, 0.3, 0.1, 0.05])
    scored, counts = losses.count_labels(batch, K)
    p = losses.class_proportions(kind, counts, average)
    outputs = torch.tensor(np.asarray(logits), requires_grad=True)
    category = torch.tensor(np.asarray(batch["category"])).long()
    for beta in (0.0, 0.5):
        task = losses.imbalance_loss(alpha=0.0, beta=beta)
        value, gradient = jax.jit(jax.value_and_grad(task.apply, argnums=1))(
            task.init(), logits, batch, losses.Statistics(scored, counts, p)
        )
        rows = torch.nn.functional.cross_entropy(outputs, category, reduction="none")
        weights = torch.tensor(np.asarray(p))[category] ** -beta
        expected = (weights * rows).mean()
        np.testing.assert_allclose(value, expected.item(), atol=1e-6)
        theirs = torch.autograd.grad(expected, outputs)[0]
        np.testing.assert_allclose(gradient, theirs, atol=1e-6)


def test_equations_10_and_12_against_closed_forms_and_finite_differences():
    with jax.enable_x64(True):
        batch, logits = cases.batch(3, [0, 0, 0, 0, 2, 2, 3])
        statistics = cases.statistics(batch)
        task = losses.imbalance_loss(alpha=0.4, beta=0.8)

        def loss(alpha, beta):
            return cases.value(task, logits, batch, alpha=alpha, beta=beta)

        point = (jnp.asarray(0.4), jnp.asarray(0.8))
        by_alpha, by_beta = jax.jit(jax.grad(loss, argnums=(0, 1)))(*point)
        p = np.array([4, 2, 1]) / 7
        v, log_p = p**-0.8, np.log(p)
        means = losses.class_cross_entropy(
            logits, batch["category"], batch["category_mask"], statistics.class_counts
        )[jnp.array([0, 2, 3])]
        # Equation 10, and equation 12 as it should read.
        np.testing.assert_allclose(by_alpha, -(v * log_p).sum(), rtol=1e-6)
        corrected = (v * (-p * log_p * np.asarray(means) + 0.4 * log_p**2)).sum()
        np.testing.assert_allclose(by_beta, corrected, rtol=1e-6)
        h = 1e-5
        numeric = (loss(0.4 + h, 0.8) - loss(0.4 - h, 0.8)) / (2 * h)
        np.testing.assert_allclose(by_alpha, numeric, rtol=1e-6)
        numeric = (loss(0.4, 0.8 + h) - loss(0.4, 0.8 - h)) / (2 * h)
        np.testing.assert_allclose(by_beta, numeric, rtol=1e-6)
        # Both derivatives are positive whatever the labels: descent only shrinks them.
        assert by_alpha > 0 and by_beta > 0


def test_gradients_are_finite_where_classes_are_absent_or_there_is_one_class_only():
    for categories in ([1, 1, 1], [0, 3, 3]):
        batch, logits = cases.batch(4, categories)
        task = losses.imbalance_loss(alpha=1.0, beta=1.0)
        gradients = jax.jit(jax.grad(task.apply, argnums=(0, 1)))(
            task.init(), logits, batch, cases.statistics(batch)
        )
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_proportions():
    counts, average = jnp.array([6.0, 2, 0, 0]), jnp.array([0.4, 0.3, 0.2, 0.1])
    proportions = losses.class_proportions
    np.testing.assert_allclose(proportions("batch", counts, average), [0.75, 0.25, 0, 0])
    np.testing.assert_allclose(
        proportions("laplace", counts, average), np.array([7, 3, 1, 1]) / 12, rtol=1e-6
    )
    np.testing.assert_array_equal(proportions("dataset", counts, average), average)
    with pytest.raises(ValueError, match="'ema'; there are: batch, laplace"):
        proportions("ema", counts, average)


def test_smoothed_proportions_count_absent_classes():
    batch, logits = cases.batch(8, [0, 0, 1, 3])
    task = losses.imbalance_loss(alpha=0.3, beta=0.5)
    value = task.apply(task.init(), logits, batch, cases.statistics(batch, "laplace"))
    p = np.array([3, 2, 1, 2]) / 8
    np.testing.assert_allclose(value, _by_hand(batch, logits, 0.3, 0.5, p), rtol=1e-5)


def test_modes_of_alpha_and_beta():
    outside = {"alpha": jnp.asarray(-1.0), "beta": jnp.asarray(9.0)}
    bounded = losses.imbalance_loss(alpha=0.5, beta=0.5)
    assert bounded.project(outside) == {"alpha": 0.0, "beta": 2.0}
    assert bounded.penalty(outside) == 0
    prior = losses.imbalance_loss(alpha=0.5, beta=1.0, mode="prior", prior=3.0)
    assert prior.penalty(outside) == pytest.approx(1.5 * (1.5**2 + 8.0**2))
    with pytest.warns(UserWarning, match="unbounded below"):
        literal = losses.imbalance_loss(mode="literal")
    assert literal.project(outside) is outside
    batch, logits = cases.batch(9)
    frozen = losses.imbalance_loss(mode="frozen")
    gradient = jax.grad(lambda v: frozen.apply(v, logits, batch, cases.statistics(batch)))(
        frozen.init()
    )
    assert gradient == {"alpha": 0.0, "beta": 0.0}
    with pytest.raises(ValueError, match="unknown imbalance mode 'clip'"):
        losses.imbalance_loss(mode="clip")
    with pytest.raises(ValueError, match=r"alpha = 5 .* must start within"):
        losses.imbalance_loss(alpha=5)


def test_literal_descent_of_alpha_passes_minus_a_million():
    # Adam at 1e-3 from alpha = beta = 1, as printed: there is no minimum to find.
    import optax

    batch, logits = cases.batch(10, [0, 0, 0, 0, 0, 0, 0, 1])
    statistics = cases.statistics(batch)
    with pytest.warns(UserWarning):
        task = losses.imbalance_loss(alpha=1.0, beta=1.0, mode="literal")
    adam = optax.adam(1e-2)

    def step(carry, _):
        variables, state = carry
        value, gradient = jax.value_and_grad(task.apply)(variables, logits, batch, statistics)
        updates, state = adam.update(gradient, state)
        return (optax.apply_updates(variables, updates), state), value

    start = (task.init(), adam.init(task.init()))
    _, values = jax.lax.scan(step, start, length=2000)
    assert values[-1] < -1e6
