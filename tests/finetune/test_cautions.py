"""What a reader of a run's numbers is warned of, against rows in which it is known to be so."""

import numpy as np
import pytest

from dwa_jax.finetune import cautions

NOTHING = np.full(4, np.nan)
CATEGORIES = np.array([0, 1, 1, 1])
SCORES = np.array([-1.0, 0.0, 0.5, 1.0])


def test_a_class_without_training_rows_is_named():
    rows = {"train": np.array([0, 2, -1]), "test": np.array([1, 1, 0])}
    assert cautions.untrained_classes(rows, 4, "abcd") == [
        "category 1 b has no training row, and is not learned; 2 rows of test have it",
        "category 3 d has no training row, and is not learned",
    ]
    assert cautions.untrained_classes(rows | {"train": np.arange(4)}, 4) == []


@pytest.mark.parametrize(
    ("categories", "predicted", "told"),
    [
        (CATEGORIES, [1, 1, 1, 1], "category 1 is predicted for all of the 4 rows; .* them, 75%"),
        (CATEGORIES, [1, 1, 0, 1], None),
        # Which is as it should be.
        (np.array([1, 1, -1, 1]), [1, 1, 1, 1], None),
    ],
)
def test_one_category_for_all_rows_is_told(categories, predicted, told):
    found = cautions.of_predictions("test", NOTHING, categories, NOTHING, np.array(predicted))
    assert len(found) == (told is not None)
    if told:
        with pytest.raises(ValueError, match=f"^test: {told}"):
            raise ValueError(found[0])


def test_scores_in_a_small_part_of_the_range_are_told():
    def found(predicted, scores=SCORES):
        return cautions.of_predictions("validation", scores, CATEGORIES, predicted, CATEGORIES)

    assert found(SCORES / 20 + 0.1) == [
        "validation: predicted scores lie between 0.05 and 0.15, the true ones between -1 and 1: "
        "5% of their range"
    ]
    assert found(SCORES / 2) == []
    assert found(NOTHING) == found(SCORES, NOTHING) == found(SCORES, np.zeros(4)) == []


def test_heads_on_long_vectors_are_told_to_learn_slowly():
    scale = np.full(576, -1.8)
    (told,) = cautions.fast_heads(scale, 1e-3)
    assert "an update can move a score by 0.83" in told and "0.0001 would move it by 0.1" in told
    assert cautions.fast_heads(scale, 3e-4) == cautions.fast_heads(scale / 10, 1e-3) == []
