"""From a configuration to what a run needs: rows, thresholds, token batches, model, step."""

import glob
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dwa_jax import (
    backbones,
    data,
    heads,
    lora,
    losses,
    sharding,
    stratify,
    training,
    trunk,
    weighting,
)
from dwa_jax.presets import PRESETS
from experiments import left_out, spec

_TASKS = {"regression": "score_mask", "classification": "category_mask"}


@dataclass
class Corpus:
    """Rows of each split with categories, the thresholds, and what there is to tell of them.

    Attributes:
      rows: split -> rows: "train", "validation", "test", and each file of `also_test`.
      categories: split -> (N,) integers, -1 where missing.
      thresholds: (K-1,), or None where no row has a score.
      notes: sentences for the reader: rows left out, duplicates dropped.
      left_out: the bad rows of all files, where `on_bad_row` is "skip".
    """

    rows: dict[str, data.Rows]
    categories: dict[str, np.ndarray]
    thresholds: np.ndarray | None
    notes: list[str] = field(default_factory=list)
    left_out: list[data.LeftOut] = field(default_factory=list)


@dataclass
class Model:
    """A backbone with its tokenizer and parameters, and how hidden states become a vector."""

    module: Any
    params: Any
    tokenizer: Any
    pooling: str
    adapter: lora.Lora | None

    @property
    def lora_scale(self) -> float:
        """What U V is multiplied by."""
        return 1.0 if self.adapter is None else self.adapter.scale


def _files(text: str, key: str) -> list[str]:
    found = []
    for name in (part.strip() for part in text.split(",")):
        if not name:
            continue
        is_pattern = any(c in name for c in "*?[") and not Path(name).exists()
        matches = sorted(glob.glob(name)) if is_pattern else [name]
        if not matches:
            raise ValueError(f"{key}={name!r} matches no file")
        found += matches
    return found


def read_corpus(config) -> Corpus:
    """Reads or generates the rows, splits them, and fits thresholds on the training rows.

    Args:
      config: the whole configuration.

    Raises:
      ValueError: a file, a row or a split is not usable.
    """
    notes: list[str] = []
    bad: list[data.LeftOut] = []

    def read(key, files=None):
        rows, skipped = data.read(
            files or _files(config[key], key),
            text_column=config.text_column,
            score_column=config.score_column or None,
            category_column=config.category_column or None,
            category_names=tuple(config.category_names) or None,
            num_classes=config.num_classes,
            score_range=tuple(config.score_range) or None,
            on_bad_row=config.on_bad_row,
        )
        if skipped:
            notes.append(left_out.note(key, skipped))
            bad.extend(skipped)
        return rows

    if config.train:
        everything = read("train")
    else:
        everything = data.headlines.generate(config.generated_rows, config.seed)
    if 0 < config.max_rows < len(everything):
        drawn = np.random.default_rng(config.seed).permutation(len(everything))
        everything = everything.take(np.sort(drawn[: config.max_rows]))
    held_out = {split: read(split) for split in ("validation", "test") if config[split]}
    nothing = everything.take([])
    if held_out:
        everything, dropped = data.check_disjoint(
            everything, held_out.get("validation", nothing), held_out.get("test", nothing)
        )
        if dropped:
            notes.append(f"train: {dropped} rows left out, whose text a held-out file has too")
        if len(held_out) == 2:
            _, shared = data.check_disjoint(held_out["validation"], held_out["test"])
            if shared:
                notes.append(f"validation: {shared} rows have a text of the test file, and stay")
        rows = {"train": everything, "test": nothing, **held_out}
        if "validation" not in held_out:
            train, validation, _ = config.fractions
            total = train + validation
            halves = data.split(
                everything, fractions=(train / total, validation / total, 0.0), seed=config.seed
            )
            rows |= {"train": halves["train"], "validation": halves["validation"]}
    else:
        rows = data.split(everything, fractions=tuple(config.fractions), seed=config.seed)
    for split in ("train", "validation"):
        if not len(rows[split]):
            raise ValueError(f"the {split} split has no row")
    for name in _files(config.also_test, "also_test"):
        rows[name] = read("also_test", [name])
        rows[name], dropped = data.check_disjoint(rows[name], rows["train"], rows["validation"])
        if dropped:
            notes.append(f"{name}: {dropped} rows left out, whose text the run trains on")

    thresholds = None
    scores = rows["train"].scores
    scores = scores[~np.isnan(scores)]
    if len(scores):
        name, options = spec.parse(config.stratifier, "stratifier")
        try:
            thresholds = np.asarray(stratify.fit(name, scores, config.num_classes, **options))
        except TypeError as error:
            raise ValueError(f"stratifier={config.stratifier!r}: {error}") from None
    elif "regression" in config.tasks:
        raise ValueError("no training row has a score; set tasks=('classification',)")
    categories = {split: _categories(part, thresholds, config) for split, part in rows.items()}
    for split, values in categories.items():
        if values.size and values.max() >= config.num_classes:
            row = int(values.argmax())
            raise ValueError(
                f"{split}: category {values[row]} of {rows[split].origin[row]} is not below "
                f"num_classes={config.num_classes}"
            )
    if "classification" in config.tasks and not (categories["train"] >= 0).any():
        raise ValueError("no training row has a category; set tasks=('regression',)")
    return Corpus(rows, categories, thresholds, notes, bad)


