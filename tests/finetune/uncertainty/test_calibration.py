"""Temperature and calibration error against closed forms and an independent implementation."""

import numpy as np
import pytest
from scipy import special
from sklearn.calibration import calibration_curve

from dwa_jax.finetune.uncertainty import calibration


def drawn(count, temperature, seed=0):
    # Categories drawn from the logits; what is returned is too sure of them by a factor.
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 1.5, (count, 4))
    uniform = draw.uniform(size=(count, 1))
    categories = (special.softmax(logits, axis=1).cumsum(axis=1) < uniform).sum(axis=1)
    return special.softmax(temperature * logits, axis=1), categories


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found_and_the_error_goes(temperature):
    probabilities, categories = drawn(5000, temperature)
    found = calibration.fit_temperature(probabilities, categories)
    assert found == pytest.approx(temperature, rel=0.1)
    after = calibration.tempered(probabilities, found)
    assert (after.argmax(axis=1) == probabilities.argmax(axis=1)).all()
    assert calibration.calibration_error(after, categories) < 0.03
    before = calibration.calibration_error(probabilities, categories)
    assert before > 0.1 or temperature == 1.0
    assert calibration.tempered(after, 1 / found) == pytest.approx(probabilities, abs=1e-9)


def test_the_bins_are_those_of_scikit_learn():
    probabilities, categories = drawn(500, 2.0)
    found = calibration.reliability(probabilities, categories)
    right = probabilities.argmax(axis=1) == categories
    accuracy, confidence = calibration_curve(right, probabilities.max(axis=1), n_bins=15)
    assert found.accuracy == pytest.approx(accuracy)
    assert found.confidence == pytest.approx(confidence)
    assert found.counts.sum() == 500


def test_the_error_of_a_case_worked_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [1.0, 0.0]])
    categories = np.array([0, 1, 1, -1])
    # Two rows at .9 of which one is right, one at .6 that is; the last has no label.
    expected = (2 * abs(0.5 - 0.9) + abs(1 - 0.6)) / 3
    assert calibration.calibration_error(probabilities, categories) == pytest.approx(expected)
    assert np.isnan(calibration.calibration_error(probabilities, np.full(4, -1)))
    assert calibration.fit_temperature(probabilities, np.full(4, -1)) is None
