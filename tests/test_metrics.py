"""Metrics agree with scikit-learn and SciPy. Axes: B rows, K categories."""

import math

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics as sklearn_metrics

from dwa_jax.metrics import evaluate

KEYS = {
    "mse",
    "mae",
    "rmse",
    "r2",
    "pearson",
    "spearman",
    "cosine",
    "accuracy",
    "precision_weighted",
    "recall_weighted",
    "f1_weighted",
    "f1_macro",
    "quadratic_weighted_kappa",
    "category_distance",
    "category_distance_macro",
    "mse_by_class",
    "balanced_mse",
    "accuracy_by_class",
    "confusion",
}


def random_rows(seed, size=200, num_classes=5, present=None, decimals=8):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.uniform(-1, 1, size), decimals)
    predicted = np.round(np.clip(scores + rng.normal(0, 0.4, size), -1, 1), decimals)
    labels = rng.choice(num_classes if present is None else present, (2, size))
    return scores, predicted, labels[0], labels[1]


@pytest.mark.parametrize("decimals", [8, 1, 0])
@pytest.mark.parametrize("present", [None, [0, 2, 3], [4]])
def test_agrees_with_scikit_learn_and_scipy(decimals, present):
    for seed in range(3):
        scores, predicted, true, guessed = random_rows(seed, decimals=decimals, present=present)
        found = evaluate(scores, predicted, true, guessed, 5)
        mse = sklearn_metrics.mean_squared_error(scores, predicted)
        weighted = {"average": "weighted", "zero_division": 0}
        expected = {
            "mse": mse,
            "mae": sklearn_metrics.mean_absolute_error(scores, predicted),
            "rmse": mse**0.5,
            "r2": sklearn_metrics.r2_score(scores, predicted),
            "pearson": scipy.stats.pearsonr(scores, predicted).statistic,
            "spearman": scipy.stats.spearmanr(scores, predicted).statistic,
            "cosine": sklearn_metrics.pairwise.cosine_similarity([scores], [predicted])[0, 0],
            "accuracy": sklearn_metrics.accuracy_score(true, guessed),
            "precision_weighted": sklearn_metrics.precision_score(true, guessed, **weighted),
            "recall_weighted": sklearn_metrics.recall_score(true, guessed, **weighted),
            "f1_weighted": sklearn_metrics.f1_score(true, guessed, **weighted),
            "f1_macro": sklearn_metrics.f1_score(true, guessed, average="macro"),
        }
        if present != [4]:  # of one category nothing can be told
            expected["quadratic_weighted_kappa"] = sklearn_metrics.cohen_kappa_score(
                true, guessed, weights="quadratic", labels=range(5)
            )
        expected["category_distance"] = sklearn_metrics.mean_absolute_error(true, guessed)
        expected["category_distance_macro"] = np.mean(
            [np.abs(guessed[true == k] - k).mean() for k in np.unique(true)]
        )
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-9), name
        confusion = sklearn_metrics.confusion_matrix(true, guessed, labels=range(5))
        assert found["confusion"] == confusion.tolist()
        recall = sklearn_metrics.recall_score(
            true, guessed, labels=range(5), average=None, zero_division=np.nan
        )
        np.testing.assert_allclose(found["accuracy_by_class"], recall)


def test_errors_by_category_by_hand():
    found = evaluate([0.0, 0.5, 1.0], [0.5, 0.5, 0.0], [0, 0, 2], [0, 1, 2], 3)
    np.testing.assert_allclose(found["mse_by_class"], [0.125, math.nan, 1.0])
    assert found["balanced_mse"] == pytest.approx(0.5625)
    np.testing.assert_allclose(found["accuracy_by_class"], [0.5, math.nan, 1.0])
    assert found["confusion"] == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_values_are_plain_python_of_the_documented_names():
    found = evaluate(*random_rows(0), 5)
    assert set(found) == KEYS
    lists = {"mse_by_class", "accuracy_by_class", "confusion"}
    assert all(type(found[name]) is float for name in KEYS - lists)
    assert all(type(value) is float for value in found["mse_by_class"])
    assert all(type(value) is float for value in found["accuracy_by_class"])
    assert all(type(count) is int for row in found["confusion"] for count in row)