def _categories(rows, thresholds, config):
    given = rows.categories.astype(np.int32)
    if thresholds is None or not config.derive_categories:
        return given
    scored = ~np.isnan(rows.scores)
    derived = np.asarray(stratify.categorize(np.where(scored, rows.scores, 0.0), thresholds))
    return np.where((given < 0) & scored, derived, given).astype(np.int32)


def uses_lora(config) -> bool:
    """Says whether low-rank factors train, or the trunk itself."""
    return bool(config.lora_rank or config.lora_adapter)


def module_options(config) -> dict:
    """Returns the options that a backbone is built with."""
    dtype = jnp.dtype(config.dtype)
    return {
        "dtype": dtype,
        # Frozen weights need no more precision than the arithmetic has.
        "param_dtype": dtype if uses_lora(config) else jnp.float32,
        "remat": config.remat,
        "unroll": config.unroll or 10_000,
        "lora_dropout": config.lora_dropout,
    }


def load_model(config, corpus: Corpus | None, key: jax.Array, tokenizer: Any = None) -> Model:
    """Loads or builds the trunk and its tokenizer, and adds LoRA factors.

    Args:
      config: the whole configuration.
      corpus: its training texts train the tokenizer of a trunk from scratch.
      key: of fresh parameters.
      tokenizer: one that was trained or loaded before; then nothing is read of `corpus`.

    Raises:
      ValueError: no usable weights, adapter or tokenizer, or an unknown pooling.
    """
    options = module_options(config)
    _check_adapter(config)
    init_key, lora_key = jax.random.split(key)
    if config.backbone == "scratch":
        shape = config.scratch
        if tokenizer is None:
            tokenizer = data.headlines.tokenizer(corpus.rows["train"].texts, shape.vocab_size)
        settings = backbones.BackboneConfig.from_huggingface(
            {
                "model_type": "roberta",
                "vocab_size": len(tokenizer),
                "hidden_size": shape.width,
                "num_hidden_layers": shape.layers,
                "num_attention_heads": shape.heads,
                "intermediate_size": shape.feed_forward,
                "max_position_embeddings": shape.max_positions + 2,
                "type_vocab_size": 1,
                "pad_token_id": tokenizer.pad_token_id,
            }
        )
        module = backbones.build(settings, **options)
        params = backbones.init(init_key, module)
    else:
        # First, because it says within seconds when a hub cannot be reached.
        module, params = backbones.load(config.backbone, **options)
        if tokenizer is None:
            tokenizer = data.load_tokenizer(config.backbone)
    pooling = config.pooling or heads.default_pooling(module.config.family)
    if pooling not in heads.POOLINGS:
        raise ValueError(f"pooling={pooling!r} is not one of {', '.join(heads.POOLINGS)}")
    adapter = None
    if config.lora_adapter:
        given = backbones.peft.load(config.lora_adapter, module.config)
        adapter = lora.Lora(jax.tree.map(jnp.array, given.factors), given.settings.scale)
        heads_left = f"; its {', '.join(given.left)} not taken" if given.left else ""
        warnings.warn(
            f"LoRA starts from {config.lora_adapter}: rank {given.settings.rank}, scale "
            f"{given.settings.scale:g}{heads_left}",
            stacklevel=2,
        )
    elif config.lora_rank:
        adapter = lora.init(
            lora_key,
            params,
            rank=config.lora_rank,
            targets=tuple(config.lora_targets) or None,
            alpha=config.lora_alpha or None,
            rank_stabilized=config.lora_rank_stabilized,
        )
    return Model(module, params, tokenizer, pooling, adapter)


