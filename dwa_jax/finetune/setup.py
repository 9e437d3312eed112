"""From a configuration to what a run needs: rows, model, token batches, tasks, step."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dwa_jax import data, losses, sharding, training, trunk, weighting
from dwa_jax.backbones import FAMILIES, BackboneConfig
from dwa_jax.finetune import choices, token_cache, vocabulary
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import Corpus, leave_out
from dwa_jax.finetune.model import Model, check_ids
from dwa_jax.finetune.run_folder import Length
from dwa_jax.presets import PRESETS

# Tokens that evaluation may compute, over the fewest with lengths of its own.
_MOST_MORE = 1.1
_TASKS = {"regression": "score_mask", "classification": "category_mask"}


def make_batches(
    config: Config, corpus: Corpus, model: Model
) -> tuple[dict[str, data.Batches], list[str]]:
    """Tokenizes every split and sets up its batches.

    Where `on_bad_row` is "skip", rows whose texts have no token are left out of the corpus. The
    model may be cut down to the vocabulary that the texts need, which the batches then are for.

    Returns:
      (split -> batches, for the splits that have rows; notes for the reader).

    Raises:
      ValueError: a text has no token, or the tokenizer does not fit the model.
    """
    _check_padding(model)
    notes = []
    limit = min(config.max_length, model.module.config.max_positions)
    normalize = data.normalize_tweet if config.normalize_tweets else None
    skip = config.on_bad_row == "skip"
    ids, wordless = {}, {}
    for split, rows in corpus.rows.items():
        if not len(rows):
            continue
        encoded = token_cache.encode_once(
            model.tokenizer, rows.texts, limit, normalize, rows.origin, allow_wordless=skip
        )
        if encoded.num_truncated:
            share = encoded.num_truncated / len(rows)
            notes.append(
                f"{split}: {encoded.num_truncated} texts ({share:.1%}) cut to {limit} tokens"
            )
        if lacking := np.count_nonzero(encoded.unknown):
            notes.append(
                f"{split}: {encoded.unknown.sum()} tokens in {lacking} texts "
                f"({lacking / len(rows):.1%}) are unknown to the tokenizer"
            )
        check_ids(encoded.ids, model.module.config.vocab_size)
        ids[split] = encoded.ids
        if encoded.wordless.any():
            ids[split] = encoded.ids.take(np.flatnonzero(~encoded.wordless))
        wordless[split] = encoded.wordless
    if any(mask.any() for mask in wordless.values()):
        leave_out(config, corpus, wordless)
    if config.trim_vocabulary and model.adapter is None:
        pad_id = model.tokenizer.pad_token_id
        model.module, model.params, model.vocabulary = vocabulary.trim(
            model.module, model.params, ids.values(), pad_id, config.freeze
        )
    batches = {}
    for split, of in ids.items():
        if not len(of):
            continue
        lengths = of.lengths
        buckets = data.bucket_lengths(lengths, config.max_buckets, config.pad_to_multiple_of)
        if split == "train":
            known = buckets
        elif _fits(lengths, known, buckets):
            buckets = known
        batches[split] = data.Batches(
            of,
            corpus.rows[split].scores,
            corpus.categories[split],
            batch_size=config.batch_size if split == "train" else config.eval_batch_size,
            buckets=buckets,
            seed=config.seed,
            pad_id=model.tokenizer.pad_token_id,
            shuffle=config.shuffle,
            rows_of=model.vocabulary and model.vocabulary.rows,
        )
    return batches, notes


def _check_padding(model):
    # Where transformers looks for the end of a text by the pad token, an export would look there.
    classifier = FAMILIES[model.module.config.family].classifier
    if model.pooling == "last" and classifier.needs_pad_id and data.pads_texts(model.tokenizer):
        raise ValueError(
            f"the tokenizer pads with {model.tokenizer.pad_token!r}, which its texts end with or "
            "hold as well, and has no other token for it; set pad_token in its "
            "tokenizer_config.json to one that no text has, or pooling='mean'"
        )


def _fits(lengths, known, own):
    # Each length compiles a program: splits that are alike share theirs.
    def tokens(buckets):
        return np.asarray(buckets)[np.searchsorted(buckets, lengths)].sum()

    return lengths.max() <= known[-1] and tokens(known) <= _MOST_MORE * tokens(own)


def make_tasks(config: Config, labels: losses.Labels | None = None) -> list[training.Task]:
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
            f"tasks={config.tasks}: expected some of {tuple(_TASKS)}, each at most once"
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
            choice, options = choices.parse(getattr(config, key), key)
        else:
            outputs, registry = config.num_classes, losses.CLASSIFICATION_LOSSES
            choice, options = _with_preset(key, "imbalance", config)
        if choice in registry and losses.takes_labels(registry[choice]):
            if "labels" in options:
                raise ValueError(f"{key}={choice}: its labels are the training split's, no option")
            options = {**options, "labels": labels}
        loss = choices.make_choice(registry, choice, options, key)
        tasks.append(training.Task(name, outputs, loss, _TASKS[name]))
    return tasks


# Which choices a preset's options of a kind are for.
_PRESET_OF = {"weighting": ("dwa", "adaptive_w"), "imbalance": ("imbalance",)}


def _with_preset(key, kind, config):
    # A preset fills in what the choice itself leaves open.
    if config.preset not in PRESETS:
        raise ValueError(f"preset={config.preset!r} is not one of {', '.join(PRESETS)}")
    name, options = choices.parse(getattr(config, key), key)
    if name in _PRESET_OF[kind]:
        options = {**PRESETS[config.preset][kind], **options}
    return name, options


def make_weighting(config: Config, num_tasks: int) -> weighting.Weighting:
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
    method = weighting.get(name, num_tasks, **options)
    return choices.first_alike(weighting.METHODS[name], {"num_tasks": num_tasks, **options}, method)


@dataclass
class Setup:
    """What the training loop works with.

    Attributes:
      state: the first one; None once the loop has taken it over, since the step donates it.
      step: (state, batch) -> (state, metrics).
      predict: (state, batch) -> {task: (B, outputs), "representation": (B, D)}.
      mesh: the devices.
      tasks: the N tasks.
      total_steps: of the run.
      uses_gramian: whether the weighting compares gradients.
      options: of the step.
    """

    state: Any
    step: Any
    predict: Any
    mesh: Any
    tasks: list[training.Task]
    total_steps: int
    uses_gramian: bool
    options: training.StepOptions


def choose_optimizers(
    config: Config, steps_per_epoch: int, lengths: Sequence[Length] = ()
) -> training.Optimizers:
    """Makes the optimizers of a run.

    Args:
      config: the whole configuration.
      steps_per_epoch: of its epochs.
      lengths: from `run_folder.lengths`, where it was extended.
    """
    ends = [(one.epochs * steps_per_epoch, one.schedule) for one in lengths]
    return training.make_optimizers(
        total_steps=ends[0][0] if ends else config.epochs * steps_per_epoch,
        extensions=tuple(ends[1:]),
        learning_rate=config.learning_rate,
        head_learning_rate=config.head_learning_rate,
        phi_learning_rate=config.phi_learning_rate,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        mean_dtype=jnp.dtype(config.adam_mean_dtype),
    )


# A run like an earlier one of this process, such as a fold of a cross-validation or another
# learning rate, finds its step traced and compiled.
_program = functools.lru_cache(maxsize=4)(training.make_program)


def first_state(
    config: Config,
    settings: BackboneConfig,
    theta: dict,
    frozen: dict,
    tasks: list[training.Task],
    method: weighting.Weighting,
    optimizers: training.Optimizers,
    key: jax.Array,
    proportions: np.ndarray | None = None,
    starts: dict[str, np.ndarray | None] | None = None,
) -> training.TrainState:
    """Makes a run's first state; its shapes are those of every later one.

    Args:
      config: the whole configuration.
      settings: the backbone's.
      theta: shared trainable parameters.
      frozen: the others.
      tasks: from `make_tasks`.
      method: from `make_weighting`.
      optimizers: from `choose_optimizers`.
      key: of heads, weighting and dropout.
      proportions: (K,) the training split's class proportions; uniform by default.
      starts: what the heads give at first, see `training.init_state`.
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
        starts=starts,
        spike_window=config.spike_window if config.skip_spikes else 0,
    )


