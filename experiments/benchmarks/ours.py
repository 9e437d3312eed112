"""This library's contenders: a state with random weights, and its train step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dwa_jax import backbones, heads, lora, losses, training, trunk, weighting
from experiments.benchmarks import shapes

NUM_CLASSES = 5
TOTAL_STEPS, WARMUP_STEPS = 1000, 100


class Method(NamedTuple):
    """A way to take a step.

    Attributes:
      weighting: its registered name.
      scope: where the Gramian is taken.
      norms: how it is found there, see `training.StepOptions.gradient_norms`.
    """

    weighting: str
    scope: str = "trainable"
    norms: str = "exact"


METHODS = {
    "constant": Method("constant"),
    "dwa representation": Method("dwa", "representation"),
    "dwa last_layer": Method("dwa", "last_layer"),
    "dwa trainable": Method("dwa", "trainable"),
    "dwa trainable sketch": Method("dwa", "trainable", "sketch"),
    "dwa trainable trees": Method("dwa", "trainable", "trees"),
}


class BenchmarkModel(NamedTuple):
    """Weights that both frameworks start from.

    Attributes:
      shape: one of `shapes.names()`.
      config: of the backbone.
      params: of the backbone, without LoRA.
      adapter: a `lora.Lora`, or None.
      rank: of LoRA; 0 trains everything.
      dtype: what the trunk computes in, and what frozen weights are held in.
    """

    shape: str
    config: backbones.BackboneConfig
    params: dict
    adapter: lora.Lora | None
    rank: int
    dtype: jnp.dtype


def make_model(
    shape: str,
    rank: int,
    dtype=jnp.float32,
    layers: int | None = None,
    evaluate: Callable = lambda make: make(),
) -> BenchmarkModel:
    """Makes a model with random weights.

    Args:
      shape: one of `shapes.names()`.
      rank: of LoRA; 0 trains everything.
      dtype: what the trunk computes in.
      layers: another depth than the shape's.
      evaluate: `jax.eval_shape` gives shapes instead of weights.
    """
    config = shapes.get(shape, layers)

    def make():
        params = backbones.init(jax.random.key(0), backbones.build(config))
        if not rank:
            return params, None
        adapter = lora.init(jax.random.key(1), params, rank=rank)
        # As if some steps had been trained: with V = 0 half of the gradients are 0.
        factors = jax.tree.map(
            lambda leaf: jnp.where(
                jnp.all(leaf == 0), 0.01 * jax.random.normal(jax.random.key(2), leaf.shape), leaf
            ),
            adapter.factors,
        )
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        return params, lora.replace_factors(adapter, factors)

    params, adapter = evaluate(make)
    return BenchmarkModel(shape, config, params, adapter, rank, dtype)


def setup(model: BenchmarkModel, method: Method, *, unroll: int = 0):
    """Makes a state and its train step.

    Args:
      model: from `make_model`.
      method: how to take the step.
      unroll: layers a step of the scan; 0: the library's own choice.

    Returns:
      (state, step).
    """
    module = backbones.build(model.config, dtype=model.dtype, unroll=unroll)
    theta, frozen = trunk.split_parameters(model.params, model.adapter)
    # The step gives its state's memory to the next one; the weights serve several steps.
    theta, frozen = jax.tree.map(lambda leaf: leaf.copy(), (theta, frozen))
    tasks = [
        training.Task("regression", 1, losses.mse_loss(), "score_mask"),
        training.Task("classification", NUM_CLASSES, losses.imbalance_loss(), "category_mask"),
    ]
    chosen = weighting.get(method.weighting, len(tasks))
    optimizers = training.make_optimizers(
        total_steps=TOTAL_STEPS,
        learning_rate=1e-5,
        head_learning_rate=1e-4,
        warmup_steps=WARMUP_STEPS,
    )
    state = training.init_state(
        jax.random.key(2),
        theta,
        frozen,
        family=model.config.family,
        width=model.config.hidden_size,
        tasks=tasks,
        weighting=chosen,
        optimizers=optimizers,
        num_classes=NUM_CLASSES,
    )
    step = training.make_step(
        module,
        tasks,
        chosen,
        optimizers,
        training.StepOptions(
            num_classes=NUM_CLASSES,
            scope=method.scope,
            gradient_norms=method.norms,
            pooling=heads.default_pooling(model.config),
            lora_scale=model.adapter.scale if model.adapter else 1.0,
        ),
    )
    return state, step


def peer_state(model: BenchmarkModel, peer: str):
    """Returns the state whose heads, losses and network a PyTorch method starts from."""
    return setup(model, METHODS["constant" if peer == "constant" else "dwa trainable"])[0]


def make_batch(shape: str, rows: int, tokens: int) -> dict[str, np.ndarray]:
    """Makes a batch of random tokens without padding."""
    return random_batch(shapes.get(shape).vocab_size, rows, tokens)


def random_batch(vocab: int, rows: int, tokens: int) -> dict[str, np.ndarray]:
    """Makes a batch of random tokens below a vocabulary's end, without padding."""
    rng = np.random.default_rng(0)
    return {
        "input_ids": rng.integers(3, vocab, (rows, tokens), dtype=np.int32),
        "attention_mask": np.ones((rows, tokens), np.int32),
        "score": rng.uniform(-1, 1, rows).astype(np.float32),
        "score_mask": np.ones(rows, np.float32),
        "category": rng.integers(0, NUM_CLASSES, rows, dtype=np.int32),
        "category_mask": np.ones(rows, np.float32),
    }


class Runner:
    """A state that is stepped on with one batch."""

    def __init__(self, model: BenchmarkModel, method: Method, batch: dict, *, unroll: int = 0):
        self.state, self.step = setup(model, method, unroll=unroll)
        self.batch = jax.device_put(batch)
        self.metrics: dict = {}

    def run(self) -> None:
        """Takes a step and waits for it."""
        self.state, self.metrics = self.step(self.state, self.batch)
        jax.block_until_ready((self.state, self.metrics))
