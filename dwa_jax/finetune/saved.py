"""A finished run, read back from its folder: what predicting and exporting start from."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from configs import base
from dwa_jax import backbones, data, heads, lora, sharding, training, trunk
from dwa_jax.checkpoints import Checkpoints
from dwa_jax.finetune import run_folder, setup, validation


@dataclass
class Trained:
    """A trained model with everything that its predictions depend on.

    Attributes:
      config: the whole configuration of the run.
      module: the backbone.
      tokenizer: its tokenizer.
      pooling: how hidden states become a vector.
      lora_scale: what U V is multiplied by.
      theta: shared parameters that trained: of the trunk, or its LoRA factors.
      frozen: shared parameters that did not.
      psi: {task: head parameters}.
      tasks: those of the heads, in the order of the run.
      thresholds: (K-1,) between the categories, or None where no row had a score.
      summary: summary.json.
      metrics: the records of metrics.jsonl.
      folder: the run's.
    """

    config: Any
    module: Any
    tokenizer: Any
    pooling: str
    lora_scale: float
    theta: dict
    frozen: dict
    psi: dict
    tasks: list[training.Task]
    thresholds: list[float] | None
    summary: dict
    metrics: list[dict]
    folder: Path

    @property
    def max_tokens(self) -> int:
        """Tokens a text that the run saw, special ones included."""
        return min(self.config.max_length, self.module.config.max_positions)

    @property
    def adapter(self) -> lora.Lora | None:
        """The LoRA factors, where those trained."""
        return lora.Lora(self.theta["lora"], self.lora_scale) if "lora" in self.theta else None


def load(path: str | os.PathLike) -> Trained:
    """Reads a finished run: the parameters are those of its best epoch.

    Args:
      path: the folder that `experiments.main` wrote.

    Returns:
      The run; its arrays have a copy on every local device.

    Raises:
      ValueError: there is no run, or an unfinished one, its checkpoints are gone or damaged,
        or the weights or the adapter that it began from cannot be had; one line says which.
      OSError: a file cannot be read.
    """
    folder = Path(path).expanduser()
    config, summary = _read_config(folder), _read_summary(folder)
    tokenizer = data.load_tokenizer(_existing(folder / "tokenizer"))
    model_key, _ = jax.random.split(jax.random.key(config.seed))
    if setup.uses_lora(config) or config.freeze:
        module, params, adapter = _began_from(config, model_key, tokenizer, folder)
    else:
        # All of the trunk is in the checkpoint: what it began from need not be there.
        source = run_folder.read_json(_existing(folder / "backbone.json"))
        settings = backbones.BackboneConfig.from_huggingface(source)
        module = backbones.build(settings, **setup.module_options(config))
        params = jax.eval_shape(lambda key: backbones.init(key, module), model_key)
        adapter = None
    theta, frozen = trunk.split_parameters(params, adapter, freeze=config.freeze)
    tasks = setup.make_tasks(config)
    mesh = sharding.data_mesh()
    state = _restore(folder, config, module.config, tasks, theta, frozen, mesh)
    return Trained(
        config=config,
        module=module,
        tokenizer=tokenizer,
        pooling=config.pooling or heads.default_pooling(module.config.family),
        lora_scale=1.0 if adapter is None else adapter.scale,
        theta=sharding.replicate(state.theta, mesh),
        frozen=sharding.replicate(state.frozen, mesh),
        psi=sharding.replicate(state.psi, mesh),
        tasks=tasks,
        thresholds=summary["thresholds"],
        summary=summary,
        metrics=run_folder.MetricsFile(folder / "metrics.jsonl").read(),
        folder=folder,
    )


def _read_config(folder):
    path = folder / "config.json"
    if not path.exists():
        raise ValueError(f"{folder} holds no run: there is no config.json")
    stored = run_folder.read_json(path).get("config")
    if not isinstance(stored, dict):
        raise ValueError(f"{path} is damaged: it has no config")
    config = base.get_config()
    unknown = sorted(set(stored) - set(config))
    if unknown:
        raise ValueError(f"{path} has keys that this version does not know: {', '.join(unknown)}")
    try:
        # JSON has no tuples.
        config.update({k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()})
        validation.check(config)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{path} does not fit this version: {error}") from None
    return config


def _read_summary(folder):
    path = folder / "summary.json"
    if not path.exists():
        raise ValueError(
            f"the run in {folder} is not finished: there is no summary.json; the command that "
            "began it continues it"
        )
    summary = run_folder.read_json(path)
    if "thresholds" not in summary:
        raise ValueError(f"{path} is damaged: it has no thresholds")
    return summary


def _existing(path):
    if not path.exists():
        raise ValueError(f"{path} is gone, without which the run in {path.parent} cannot be used")
    return path


def _began_from(config, key, tokenizer, folder):
    # Frozen parameters are in no checkpoint: they come from where they came from then.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the run has told them
            model = setup.load_model(config, None, key, tokenizer)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"the run in {folder} began from backbone={config.backbone!r}, whose frozen "
            f"parameters it does not hold: {error}"
        ) from error
    return model.module, model.params, model.adapter


def _restore(folder, config, settings, tasks, theta, frozen, mesh):
    path = folder / "checkpoints"
    checkpoints = Checkpoints(path)
    try:
        latest, notes = checkpoints.latest()
        if latest is None:
            more = f": {'; '.join(notes)}" if notes else f": {path} was removed, or emptied"
            raise ValueError(f"the run in {folder} has no checkpoint{more}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            method = setup.make_weighting(config, len(tasks))
        optimizers = setup.make_optimizers(config, 1)
        shapes = jax.eval_shape(
            lambda theta, key: setup.init_state(
                config, settings, theta, {}, tasks, method, optimizers, key
            ),
            theta,
            jax.random.key(0),
        )
        everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        target = jax.tree.map(lambda leaf: _target(leaf, everywhere), shapes)
        progress = run_folder.read_json(_existing(path / str(latest) / "checkpoint.json"))[
            "progress"
        ]
        step = progress["best_step"] or latest
        state, _ = checkpoints.restore(target._replace(frozen=frozen), step)
        return state
    finally:
        checkpoints.close()


def _target(leaf, placed):
    # Shapes are enough for the numbers, so nothing is drawn only to be replaced. Keys need
    # to be keys.
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), (*leaf.shape, 1))[..., 0]
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed)