def step_options(config: Config, pooling: str, lora_scale: float) -> training.StepOptions:
    """Returns how the step of a run is taken.

    Args:
      config: the whole configuration.
      pooling: of the model.
      lora_scale: likewise.

    Raises:
      ValueError: an option is out of its range.
    """
    return training.StepOptions(
        pooling=pooling,
        num_classes=config.num_classes,
        lora_scale=lora_scale,
        scope=config.gradient_scope,
        gradient_norms=config.gradient_norms,
        sketch_columns=config.sketch_columns,
        microbatches=config.microbatches,
        proportions=config.proportions,
        norm_of_cross_entropy=config.norm_of_cross_entropy,
        dropout=config.dropout,
        skip_spikes=config.skip_spikes,
    )


def make_setup(
    config: Config,
    corpus: Corpus,
    model: Model,
    steps_per_epoch: int,
    key: jax.Array,
    lengths: Sequence[Length] = (),
) -> Setup:
    """Makes the first state, the train step and the forward pass.

    Args:
      config: the whole configuration.
      corpus: labelled rows.
      model: the backbone with its tokenizer; its parameters go into the state.
      steps_per_epoch: batches of the training split.
      key: of heads, weighting and dropout.
      lengths: from `run_folder.lengths`, where the run was extended.

    Raises:
      ValueError: an option is out of range, or the mesh is not one of the devices here.
    """
    mesh = sharding.make_mesh(config.mesh)
    counts = np.bincount(
        corpus.categories["train"][corpus.categories["train"] >= 0], minlength=config.num_classes
    )
    scores = corpus.rows["train"].scores
    scores = scores[~np.isnan(scores)]
    tasks = make_tasks(config, losses.Labels(counts, scores))
    method = make_weighting(config, len(tasks))
    total_steps = steps_per_epoch * config.epochs
    optimizers = choose_optimizers(config, steps_per_epoch, lengths)
    theta, frozen = trunk.split_parameters(model.params, model.adapter, freeze=config.freeze)
    # The step donates the state: nothing else may hold its arrays.
    model.params = None
    if sharding.splits_parameters(mesh):
        # Before there are moments, which then are split from the start.
        theta = sharding.put(theta, sharding.parameter_shardings(theta, mesh))
        frozen = sharding.put(frozen, sharding.parameter_shardings(frozen, mesh))
    proportions = counts / max(int(counts.sum()), 1)
    settings = model.module.config
    # What is best to say of a text that nothing is known of; one more of each class, so that
    # one that is not there has a logarithm.
    starts = {
        "regression": scores.mean(keepdims=True) if len(scores) else None,
        "classification": np.log((counts + 1) / (counts.sum() + len(counts))),
    }
    starts = {task.name: starts[task.name] for task in tasks}
    state = first_state(
        config, settings, theta, frozen, tasks, method, optimizers, key, proportions, starts
    )
    if model.heads:
        # Copies, since the step donates the state.
        begun = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), model.heads)
        state = state._replace(psi={**state.psi, **begun})
    common: dict[str, Any] = {"pooling": model.pooling, "lora_scale": model.lora_scale}
    options = step_options(config, **common)
    # One device's program has nothing to say of others.
    module = model.module.clone(mesh=mesh) if mesh.size > 1 else model.module
    program = _program(module, tuple(tasks), method, optimizers.plan, options)
    step = training.Step(program, optimizers, module.mesh)
    predict = training.make_predict(module, tasks, representation=True, **common)
    state = sharding.put(state, training.placements(state, mesh))
    return Setup(state, step, predict, mesh, tasks, total_steps, method.uses_gramian, options)