def _check_adapter(config):
    # Before any weights are read: an adapter brings what these keys would say.
    if not config.lora_adapter:
        return
    given = backbones.peft.read_settings(config.lora_adapter)
    conflicts = {
        "lora_rank": (config.lora_rank not in (0, given.rank), f"rank {given.rank}"),
        "lora_alpha": (config.lora_alpha not in (0, given.alpha), f"alpha {given.alpha:g}"),
        "lora_rank_stabilized": (
            config.lora_rank_stabilized and not given.rank_stabilized,
            "no rank-stabilized scale",
        ),
        "lora_targets": (len(config.lora_targets) > 0, "targets of its own"),
    }
    for key, (wrong, has) in conflicts.items():
        if wrong:
            raise ValueError(
                f"{key}={config[key]!r} contradicts lora_adapter={config.lora_adapter!r}, which "
                f"has {has}; leave {key} at its default"
            )


def make_batches(config, corpus: Corpus, model: Model) -> tuple[dict[str, data.Batches], list[str]]:
    """Tokenizes every split and sets up its batches.

    Returns:
      (split -> batches, for the splits that have rows; notes for the reader).
    """
    notes = []
    limit = min(config.max_length, model.module.config.max_positions)
    normalize = data.normalize_tweet if config.normalize_tweets else None
    batches = {}
    for split, rows in corpus.rows.items():
        if not len(rows):
            continue
        encoded = data.encode(model.tokenizer, rows.texts, limit, normalize, rows.origin)
        if encoded.num_truncated:
            share = encoded.num_truncated / len(rows)
            notes.append(
                f"{split}: {encoded.num_truncated} texts ({share:.1%}) cut to {limit} tokens"
            )
        size = model.module.config.vocab_size
        highest = max(ids.max() for ids in encoded.ids)
        if highest >= size:
            raise ValueError(
                f"the tokenizer gives id {highest}, the model knows {size} tokens: "
                "they do not belong together"
            )
        batches[split] = data.Batches(
            encoded.ids,
            rows.scores,
            corpus.categories[split],
            batch_size=config.batch_size if split == "train" else config.eval_batch_size,
            buckets=data.bucket_lengths(
                encoded.lengths, config.max_buckets, config.pad_to_multiple_of
            ),
            seed=config.seed,
            pad_id=model.tokenizer.pad_token_id,
            shuffle=config.shuffle,
        )
    return batches, notes


def make_tasks(config, labels: losses.Labels | None = None) -> list[training.Task]:
    """Makes the tasks with their losses.

    Args:
      config: the whole configuration.
      labels: the training split's; None, before there are rows, checks the options on
        uniform ones.

    Raises:
      ValueError: a task or loss is unknown, or an option is out of range.
    """
    wrong = [name for name in config.tasks if name not in _TASKS]
    if wrong or not config.tasks or len(set(config.tasks)) < len(config.tasks):
        raise ValueError(
            f"tasks={tuple(config.tasks)}: expected some of {tuple(_TASKS)}, each at most once"
        )
    if labels is None:
        uniform = np.linspace(-1, 1, config.num_classes)
        labels = losses.Labels(np.ones(config.num_classes), uniform)
    tasks = []
    for name in _TASKS:
        if name not in config.tasks:
            continue
        key = f"{name}_loss"
        if name == "regression":
            outputs, registry = 1, losses.REGRESSION_LOSSES
            choice, options = spec.parse(config[key], key)
        else:
            outputs, registry = config.num_classes, losses.CLASSIFICATION_LOSSES
            choice, options = _with_preset(key, "imbalance", config)
        if choice in registry and losses.takes_labels(registry[choice]):
            if "labels" in options:
                raise ValueError(f"{key}={choice}: its labels are the training split's, no option")
            options = {**options, "labels": labels}
        loss = spec.choose(registry, choice, options, key)
        tasks.append(training.Task(name, outputs, loss, _TASKS[name]))
    return tasks


# Which choices a preset's options of a kind are for.
_PRESET_OF = {"weighting": ("dwa", "adaptive_w"), "imbalance": ("imbalance",)}


