"""How far lambda strays when the Gramian of the trunk is taken every k-th step only.

Between two of them something has to be carried over. A run that takes it at every step
tells what lambda would have been under each way of carrying.
"""

import jax
import numpy as np

from dwa_jax import sharding
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import read_corpus
from dwa_jax.finetune.model import load_model
from dwa_jax.finetune.setup import make_batches, make_setup

# Weight of the past in the moving average of norms.
_DECAY = 0.5


def record(config: Config, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Trains with the Gramian of the trunk at every step.

    Args:
      config: a whole configuration of two tasks.
      steps: to take.

    Returns:
      (norms of the tasks' gradients in the trunk, at the representation), each (steps, 2).
    """
    config = Config.of(config, weighting="dwa", gradient_scope="trainable", gramian_every=1)
    corpus = read_corpus(config)
    model = load_model(config, corpus, jax.random.key(0))
    batches = make_batches(config, corpus, model)[0]["train"]
    config = Config.of(config, epochs=-(-steps // len(batches)))
    run = make_setup(config, corpus, model, len(batches), jax.random.key(1))
    state = run.state
    trunk: list[list[float]] = []
    representation = []
    for epoch in range(config.epochs):
        for batch in batches.epoch(epoch):
            if len(trunk) == steps:
                break
            del batch["row"]
            state, values = run.step(state, sharding.shard_rows(batch, run.mesh))
            norms = [float(values[f"gradient_norm_{task.name}"]) for task in run.tasks]
            trunk.append(norms)
            representation.append(norms / np.asarray(state.ratios))
    return np.array(trunk), np.array(representation)


def strayed(trunk: np.ndarray, representation: np.ndarray, every: int) -> dict[str, float]:
    """Compares ways to carry norms from one refresh to the next.

    Args:
      trunk: (S, 2) norms in the trunk at every step.
      representation: (S, 2) norms at the representation.
      every: k; steps 0, k, 2k ... refresh.

    Returns:
      way -> mean absolute difference of the regression's lambda from the exact one, over
      the steps in between; "exact, spread" is the standard deviation of lambda itself.
    """
    steps = np.arange(len(trunk))
    last = steps // every * every
    refreshed = trunk[::every]
    average = [refreshed[0]]
    for norms in refreshed[1:]:
        average.append(_DECAY * average[-1] + (1 - _DECAY) * norms)
    ways = {
        "ratio to the representation": (trunk / representation)[last] * representation,
        "norm": trunk[last],
        "moving average of norms": np.array(average)[steps // every],
        "representation alone": representation,
    }
    exact, between = _lambda(trunk), steps != last
    found = {
        way: float(np.abs(_lambda(norms) - exact)[between].mean()) for way, norms in ways.items()
    }
    return {**found, "exact, spread": float(exact[between].std())}


def _lambda(norms):
    # Equation 6: each task's share is the other's norm.
    return norms[:, 1] / norms.sum(axis=1)
