"""dwa_jax: dynamic multi-task weight adaptation for sentiment polarity, in JAX.

>>> import dwa_jax
>>> model = dwa_jax.train(texts, scores)
>>> model(["EUR/USD jumps after ECB"])[0].score

What is offered is imported when it is first asked for: importing the package starts no JAX.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    # What is promised of folders rests on fcntl's locks and on O_NOFOLLOW.
    raise ImportError("dwa_jax runs on Linux and macOS; on Windows use it within WSL")

if TYPE_CHECKING:
    from dwa_jax import (
        backbones,
        data,
        gradients,
        heads,
        lora,
        losses,
        metrics,
        stratify,
        training,
        weighting,
    )
    from dwa_jax.finetune.api import load, train
    from dwa_jax.finetune.config import Config
    from dwa_jax.finetune.estimator import SentimentModel
    from dwa_jax.finetune.health import Diverged
    from dwa_jax.finetune.listener import Listener, ProgressBar
    from dwa_jax.finetune.predictor import Prediction, Predictions, Predictor

__version__ = "0.1.0"

# Public name -> the module that defines it.
_DEFINED_IN = {
    "Config": "finetune.config",
    "Diverged": "finetune.health",
    "Listener": "finetune.listener",
    "Prediction": "finetune.predictor",
    "Predictions": "finetune.predictor",
    "Predictor": "finetune.predictor",
    "ProgressBar": "finetune.listener",
    "SentimentModel": "finetune.estimator",
    "load": "finetune.api",
    "train": "finetune.api",
}
_MODULES = (
    "backbones",
    "data",
    "gradients",
    "heads",
    "lora",
    "losses",
    "metrics",
    "stratify",
    "training",
    "weighting",
)

__all__ = [
    "Config",
    "Diverged",
    "Listener",
    "Prediction",
    "Predictions",
    "Predictor",
    "ProgressBar",
    "SentimentModel",
    "backbones",
    "data",
    "gradients",
    "heads",
    "load",
    "lora",
    "losses",
    "metrics",
    "stratify",
    "train",
    "training",
    "weighting",
]


def __getattr__(name: str) -> Any:
    if name in _DEFINED_IN:
        value = getattr(importlib.import_module(f"dwa_jax.{_DEFINED_IN[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"dwa_jax.{name}")
    else:
        raise AttributeError(f"module 'dwa_jax' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({"__version__", "__doc__", "__name__", *__all__})
