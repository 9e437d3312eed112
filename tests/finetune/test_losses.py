"""Losses chosen in a configuration: made from the training split's labels, and trained with."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import base
from dwa_jax import losses
from dwa_jax.finetune.corpus import read_corpus
from dwa_jax.finetune.model import load_model
from dwa_jax.finetune.setup import make_batches, make_setup, make_tasks

pytestmark = pytest.mark.slow

CHOICES = [
    ("mse", "cross_entropy"),
    ("lds(weight='inverse')", "class_balanced(beta=0.99, gamma=1.0)"),
    ("balanced_mse(noise_scale=0.3)", "focal"),
    ("balanced_mse_gai(num_components=3)", "logit_adjusted(tau=0.5)"),
    ("lds", "balanced_softmax"),
]


def _config(**changes):
    config = base.get_config()
    config.update({"generated_rows": 60, "batch_size": 16, "max_buckets": 1, **changes})
    config.scratch.update(
        {"vocab_size": 300, "width": 8, "layers": 1, "heads": 1, "feed_forward": 8}
    )
    return config


@pytest.fixture(scope="module")
def prepared():
    config = _config()
    corpus = read_corpus(config)
    model = load_model(config, corpus, jax.random.key(0))
    batches, _ = make_batches(config, corpus, model)
    batch = next(batches["train"].epoch(0))
    del batch["row"]
    return corpus, model, batch


def _setup(prepared, **changes):
    corpus, model, _ = prepared
    key = jax.random.key(1)
    copy = dataclasses.replace(model, params=jax.tree.map(lambda x: x.copy(), model.params))
    return make_setup(_config(**changes), corpus, copy, 10, key)


@pytest.mark.parametrize(("regression", "classification"), CHOICES)
def test_every_loss_goes_through_the_step(prepared, regression, classification):
    setup = _setup(prepared, regression_loss=regression, classification_loss=classification)
    _, metrics = jax.eval_shape(setup.step, setup.state, prepared[2])
    assert {"loss_regression", "loss_classification"} <= set(metrics)
    assert ("noise_scale" in metrics) == ("balanced_mse" in regression)


def test_a_loss_that_learns_is_trained_and_logged(prepared):
    setup = _setup(
        prepared,
        regression_loss="balanced_mse(noise_scale=0.3)",
        classification_loss="class_balanced",
        microbatches=2,
    )
    state, values = setup.state, []
    for _ in range(2):
        state, metrics = setup.step(state, prepared[2])
        assert all(np.isfinite(value) for value in metrics.values())
        values.append(float(metrics["noise_scale"]))
    assert values[0] == pytest.approx(0.3) and 0 < abs(values[1] - 0.3) < 2e-3
    assert set(setup.tasks[0].loss.init()) == {"noise_scale"}


def test_a_loss_is_given_the_training_splits_labels(prepared, monkeypatch):
    corpus, _, _ = prepared
    given = []

    def recording(*, labels):
        given.append(labels)
        return losses.cross_entropy_loss()

    monkeypatch.setitem(losses.CLASSIFICATION_LOSSES, "recording", recording)
    _setup(prepared, classification_loss="recording")
    (labels,) = given
    categories = corpus.categories["train"]
    expected = [(categories == k).sum() for k in range(5)]
    np.testing.assert_array_equal(labels.class_counts, expected)
    np.testing.assert_array_equal(labels.scores, corpus.rows["train"].scores)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regression_loss": "mae"}, "regression_loss: unknown name 'mae'; there are: mse, lds"),
        ({"regression_loss": "mse(sigma=1)"}, "regression_loss=mse: .*sigma"),
        ({"regression_loss": "lds(sigma=-1)"}, "lds: sigma=-1 must be"),
        ({"classification_loss": "focal(gamma='a')"}, "classification_loss=focal: "),
        ({"classification_loss": "balanced_softmax(labels=3)"}, "labels are the training split's"),
        ({"classification_loss": "class_balanced(beta=2)"}, "beta=2 must be in"),
    ],
)
def test_a_mistake_is_found_before_any_row_is_read(changes, message):
    with pytest.raises(ValueError, match=message):
        make_tasks(_config(**changes))
