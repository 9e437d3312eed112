"""What holds for every registered loss: shares, missing labels, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax import losses
from tests.losses import cases

pytestmark = pytest.mark.slow

EVERY = {**losses.CLASSIFICATION_LOSSES, **losses.REGRESSION_LOSSES}
KEYS = ("score", "score_mask", "category", "category_mask")


def _case(name, seed=0):
    # Every loss with a batch in which both labels are missing here and there.
    batch, logits = cases.batch(seed)
    batch["category_mask"] = batch["category_mask"].at[jnp.array([1, 6])].set(0)
    classifies = name in losses.CLASSIFICATION_LOSSES
    mask = "category_mask" if classifies else "score_mask"
    return cases.make(EVERY[name]), batch, logits if classifies else logits[:, :1], mask


def _gradients(task, outputs, batch, statistics):
    function = jax.jit(jax.value_and_grad(task.apply, argnums=(0, 1)))
    return function(task.init(), outputs, batch, statistics)


@pytest.mark.parametrize("name", EVERY)
def test_shares_of_a_batchs_parts_add_up_to_its_loss_and_gradient(name):
    task, batch, outputs, _ = _case(name, 7)
    whole, (by_variables, by_outputs) = _gradients(task, outputs, batch, cases.statistics(batch))
    shares = [
        _gradients(
            task,
            outputs[part],
            {key: batch[key][part] for key in KEYS},
            cases.statistics(batch, share=0.5),
        )
        for part in (slice(0, 5), slice(5, 10))
    ]
    np.testing.assert_allclose(shares[0][0] + shares[1][0], whole, rtol=1e-5, atol=1e-7)
    for key, gradient in by_variables.items():
        parts = sum(share[1][0][key] for share in shares)
        np.testing.assert_allclose(parts, gradient, rtol=1e-4, atol=1e-6)
    parts = np.concatenate([share[1][1] for share in shares])
    np.testing.assert_allclose(parts, by_outputs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", EVERY)
def test_a_row_without_its_label_is_as_if_it_were_not_there(name):
    task, batch, outputs, mask = _case(name, 6)
    there = np.asarray(batch[mask]) > 0
    assert 0 < there.sum() < len(there)
    fewer = {key: batch[key][there] for key in KEYS}
    expected = cases.value(task, outputs[there], fewer)
    batch["score"] = jnp.where(batch["score_mask"] > 0, batch["score"], jnp.nan)
    batch["category"] = jnp.where(batch["category_mask"] > 0, batch["category"], -1)
    value, (by_variables, by_outputs) = _gradients(task, outputs, batch, cases.statistics(batch))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.isfinite(by_outputs).all() and (np.asarray(by_outputs)[~there] == 0).all()
    assert (np.asarray(by_outputs)[there] != 0).all()
    assert all(np.isfinite(gradient) for gradient in by_variables.values())


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_without_any_label_has_no_loss_and_no_gradient(name):
    task, batch, outputs, _ = _case(name)
    nothing = jnp.zeros(len(outputs))
    batch |= {
        "category_mask": nothing,
        "category": jnp.full(len(outputs), -1),
        "score_mask": nothing,
        "score": jnp.full(len(outputs), jnp.nan),
    }
    value, gradients = _gradients(task, outputs, batch, cases.statistics(batch))
    assert value == 0
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("name", EVERY)
def test_gradients_in_the_outputs_against_finite_differences(name):
    with jax.enable_x64(True):
        task, batch, outputs, _ = _case(name, 3)
        h = 1e-6
        gradient = jax.jit(jax.value_and_grad(lambda x: cases.value(task, x, batch)))
        exact = gradient(outputs)[1]
        for seed in range(3):
            direction = np.random.default_rng(seed).normal(size=outputs.shape)
            above, below = gradient(outputs + h * direction), gradient(outputs - h * direction)
            numeric = (above[0] - below[0]) / (2 * h)
            np.testing.assert_allclose(np.sum(exact * direction), numeric, rtol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_losses_have_the_dtype_of_the_outputs(name):
    with jax.enable_x64(True):
        task, batch, outputs, _ = _case(name)
        for dtype in (jnp.float32, jnp.float64):
            value = jax.eval_shape(
                task.apply, task.init(), outputs.astype(dtype), batch, cases.statistics(batch)
            )
            assert value.dtype == dtype and value.shape == ()


def test_names_of_what_two_tasks_losses_learn_are_apart_in_the_log():
    for first in losses.CLASSIFICATION_LOSSES.values():
        for second in losses.REGRESSION_LOSSES.values():
            assert not set(cases.make(first).init()) & set(cases.make(second).init())


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("class_balanced", "category"),
        ("logit_adjusted", "category"),
        ("balanced_softmax", "category"),
        ("lds", "score"),
        ("balanced_mse", "score"),
        ("balanced_mse_gai", "score"),
    ],
)
def test_without_training_labels_there_is_no_frequency_to_take(name, missing):
    nothing = losses.Labels(np.zeros(cases.K), np.zeros(0))
    with pytest.raises(ValueError, match=f"no training row has a {missing}"):
        cases.make(EVERY[name], nothing)