def _with_preset(key, kind, config):
    # A preset fills in what the choice itself leaves open.
    if config.preset not in PRESETS:
        raise ValueError(f"preset={config.preset!r} is not one of {', '.join(PRESETS)}")
    name, options = spec.parse(config[key], key)
    if name in _PRESET_OF[kind]:
        options = {**PRESETS[config.preset][kind], **options}
    return name, options


def make_weighting(config, num_tasks: int) -> weighting.Weighting:
    """Makes the weighting method.

    Raises:
      ValueError: the name or an option is unknown, or an option is out of range.
    """
    name, options = _with_preset("weighting", "weighting", config)
    if options.get("class_inputs", 0) not in (0, config.num_classes):
        raise ValueError(
            f"weighting={config.weighting!r}: class_inputs must be 0 or "
            f"num_classes={config.num_classes}"
        )
    return weighting.get(name, num_tasks, **options)


@dataclass
class Run:
    """What the training loop works with."""

    state: training.TrainState
    step: Any
    predict: Any
    mesh: Any
    tasks: list[training.Task]
    total_steps: int


def make_optimizers(config, total_steps: int) -> training.Optimizers:
    """Makes the optimizers of a run of so many steps."""
    return training.make_optimizers(
        total_steps=total_steps,
        learning_rate=config.learning_rate,
        head_learning_rate=config.head_learning_rate,
        phi_learning_rate=config.phi_learning_rate,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
    )


def init_state(
    config, settings, theta, frozen, tasks, method, optimizers, key, proportions=None
) -> training.TrainState:
    """Makes a run's first state; its shapes are those of every later one.

    Args:
      config: the whole configuration.
      settings: the backbone's.
      theta: shared trainable parameters.
      frozen: the others.
      tasks: from `make_tasks`.
      method: from `make_weighting`.
      optimizers: from `make_optimizers`.
      key: of heads, weighting and dropout.
      proportions: (K,) the training split's class proportions; uniform by default.
    """
    return training.init_state(
        key,
        theta,
        frozen,
        family=settings.family,
        width=settings.hidden_size,
        tasks=tasks,
        weighting=method,
        optimizers=optimizers,
        num_classes=config.num_classes,
        proportions=proportions,
        spike_window=config.spike_window if config.skip_spikes else 0,
    )


def make_run(config, corpus: Corpus, model: Model, steps_per_epoch: int, key: jax.Array) -> Run:
    """Makes the first state, the train step and the forward pass.

    Raises:
      ValueError: an option is out of range, or batches do not divide over the devices.
    """
    mesh = sharding.data_mesh()
    for name, parts in (
        ("batch_size", mesh.size * config.microbatches),
        ("eval_batch_size", mesh.size),
    ):
        if config[name] % parts:
            raise ValueError(
                f"{name}={config[name]} must be a multiple of {parts} "
                f"({mesh.size} devices, {config.microbatches} microbatches)"
            )
    counts = np.bincount(
        corpus.categories["train"][corpus.categories["train"] >= 0], minlength=config.num_classes
    )
    scores = corpus.rows["train"].scores
    tasks = make_tasks(config, losses.Labels(counts, scores[~np.isnan(scores)]))
    method = make_weighting(config, len(tasks))
    total_steps = steps_per_epoch * config.epochs
    optimizers = make_optimizers(config, total_steps)
    theta, frozen = trunk.split_parameters(model.params, model.adapter, freeze=config.freeze)
    # The step donates the state: nothing else may hold its arrays.
    model.params = None
    proportions = counts / max(counts.sum(), 1)
    settings = model.module.config
    state = init_state(config, settings, theta, frozen, tasks, method, optimizers, key, proportions)
    common = {"pooling": model.pooling, "lora_scale": model.lora_scale}
    step = training.make_step(
        model.module,
        tasks,
        method,
        optimizers,
        num_classes=config.num_classes,
        scope=config.gradient_scope,
        gramian_every=config.gramian_every,
        microbatches=config.microbatches,
        proportions=config.proportions,
        norm_of_cross_entropy=config.norm_of_cross_entropy,
        dropout=config.dropout,
        skip_spikes=config.skip_spikes,
        **common,
    )
    predict = training.make_predict(model.module, tasks, **common)
    return Run(sharding.replicate(state, mesh), step, predict, mesh, tasks, total_steps)
