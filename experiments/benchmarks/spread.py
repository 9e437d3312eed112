"""How far a sketch moves DWA's lambda: draws of its signs, all on one batch of real texts."""

import jax
import numpy as np

from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import read_corpus
from dwa_jax.finetune.model import load_model
from dwa_jax.finetune.setup import make_batches, make_setup

_NORMS = ("gradient_norm_regression", "gradient_norm_classification")


def measure_spread(exact: Config, sketch: Config, draws: int) -> dict:
    """Takes a run's first step with exact norms, and again and again with sketched ones.

    Args:
      exact: a whole configuration, of both tasks and without dropout.
      sketch: the same with sketched norms.
      draws: of the sketch's signs, at least 2.

    Returns:
      {"columns": k, "draws", "tokens" of the batch, "exact": lambda of the regression; "mean",
      "error" and "deviation": of the sketched lambda over the draws, the standard error of
      its mean, and the standard deviation of a draw}; the three as parts of the exact one.
    """
    found: dict[str, list[float]] = {}
    tokens = 0
    for config, count in ((exact, 1), (sketch, draws)):
        # A step gives its state away, and a setup its model.
        corpus = read_corpus(config)
        model = load_model(config, corpus, jax.random.key(0))
        batches = make_batches(config, corpus, model)[0]["train"]
        batch = {name: x for name, x in next(batches.epoch(0)).items() if name != "row"}
        tokens = batch["input_ids"].size
        run = make_setup(config, corpus, model, len(batches), jax.random.key(1))
        found[config.gradient_norms] = [_lambda(run, batch, index) for index in range(count)]
    balance = found["exact"][0]
    sketched = np.array(found["sketch"]) / balance
    deviation = float(sketched.std(ddof=1))
    return {
        "columns": sketch.sketch_columns,
        "draws": draws,
        "tokens": tokens,
        "exact": balance,
        "mean": float(sketched.mean()),
        "error": deviation / draws**0.5,
        "deviation": deviation,
    }


def _lambda(run, batch, index):
    state = jax.tree.map(lambda leaf: leaf.copy(), run.state)
    state = state._replace(key=jax.random.fold_in(state.key, index))
    _, metrics = run.step(state, batch)
    regression, classification = (float(metrics[name]) for name in _NORMS)
    return classification / (regression + classification)
