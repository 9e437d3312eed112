"""A run's step from its configuration, with random weights or in shapes alone: none are read."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dwa_jax import backbones, heads, training, trunk
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.model import fresh_adapter, module_options, scratch_settings
from dwa_jax.finetune.setup import (
    choose_optimizers,
    first_state,
    make_tasks,
    make_weighting,
    step_options,
)
from experiments.benchmarks import shapes

# Of a schedule, whose length is of no matter here.
_STEPS = 1000


class ConfiguredRun(NamedTuple):
    """What a run works with.

    Attributes:
      step: (state, batch) -> (state, metrics).
      state: its first one.
    """

    step: Any
    state: training.TrainState


def computed(function: Callable, *given: Any) -> Any:
    """Returns arrays where `jax.eval_shape` returns their shapes."""
    return jax.jit(function)(*given)


def configured_run(
    config: Config,
    platform: str = "",
    evaluate: Callable = jax.eval_shape,
    mesh: Mesh | None = None,
) -> ConfiguredRun:
    """Makes the step of a configuration as a run of it would.

    Args:
      config: whose backbone is "scratch" or one that `shapes.published` knows.
      platform: what the step is compiled for; "" is JAX's default.
      evaluate: makes the state, of shapes alone by default; `computed` draws it.
      mesh: whose devices it runs on; None is one.

    Raises:
      ValueError: the backbone's shape is not known here, or an option is out of range.
    """
    settings = _settings(config)
    module = backbones.build(settings, **module_options(config), platform=platform)
    key = evaluate(lambda: jax.random.key(0))
    params = evaluate(lambda key: backbones.init(key, module), key)
    scale, adapter = 1.0, None
    if config.lora_rank:
        adapter = evaluate(functools.partial(fresh_adapter, config), key, params)
        scale = adapter.scale
    tasks = make_tasks(config)
    method = make_weighting(config, len(tasks))
    optimizers = choose_optimizers(config, _STEPS)

    def first(key, params, adapter):
        theta, frozen = trunk.split_parameters(params, adapter, freeze=config.freeze)
        return first_state(config, settings, theta, frozen, tasks, method, optimizers, key)

    state = evaluate(first, key, params, adapter)
    if mesh is not None and mesh.size > 1:
        module = module.clone(mesh=mesh)
    pooling = config.pooling or heads.default_pooling(settings)
    step = training.make_step(
        module, tasks, method, optimizers, step_options(config, pooling, scale)
    )
    return ConfiguredRun(step, state)


def _settings(config):
    if config.backbone != "scratch":
        return shapes.published(config.backbone)
    return scratch_settings(config.scratch, config.scratch.vocab_size, 0)


def abstract_batch(rows: int, tokens: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a training batch of B rows of T tokens."""
    ids = jax.ShapeDtypeStruct((rows, tokens), jnp.int32)
    number = jax.ShapeDtypeStruct((rows,), jnp.float32)
    return {
        "input_ids": ids,
        "attention_mask": ids,
        "score": number,
        "score_mask": number,
        "category": jax.ShapeDtypeStruct((rows,), jnp.int32),
        "category_mask": number,
    }
