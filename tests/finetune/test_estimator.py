"""What scikit-learn does with an estimator, by scikit-learn itself."""

import dataclasses
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, ShuffleSplit, cross_val_score

import dwa_jax
from dwa_jax.data import headlines
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.predictor import Predictor
from tests.finetune.test_api import TINY

pytestmark = pytest.mark.slow

QUICK = TINY | {"epochs": 1, "pad_to_multiple_of": 32}


@pytest.fixture(scope="module")
def rows():
    return headlines.generate(72, 3)


def test_a_clone_has_the_same_keys_and_no_model():
    one = dwa_jax.SentimentModel(**QUICK)
    other = clone(one.set_params(weighting="constant"))
    assert other.get_params() == one.get_params() and other.get_params()["weighting"] == "constant"
    assert not hasattr(other, "model_")
    with pytest.raises(ValueError, match="not fitted yet"):
        other.predict(["a text"])
    with pytest.raises(ValueError, match="no key 'learning_rat'; the nearest is 'learning_rate'"):
        one.set_params(learning_rat=1.0)
    with pytest.raises(ValueError, match="no key 'learning_rat'; the nearest is 'learning_rate'"):
        dwa_jax.SentimentModel(learning_rat=1.0)


def test_cross_validation_and_a_grid_run(rows):
    texts, scores = rows.texts, list(rows.scores)
    found = cross_val_score(dwa_jax.SentimentModel(**QUICK), texts, scores, cv=2)
    assert found.shape == (2,) and np.isfinite(found).all()
    grid = GridSearchCV(
        dwa_jax.SentimentModel(**QUICK),
        {"learning_rate": [1e-3, 1e-2], "weighting": ["constant"]},
        # One split; two are above.
        cv=ShuffleSplit(1, test_size=0.3, random_state=0),
        refit=False,
    ).fit(texts, scores)
    assert set(grid.best_params_) == {"learning_rate", "weighting"}


def test_a_fitted_one_predicts_scores_and_is_pickled(rows):
    model = dwa_jax.SentimentModel(**QUICK).fit(rows.texts, rows.scores)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(rows.texts), model.predict(rows.texts))
    assert model.predict_proba(rows.texts[:2]).shape == (2, 5)
    residuals = rows.scores - model.predict(rows.texts)
    r2 = 1 - np.mean(residuals**2) / np.var(rows.scores)
    assert model.score(rows.texts, rows.scores) == pytest.approx(r2)
    # What it gives is in the range of what it was given, as a metric of scikit-learn takes it.
    run = model.model_.run
    model.model_ = Predictor(
        dataclasses.replace(run, config=Config.of(run.config, score_range=(0, 10)))
    )
    given = 5 * (rows.scores + 1)
    assert r2_score(given, model.predict(rows.texts)) == pytest.approx(r2, abs=1e-5)
    assert model.score(rows.texts, given) == pytest.approx(r2)
    with pytest.raises(ValueError, match=r"outside \[0, 10\]"):
        model.score(rows.texts, given - 20)
    # Without a regression it tells categories, by their names as well.
    names = tuple("abcde")
    config = Config.of(run.config, tasks=("classification",), category_names=names)
    tasks = [task for task in run.tasks if task.name == "classification"]
    model.model_ = Predictor(dataclasses.replace(run, config=config, tasks=tasks))
    told = model.predict(rows.texts)
    assert told.dtype.kind == "i"
    true = [names[k] if i else None for i, k in enumerate(told)]
    assert model.score(rows.texts, true) == 1.0
