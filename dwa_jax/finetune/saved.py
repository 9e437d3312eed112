"""A trained model: read back from a run's folder, or written to one."""

import contextlib
import dataclasses
import os
import shlex
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dwa_jax import (
    backbones,
    data,
    heads,
    lora,
    paths,
    regular_files,
    sharding,
    training,
    trunk,
)
from dwa_jax.atomic_files import whole_folder
from dwa_jax.checkpoints import Checkpoints
from dwa_jax.finetune import (
    choices,
    inherited,
    plots,
    predictions_file,
    run_folder,
    stored,
)
from dwa_jax.finetune.config import Config, without_gone
from dwa_jax.finetune.corpus import Corpus
from dwa_jax.finetune.model import (
    Model,
    Start,
    load_model,
    module_options,
    uses_lora,
    weights_digest,
)
from dwa_jax.finetune.predictions_file import SplitPredictions
from dwa_jax.finetune.run_records import MetricsFile
from dwa_jax.finetune.setup import choose_optimizers, first_state, make_tasks, make_weighting
from dwa_jax.finetune.uncertainty import reference as references
from dwa_jax.finetune.uncertainty.reference import Reference
from dwa_jax.messages import shown

# What trained, of a model that was saved without its run's checkpoints.
WEIGHTS = "model.safetensors"
# Names every file that `write` wrote, so that it may replace them.
_MARKER = ".dwa_jax_model.json"
# Parameters of a trunk that is made anew where only a part of it trained: 4 GB.
_MOST_FROM_SCRATCH = 10**9
# A key of backbone.json that is no one else's.
_POOLING = "dwa_jax_pooling"


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
      predictions: of the split that was looked at last, as in predictions.csv; None where that
        is gone.
      folder: the run's; None where it has none.
      digests: {key of the configuration: digest of the weights that it named}.
      reference: what is kept of its rows, by which new texts are judged; None of a run of an
        earlier version.
    """

    config: Config
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
    predictions: SplitPredictions | None
    folder: Path | None
    digests: dict[str, str] = dataclasses.field(default_factory=dict)
    reference: Reference | None = None

    @property
    def max_tokens(self) -> int:
        """Tokens a text that the run saw, special ones included."""
        return min(self.config.max_length, self.module.config.max_positions)

    @property
    def adapter(self) -> lora.Lora | None:
        """The LoRA factors, where those trained."""
        return lora.Lora(self.theta["lora"], self.lora_scale) if "lora" in self.theta else None

    def trunk_parameters(self, *, merged: bool) -> dict:
        """Returns the trunk's parameters in float32, as numpy arrays.

        Args:
          merged: whether LoRA is added to what it adapts; in float32 whatever the trunk
            computes in, for rounding again would add an error.
        """
        joined = trunk.joined_variables(self.theta, self.frozen)["params"]
        params = jax.tree.map(lambda leaf: leaf.astype(np.float32), joined)
        if merged and self.adapter is not None:
            params = lora.merge(params, self.adapter)
        return jax.tree.map(np.asarray, params)


def load(path: str | os.PathLike, backbone: str | os.PathLike = "") -> Trained:
    """Reads a finished run: the parameters are those of its best epoch.

    Args:
      path: the folder of the run, or one that `write` wrote.
      backbone: where the backbone that it began from is now, if it was moved: a folder, or a hub
        id, which is fetched. A run of which all of the trunk trained needs none.

    Returns:
      The run; its arrays have a copy on every local device.

    Raises:
      ValueError: there is no run, or an unfinished one, its checkpoints are gone or damaged,
        or the weights or the adapter that it began from cannot be had; one line says which.
      OSError: a file cannot be read.
    """
    return _load(regular_files.named_path(path), (), str(backbone))


def _load(folder, through, backbone=""):
    # `through` are the runs that began from this one, each from the one after it.
    if folder.resolve() in through:
        raise ValueError(f"the run in {folder} began from itself")
    config, digests = _read_config(folder)
    if backbone and "backbone" in digests:
        config = run_folder.located(Config.of(config, backbone=backbone))
    summary = _read_summary(folder, config.num_classes)
    # What is read once everything that is cheap is known to be in order.
    records = MetricsFile(folder / "metrics.jsonl").read()
    predictions = _read_predictions(folder / "predictions.csv", config.num_classes)
    if config.folds and not config.fold and not regular_files.check_regular(folder / WEIGHTS):
        kept = _load(_kept(folder, summary), through, backbone)
        about = {"config": config, "summary": summary, "folder": folder}
        return dataclasses.replace(kept, **about, predictions=predictions)
    shape, settings = _read_backbone(folder)
    _check_sizes(folder, config, settings)
    reference = references.read(folder, settings.hidden_size, config.num_classes)
    regular_files.check_tree(_existing(folder / "tokenizer"))
    tokenizer = data.load_tokenizer(folder / "tokenizer")
    model_key, _ = jax.random.split(jax.random.key(config.seed))
    if uses_lora(config) or config.freeze:
        model = _began_from(config, model_key, tokenizer, folder, through, bool(backbone))
        for key, found in model.digests.items():
            if digests.get(key) not in (None, found):
                raise ValueError(
                    f"{key}={getattr(config, key)!r} has other weights than those that the run in "
                    f"{folder} began from"
                )
        module, params, adapter = model.module, model.params, model.adapter
        default = model.pooling
    else:
        # All of the trunk is in the checkpoint: what it began from need not be there.
        default = heads.default_pooling(settings)
        module = backbones.build(settings, **module_options(config))
        params = jax.eval_shape(lambda key: backbones.init(key, module), model_key)
        adapter = None
    # A run of an earlier version did not write it.
    pooling = config.pooling or shape.get(_POOLING) or default
    heads.check_pooling(pooling)
    theta, frozen = trunk.split_parameters(params, adapter, freeze=config.freeze)
    tasks = make_tasks(config)
    mesh = sharding.data_mesh()
    if regular_files.check_regular(folder / WEIGHTS):
        theta, psi = _read_weights(folder / WEIGHTS, module.config, tasks, theta)
    else:
        state = _restore(folder, config, module.config, tasks, theta, frozen, mesh)
        theta, frozen, psi = state.theta, state.frozen, state.psi
    return Trained(
        config=config,
        module=module,
        tokenizer=tokenizer,
        pooling=pooling,
        lora_scale=1.0 if adapter is None else adapter.scale,
        theta=sharding.replicate(theta, mesh),
        frozen=sharding.replicate(frozen, mesh),
        psi=sharding.replicate(psi, mesh),
        tasks=tasks,
        thresholds=summary["thresholds"],
        summary=summary,
        metrics=records,
        predictions=predictions,
        folder=folder,
        digests=digests,
        reference=reference,
    )


def _kept(folder, summary):
    if "folds" not in summary:
        raise ValueError(
            f"{folder / 'summary.json'} is damaged: it does not say which fold is kept"
        )
    place = run_folder.fold_folder(folder, summary["folds"]["kept"])
    for each in (place.parent, place):
        regular_files.check_real_folder(each)
    return place


def write(trained: Trained, folder: Path, *, overwrite: bool = False) -> Trained:
    """Writes a model as a folder that `load`, and with it every program, reads.

    Args:
      trained: the model.
      folder: a new folder, an empty one, or one that this wrote.
      overwrite: whether files of one that this wrote may have been changed since.

    Returns:
      The model, with that folder.

    Raises:
      ValueError: the folder holds something else; nothing is written.
      OSError: it cannot be written.
    """
    folder = regular_files.named_path(folder).absolute()
    if trained.folder is not None and folder == trained.folder.absolute():
        raise ValueError(f"{folder} holds this model already")
    about = {"config": trained.config.to_dict(), "data": "", "versions": run_folder.versions()}
    about["weights"] = trained.digests
    if trained.folder is not None:
        # No more than what a run writes: the rest of the file may be anything.
        about |= {
            key: value
            for key, value in run_folder.read_object(trained.folder / "config.json").items()
            if key in ("data", "versions")
        }
    with whole_folder(folder, _MARKER, overwrite=overwrite) as place:
        run_folder.write_json(place / "config.json", about)
        run_folder.write_json(place / "summary.json", trained.summary)
        log = MetricsFile(place / "metrics.jsonl")
        for record in trained.metrics:
            log.write(record)
        write_tokens_and_shape(place, trained.tokenizer, trained.module, trained.pooling)
        write_weights(place, trained.theta, trained.psi)
        if trained.reference is not None:
            references.write(place, trained.reference)
        if trained.predictions is not None:
            predictions_file.write_predictions(place / "predictions.csv", trained.predictions)
        figures = plots.draw(trained.summary, trained.metrics, trained.predictions)
        plots.save(figures, place / "plots")
    return dataclasses.replace(trained, folder=folder)


def begin_model(
    config: Config, corpus: Corpus | None, key: jax.Array, tokenizer: Any = None
) -> Model:
    """Makes what a run starts from; its backbone may be another run.

    Args:
      config: the whole configuration.
      corpus: see `load_model`.
      key: see `load_model`.
      tokenizer: see `load_model`.

    Raises:
      ValueError: no usable weights, adapter or tokenizer.
      OSError: a file cannot be read.
    """
    return _begin(config, corpus, key, tokenizer, ())


def _begin(config, corpus, key, tokenizer, through):
    if not inherited.is_run(config.backbone):
        return load_model(config, corpus, key, tokenizer)
    run = _load(Path(os.path.expanduser(config.backbone)), through)
    params = run.trunk_parameters(merged=True)
    notes = [
        f"it was trained with {key}={before!r}, here it is {now!r}"
        for key in ("normalize_tweets", "max_length")
        if (before := getattr(run.config, key)) != (now := getattr(config, key))
    ]
    given = inherited.Offered(jax.tree.map(np.asarray, run.psi), run.pooling, notes)
    # Not of what is merged: the last bits of a product differ between machines.
    digest = weights_digest({"theta": run.theta, "frozen": run.frozen, "psi": run.psi})
    start = Start(run.module.config, params, run.tokenizer, given, digest)
    return load_model(config, corpus, key, tokenizer, start)


def write_tokens_and_shape(folder: Path, tokenizer: Any, module: Any, pooling: str) -> None:
    """Writes what a model that is read back needs beside its weights."""
    tokenizer.save_pretrained(folder / "tokenizer")
    shape = module.config.to_huggingface() | {_POOLING: pooling}
    run_folder.write_json(folder / "backbone.json", shape)


def write_weights(folder: Path, theta: dict, psi: dict) -> None:
    """Writes what trained, all that predicting takes beside those files and the backbone."""
    named = paths.flatten({"theta": theta, "psi": psi})
    backbones.save_tensors(
        folder / WEIGHTS, {name: np.asarray(leaf) for name, leaf in named.items()}
    )


def _read_weights(path, settings, tasks, theta):
    psi = {
        task.name: heads.shapes(settings.family, settings.hidden_size, task.outputs)
        for task in tasks
    }
    like = paths.flatten({"theta": theta, "psi": psi})
    with contextlib.ExitStack() as stack:
        tensors = backbones.open_safetensors(stack, path)
        wrong = sorted(set(like) ^ set(tensors))
        wrong += [n for n, x in like.items() if n in tensors and tensors[n][0] != x.shape]
        if wrong:
            raise ValueError(
                f"{path} does not fit config.json and backbone.json beside it: {shown(wrong[0])} "
                "is missing, of another shape, or not expected"
            )
        leaves = {name: tensors[name][1]() for name in like}
    for name, leaf in leaves.items():
        if leaf.dtype.kind != "f" or not np.isfinite(leaf).all():
            raise ValueError(f"{path}: {shown(name)} holds something else than finite numbers")
    # What trains is held in float32, whatever the trunk computes in.
    tree = paths.unflatten({name: leaf.astype(np.float32) for name, leaf in leaves.items()})
    return tree["theta"], tree["psi"]


def _read_predictions(path, num_classes):
    # A run without the file can be used all the same.
    if not regular_files.check_regular(path):
        return None
    return predictions_file.read_predictions(path, num_classes)


def _read_config(folder):
    path = folder / "config.json"
    if not regular_files.check_regular(path):
        raise ValueError(f"{folder} holds no run: there is no config.json")
    file = run_folder.read_object(path)
    content, digests = file.get("config"), file.get("weights", {})
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it has no config")
    if not isinstance(digests, dict) or not all(isinstance(x, str) for x in digests.values()):
        raise ValueError(f"{path} is damaged: weights must be digests by key")
    config = run_folder.stored_config(path, without_gone(content, whatever=True))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run has told them
            make_weighting(config, len(make_tasks(config)))
            choices.parse(config.stratifier, "stratifier")
    except ValueError as error:
        raise ValueError(f"{path} does not fit this version: {error}") from None
    return config, digests


def _read_summary(folder, num_classes):
    path = folder / "summary.json"
    if not regular_files.check_regular(path):
        raise ValueError(
            f"the run in {folder} is not finished: there is no summary.json; the command that "
            "began it continues it"
        )
    summary = run_folder.read_object(path)
    stored.check_summary(summary, path, num_classes)
    return summary


def _read_backbone(folder):
    path = folder / "backbone.json"
    try:
        shape = run_folder.read_object(_existing(path))
        return shape, backbones.BackboneConfig.from_huggingface(shape)
    except backbones.BackboneError as error:
        raise ValueError(f"{path}: {error}") from None


def _check_sizes(folder, config, there):
    # Of what is made anew from the configuration, and not read: before it takes any memory.
    rank, ranks = config.lora_rank, _ranks(folder)
    if rank and not config.lora_adapter and ranks and ranks != {rank}:
        raise ValueError(
            f"{folder / 'config.json'} has lora_rank={rank}, but what trained is of rank "
            f"{', '.join(map(str, sorted(ranks)))}"
        )
    if config.backbone == "scratch":
        # RoBERTa's positions begin behind the padding's.
        sizes = {
            "width": there.hidden_size,
            "layers": there.num_layers,
            "heads": there.num_heads,
            "feed_forward": there.intermediate_size,
        }
        for name, size in sizes.items():
            if getattr(config.scratch, name) != size:
                raise ValueError(
                    f"{folder / 'config.json'} has scratch.{name}={getattr(config.scratch, name)}, "
                    f"and backbone.json beside it {size}"
                )
        shape = config.scratch
        count = shape.width * (shape.vocab_size + shape.max_positions) + shape.layers * (
            4 * shape.width**2 + 2 * shape.width * shape.feed_forward
        )
        if count > _MOST_FROM_SCRATCH:
            raise ValueError(
                f"{folder / 'config.json'}: scratch has {count:,} parameters, more than "
                f"{_MOST_FROM_SCRATCH:,}"
            )


def _ranks(folder):
    # Of the factors that were saved; none is known where they are damaged, as is said later.
    found = set()
    if regular_files.check_regular(folder / WEIGHTS):
        with contextlib.ExitStack() as stack:
            tensors = backbones.open_safetensors(stack, folder / WEIGHTS)
            found = {
                shape[-1] for name, (shape, _) in tensors.items() if _is_factor(name) and shape
            }
        return found
    return Checkpoints(folder / "checkpoints").last_sizes(_is_factor)


def _is_factor(name):
    return name.startswith("theta/lora/") and name.endswith("/u")


def _existing(path):
    if not regular_files.kind_of(path):
        raise ValueError(f"{path} is gone, without which the run in {path.parent} cannot be used")
    return path


def _began_from(config, key, tokenizer, folder, through, trusted):
    # Frozen parameters are in no checkpoint: they come from where they came from then.
    adapter = config.lora_adapter
    if os.path.isabs(adapter) and not os.path.isdir(adapter):
        raise ValueError(
            f"{folder / 'config.json'} names lora_adapter={shown(adapter)}, which is not there: "
            "copy the adapter to that place, or write into that file where it is now; the same "
            "weights are accepted wherever they are"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the run has told them
            place = (*through, folder.resolve())
            return _begin(_at_hand(config, folder, trusted), None, key, tokenizer, place)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"the run in {folder} began from backbone={config.backbone!r}, whose frozen "
            f"parameters it does not hold: {error}; where it is elsewhere now, say so: "
            "backbone=FOLDER"
        ) from error


def _at_hand(config, folder, trusted):
    # A stranger's folder names what it began from: nothing is fetched because of that, only
    # what its user names.
    for key in ("lora_adapter",) if trusted else ("backbone", "lora_adapter"):
        name = getattr(config, key)
        if name in ("", "scratch") or os.path.isdir(os.path.expanduser(name)):
            continue
        found = backbones.cached(name)
        if found is None:
            raise ValueError(
                f"{folder / 'config.json'} names {key}={shown(name)}, which is no folder here, and "
                "loading a run fetches nothing; if you trust it, fetch it first: hf download "
                f"{shlex.quote(shown(name))}"
            )
        config = Config.of(config, **{key: str(found)})
    return config


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
            method = make_weighting(config, len(tasks))
        optimizers = choose_optimizers(config, 1)
        shapes = jax.eval_shape(
            lambda theta, key: first_state(
                config, settings, theta, {}, tasks, method, optimizers, key
            ),
            theta,
            jax.random.key(0),
        )
        everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        target = jax.tree.map(lambda leaf: _target(leaf, everywhere), shapes)
        about = _existing(path / str(latest) / "checkpoint.json")
        best = run_folder.read_object(about).get("progress", {}).get("best_step")
        if best is not None and type(best) is not int:
            raise ValueError(f"{about} is damaged: best_step is {shown(best)}, no step")
        step = best or latest
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