def test_a_masked_row_is_left_out_of_its_own_task_alone():
    scores, predicted, true, guessed = random_rows(1, size=60)
    has_score = np.arange(60) < 50
    has_category = np.arange(60) >= 20
    holes = scores.copy(), predicted.copy(), true.copy(), guessed.copy()
    holes[0][~has_score] = holes[1][~has_score] = math.nan
    holes[2][~has_category] = holes[3][~has_category] = -1
    found = evaluate(*holes, 5, has_score, has_category)

    by_score = evaluate(scores[:50], predicted[:50], true[:50], guessed[:50], 5)
    by_category = evaluate(scores[20:], predicted[20:], true[20:], guessed[20:], 5)
    by_both = evaluate(scores[20:50], predicted[20:50], true[20:50], guessed[20:50], 5)
    for name in ("mse", "mae", "rmse", "r2", "pearson", "spearman", "cosine"):
        assert found[name] == by_score[name], name
    for name in ("accuracy", "precision_weighted", "f1_weighted", "f1_macro", "confusion"):
        assert found[name] == by_category[name], name
    for name in ("mse_by_class", "balanced_mse"):
        assert found[name] == by_both[name], name


def test_a_miss_by_far_is_worse_than_one_by_little_of_the_same_accuracy():
    true = np.repeat(np.arange(5), 4)
    near, far = true.copy(), true.copy()
    near[::4] = np.where(true[::4] < 4, true[::4] + 1, 3)
    far[::4] = np.where(true[::4] < 2, 4, 0)
    zeros = np.zeros(20)
    by_near, by_far = (evaluate(zeros, zeros, true, guessed, 5) for guessed in (near, far))
    assert by_near["accuracy"] == by_far["accuracy"] == 0.75
    assert by_near["category_distance"] == by_near["category_distance_macro"] == 0.25
    assert by_far["category_distance"] == pytest.approx((4 + 3 + 2 + 3 + 4) / 20)
    assert by_near["quadratic_weighted_kappa"] > 0.9 > by_far["quadratic_weighted_kappa"]


def test_undefined_values_are_nan():
    constant = evaluate([0.1, 0.1, 0.1], [0.3, -0.2, 0.7], [0, 1, 1], [0, 1, 0], 2)
    assert math.isnan(constant["r2"])
    assert math.isnan(constant["pearson"])
    assert math.isnan(constant["spearman"])
    assert not math.isnan(constant["cosine"])
    assert math.isnan(evaluate([0.1, 0.4], [0.0, 0.0], [0, 1], [0, 1], 2)["cosine"])

    one = evaluate([0.5], [0.25], [1], [1], 2)
    assert {name for name in ("r2", "pearson", "spearman") if math.isnan(one[name])} == {
        "r2",
        "pearson",
        "spearman",
    }
    assert one["mse"] == 0.0625
    # All rows in one category, and given it: no chance agreement to compare with.
    assert math.isnan(one["quadratic_weighted_kappa"]) and one["category_distance"] == 0
    assert one["cosine"] == one["accuracy"] == one["f1_macro"] == 1.0

    # Tasks without a row: everything is undefined but the counts.
    nothing = np.zeros(1, bool)
    empty = evaluate([0.5], [0.25], [1], [1], 2, nothing, nothing)
    counts = empty.pop("confusion")
    assert np.isnan(np.hstack(list(empty.values()))).all()
    assert counts == [[0, 0], [0, 0]]


def test_a_prediction_that_is_nan_shows():
    found = evaluate([0.1, 0.2, 0.3], [0.1, math.nan, 0.3], [0, 1, 1], [0, 1, 1], 2)
    for name in ("mse", "r2", "pearson", "spearman", "balanced_mse"):
        assert math.isnan(found[name]), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.1, 0.2], [0.1], [0, 1], [0, 1], 2), r"predicted_scores has shape \(1,\)"),
        (([0.1, 0.2], [0.1, 0.2], [0, 2], [0, 1], 2), r"categories\[1\] is 2"),
        (([0.1, 0.2], [0.1, 0.2], [0, 1], [-1, 1], 2), r"predicted_categories\[0\] is -1"),
        (([[0.1]], [[0.1]], [[0]], [[0]], 2), r"scores has shape \(1, 1\), expected \(B,\)"),
        (([0.1], [0.1], [0], [0], 2, [True, False]), r"score_mask has shape \(2,\)"),
    ],
)
def test_errors_name_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(*arguments)
