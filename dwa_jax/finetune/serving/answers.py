"""A prediction as JSON."""

from typing import Any

import numpy as np

from dwa_jax.finetune.predictor import Prediction


def prediction_as_json(prediction: Prediction) -> dict[str, Any]:
    """Returns every field that the run has, by its name.

    Numbers have as many digits as float32 has, as in the columns that `experiments.predict`
    writes: the model computes no others. One that is not finite is None.
    """
    return {
        name: _plain(value) for name, value in prediction._asdict().items() if value is not None
    }


def _plain(value):
    if isinstance(value, tuple | list | np.ndarray):
        return [_plain(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(str(np.float32(value))) if np.isfinite(value) else None
    return value
