"""A scikit-learn estimator, without scikit-learn: `clone`, cross-validation and grids take it."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from dwa_jax.finetune.api import given_rows, train
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.listener import Listener
from dwa_jax.finetune.predictor import Predictor


class SentimentModel:
    """Learns scores, and ordered categories beside them, from texts.

    >>> GridSearchCV(SentimentModel(epochs=3), {"weighting": ["dwa", "constant"]}).fit(texts, y)

    Its parameters are the keys of the configuration. Fitting keeps nothing on disk and shows
    nothing; `fractions` say how much of the texts picks the best epoch, by default a tenth, and
    none are kept for a test.

    Attributes:
      model_: the `Predictor` that the last `fit` made.
    """

    # What scikit-learn before 1.6 asks.
    _estimator_type = "regressor"

    def __init__(self, **keys: Any):
        """Takes keys of the configuration.

        Args:
          **keys: see `dwa_jax.Config`.

        Raises:
          ValueError: one does not exist (names the nearest), or its value cannot be.
        """
        Config.of(**keys)
        self._keys = dict(keys)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Returns the keys that were given."""
        return dict(self._keys)

    def set_params(self, **keys: Any) -> "SentimentModel":
        """Changes keys.

        Raises:
          ValueError: one does not exist (names the nearest), or its value cannot be.
        """
        Config.of(**(self._keys | keys))
        self._keys |= keys
        return self

    def fit(
        self,
        texts: Iterable[str],
        scores: Iterable[float | None] | None = None,
        *,
        categories: Iterable[int | str | None] | None = None,
        validation: Any = None,
    ) -> "SentimentModel":
        """Trains.

        Args:
          texts: N strings.
          scores: N numbers, see `dwa_jax.train`.
          categories: N categories, likewise.
          validation: rows that pick the best epoch, likewise.

        Raises:
          ValueError: a key, a text or a label is not usable; one line says which.
        """
        keys = self._keys
        if validation is None:
            keys = {"fractions": (0.9, 0.1, 0.0)} | keys
        self.model_: Predictor = train(
            texts,
            scores,
            categories=categories,
            validation=validation,
            listener=Listener(),
            **keys,
        )
        return self

    def predict(self, texts: Iterable[str]) -> np.ndarray:
        """Returns (N,) scores, as they were given; categories where no regression was trained."""
        found = self._fitted().predict(texts)
        if found.score is None:
            return found.category
        return found.score if found.in_range is None else found.in_range

    def predict_proba(self, texts: Iterable[str]) -> np.ndarray:
        """Returns (N, K) probabilities of the categories.

        Raises:
          ValueError: no classification was trained.
        """
        found = self._fitted().predict(texts)
        if found.probabilities is None:
            raise ValueError("no classification was trained: there are no probabilities")
        return found.probabilities

    def score(self, texts: Iterable[str], scores: Iterable[Any]) -> float:
        """Returns R2 of the predicted scores; accuracy where no regression was trained.

        Args:
          texts: N strings.
          scores: N numbers, or categories where no regression was trained; None or nan where a
            text has none.

        Raises:
          ValueError: a text or a label is not usable; one line says which.
        """
        model, texts = self._fitted(), list(texts)
        found = model.predict(texts)
        if found.score is None:
            true = given_rows(model.config, texts, None, scores).categories
            known = true >= 0
            return float(np.mean(found.category[known] == true[known]))
        given = given_rows(model.config, texts, scores, None).scores
        known = ~np.isnan(given)
        errors = given[known] - found.score[known]
        return float(1 - np.mean(errors**2) / np.var(given[known]))

    def _fitted(self) -> Predictor:
        if not hasattr(self, "model_"):
            raise ValueError("this SentimentModel is not fitted yet; call fit(texts, scores)")
        return self.model_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Any:
        # Only scikit-learn asks, so it is there.
        from sklearn.utils import (
            InputTags,
            RegressorTags,
            Tags,
            TargetTags,
        )

        return Tags(
            estimator_type="regressor",
            target_tags=TargetTags(required=False),
            transformer_tags=None,
            classifier_tags=None,
            regressor_tags=RegressorTags(),
            input_tags=InputTags(two_d_array=False, string=True),
        )

    def __repr__(self) -> str:
        return f"SentimentModel({', '.join(f'{k}={v!r}' for k, v in self._keys.items())})"
