"""Classification losses by class frequency, against PyTorch and the formulas as printed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from dwa_jax import losses
from dwa_jax.losses import class_frequency
from tests.losses import cases

COUNTS = np.array([60, 25, 10, 5])


def _torch(batch, logits):
    categories = torch.tensor(np.asarray(batch["category"])).long()
    return torch.tensor(np.asarray(logits, np.float64)), categories


def _weights(beta, counts=COUNTS):
    weights = np.array([(1 - beta) / (1 - beta ** int(n)) for n in counts])
    return weights / weights.sum() * len(counts)


@pytest.mark.parametrize("beta", [0.5, 0.99, 0.9999])
def test_effective_numbers_are_geometric_sums(beta):
    # Cui et al.: E_n = 1 + beta + ... + beta^(n-1), the weight is 1 / E_n.
    effective = np.array([sum(beta**j for j in range(n)) for n in COUNTS])
    expected = 1 / effective / (1 / effective).sum() * len(COUNTS)
    np.testing.assert_allclose(
        class_frequency.effective_number_weights(COUNTS, beta), expected, rtol=1e-10
    )


def test_effective_numbers_at_the_ends_of_beta():
    uniform = class_frequency.effective_number_weights(COUNTS, 0.0)
    np.testing.assert_array_equal(uniform, np.ones(4))
    inverse = class_frequency.effective_number_weights(COUNTS, 1 - 1e-9)
    np.testing.assert_allclose(inverse, 4 / COUNTS / (1 / COUNTS).sum(), rtol=1e-6)


def test_a_class_without_training_rows_weighs_nothing():
    weights = class_frequency.effective_number_weights(np.array([60, 0, 10, 5]), 0.99)
    np.testing.assert_allclose(weights[[0, 2, 3]], _weights(0.99, [60, 10, 5]) * 4 / 3, rtol=1e-10)
    assert weights[1] == 0


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999])
def test_class_balanced_is_pytorchs_weighted_cross_entropy_over_the_number_of_rows(beta):
    batch, logits = cases.batch(1)
    target, weights = _torch(batch, logits), torch.tensor(_weights(beta))
    cross_entropy = torch.nn.functional.cross_entropy
    value = cases.value(losses.class_balanced_loss(labels=cases.labels(), beta=beta), logits, batch)
    expected = cross_entropy(*target, weight=weights, reduction="sum") / len(logits)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    # PyTorch's own mean divides by the rows' weights instead.
    total = weights[target[1]].sum()
    mean = cross_entropy(*target, weight=weights)
    np.testing.assert_allclose(value * len(logits), mean * total, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_loss_as_printed(gamma):
    batch, logits = cases.batch(2)
    z, y = _torch(batch, logits)
    p = torch.softmax(z, dim=1)[torch.arange(len(y)), y]
    rows = -((1 - p) ** gamma) * torch.log(p)
    value = cases.value(losses.focal_loss(gamma=gamma), logits, batch)
    np.testing.assert_allclose(value, rows.mean(), rtol=1e-5)
    if gamma == 0:
        np.testing.assert_allclose(value, torch.nn.functional.cross_entropy(z, y), rtol=1e-5)
    balanced = losses.class_balanced_loss(labels=cases.labels(), beta=0.99, gamma=gamma)
    expected = (torch.tensor(_weights(0.99))[y] * rows).mean()
    np.testing.assert_allclose(cases.value(balanced, logits, batch), expected, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_a_row_beyond_doubt(gamma):
    # p rounds to 1 in float32, where (1 - p)^gamma has no derivative for gamma < 1.
    batch, _ = cases.batch(categories=[0, 1])
    logits = jnp.array([[200.0, 0, 0, 0], [0.0, 30.0, 0, 0]])
    task = losses.focal_loss(gamma=gamma)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: cases.value(task, x, batch)))(logits)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-3)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_logit_adjustment_is_cross_entropy_with_the_prior_added(tau):
    batch, logits = cases.batch(3)
    z, y = _torch(batch, logits)
    prior = torch.tensor(COUNTS / COUNTS.sum())
    expected = torch.nn.functional.cross_entropy(z + tau * torch.log(prior), y)
    value = cases.value(losses.logit_adjusted_loss(labels=cases.labels(), tau=tau), logits, batch)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_balanced_softmax_as_printed_is_logit_adjustment_at_one():
    batch, logits = cases.batch(4)
    z, y = _torch(batch, logits)
    weighted = torch.tensor(COUNTS, dtype=torch.float64) * torch.exp(z)
    expected = -torch.log(weighted[torch.arange(len(y)), y] / weighted.sum(dim=1)).mean()
    value = cases.value(losses.balanced_softmax_loss(labels=cases.labels()), logits, batch)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    adjusted = losses.logit_adjusted_loss(labels=cases.labels(), tau=1.0)
    np.testing.assert_allclose(cases.value(adjusted, logits, batch), expected, rtol=1e-5)


@pytest.mark.parametrize("factory", [losses.logit_adjusted_loss, losses.balanced_softmax_loss])
def test_a_class_without_training_rows_has_the_prior_of_one_row(factory):
    batch, logits = cases.batch(5)
    none = cases.value(factory(labels=cases.labels((60, 0, 10, 5))), logits, batch)
    one = cases.value(factory(labels=cases.labels((60, 1, 10, 5))), logits, batch)
    assert np.isfinite(none) and none == one


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("class_balanced", {"beta": 1.0}, r"class_balanced: beta=1.0 must be in \[0, 1\)"),
        ("class_balanced", {"beta": -0.1}, "class_balanced: beta=-0.1 must be"),
        ("class_balanced", {"gamma": -1}, "class_balanced: gamma=-1 must be a finite number"),
        ("focal", {"gamma": -1}, "focal: gamma=-1 must be a finite number of at least 0"),
        ("focal", {"gamma": float("nan")}, "focal: gamma=nan must be"),
        ("logit_adjusted", {"tau": float("inf")}, "logit_adjusted: tau=inf must be"),
    ],
)
def test_options_out_of_range(name, options, message):
    with pytest.raises(ValueError, match=message):
        cases.make(losses.CLASSIFICATION_LOSSES[name], **options)
