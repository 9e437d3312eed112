"""The model of a run: a trunk with its tokenizer, parameters and LoRA factors."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dwa_jax import backbones, data, heads, lora, paths
from dwa_jax.backbones import files
from dwa_jax.finetune import inherited, run_folder
from dwa_jax.finetune.config import Config, Scratch
from dwa_jax.finetune.corpus import Corpus
from dwa_jax.finetune.vocabulary import Vocabulary


@dataclass
class Model:
    """A backbone with its tokenizer and parameters, and how hidden states become a vector.

    Attributes:
      module: the trunk.
      params: its parameters.
      tokenizer: its tokenizer.
      pooling: one of `heads.POOLINGS`.
      adapter: fresh or given LoRA factors.
      heads: {task: parameters} of the tasks whose head the backbone brings.
      digests: {key of the configuration: digest of the weights that it names}.
      vocabulary: what the word table of module and params was cut down to; None: all is there.
    """

    module: Any
    params: Any
    tokenizer: Any
    pooling: str
    adapter: lora.Lora | None
    heads: dict[str, dict] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None

    @property
    def whole_module(self) -> Any:
        """The trunk that takes the whole word table."""
        return self.module if self.vocabulary is None else self.vocabulary.module

    @property
    def lora_scale(self) -> float:
        """What U V is multiplied by."""
        return 1.0 if self.adapter is None else self.adapter.scale


class Start(NamedTuple):
    """A trained model whose trunk and heads another run begins from.

    Attributes:
      settings: the trunk's.
      params: its parameters, LoRA merged.
      tokenizer: its tokenizer.
      offered: its heads.
      digest: of what it holds, before anything was merged.
    """

    settings: backbones.BackboneConfig
    params: Any
    tokenizer: Any
    offered: inherited.Offered
    digest: str


def uses_lora(config: Config) -> bool:
    """Says whether low-rank factors train, or the trunk itself."""
    return bool(config.lora_rank or config.lora_adapter)


def module_options(config: Config) -> dict:
    """Returns the options that a backbone is built with."""
    dtype = jnp.dtype(config.dtype)
    return {
        "dtype": dtype,
        # Frozen weights need no more precision than the arithmetic has.
        "param_dtype": dtype if uses_lora(config) else jnp.float32,
        "remat": config.remat,
        "unroll": config.unroll,
        "lora_dropout": config.lora_dropout,
        "right_padded": True,
    }


def scratch_settings(
    shape: Scratch, vocab_size: int, pad_token_id: int
) -> backbones.BackboneConfig:
    """Returns what a trunk from scratch is configured as.

    Args:
      shape: the configuration's.
      vocab_size: of the tokenizer.
      pad_token_id: its.
    """
    return backbones.from_scratch(
        vocab_size=vocab_size,
        width=shape.width,
        layers=shape.layers,
        heads=shape.heads,
        feed_forward=shape.feed_forward,
        max_positions=shape.max_positions,
        pad_token_id=pad_token_id,
    )


def fresh_adapter(config: Config, key: jax.Array, params: dict) -> lora.Lora:
    """Draws the LoRA factors that a run starts with; see `lora.init`.

    Args:
      config: the whole configuration, with a rank.
      key: PRNG key.
      params: of the trunk.
    """
    return lora.init(
        key,
        params,
        rank=config.lora_rank,
        targets=config.lora_targets or None,
        alpha=config.lora_alpha or None,
        rank_stabilized=config.lora_rank_stabilized,
    )


def load_model(
    config: Config,
    corpus: Corpus | None,
    key: jax.Array,
    tokenizer: Any = None,
    start: Start | None = None,
) -> Model:
    """Loads or builds the trunk and its tokenizer, and adds LoRA factors.

    What is told of the heads that a backbone brings comes as warnings.

    Args:
      config: the whole configuration.
      corpus: its training texts train the tokenizer of a trunk from scratch.
      key: of fresh parameters.
      tokenizer: one that was trained or loaded before; then nothing is read of `corpus`.
      start: where the backbone is a run, what it holds; see `saved.begin_model`.

    Raises:
      ValueError: no usable weights, adapter or tokenizer, or an unknown pooling.
    """
    options = module_options(config)
    _check_adapter(config)
    init_key, lora_key = jax.random.split(key)
    offered, digests = None, {}
    if config.backbone == "scratch":
        if tokenizer is None:
            assert corpus is not None, "a new tokenizer is trained on a corpus"
            size = config.scratch.vocab_size
            tokenizer = data.headlines.tokenizer(corpus.rows["train"].texts, size)
        settings = scratch_settings(config.scratch, len(tokenizer), tokenizer.pad_token_id)
        module = backbones.build(settings, **options)
        params = backbones.init(init_key, module)
    elif start is not None:
        module, offered = backbones.build(start.settings, **options), start.offered
        params = jax.tree.map(
            lambda leaf: jnp.array(leaf, options["param_dtype"], copy=True), start.params
        )
        tokenizer = start.tokenizer if tokenizer is None else tokenizer
        digests["backbone"] = start.digest
    else:
        # First, because it says within seconds when a hub cannot be reached.
        name = inherited.trunk_folder(config.backbone)
        folder = files.locate(name)
        # Before gigabytes are read.
        tokenizer = data.load_tokenizer(name) if tokenizer is None else tokenizer
        module, params = backbones.load(folder, **options)
        offered = inherited.offered(config.backbone, folder, module.config)
        digests["backbone"] = weights_digest(params)
    taken: dict[str, dict] = {}
    pooling = config.pooling
    if offered is not None:
        sizes = {"regression": 1, "classification": config.num_classes}
        outputs = {task: sizes[task] for task in config.tasks if task in sizes}
        taken, notes = inherited.pick_heads(
            offered, config.backbone, module.config, outputs, pooling
        )
        for note in notes:
            warnings.warn(note, stacklevel=2)
        pooling = pooling or (offered.pooling if taken else "")
    pooling = pooling or heads.default_pooling(module.config)
    if pooling not in heads.POOLINGS:
        raise ValueError(f"pooling={pooling!r} is not one of {', '.join(heads.POOLINGS)}")
    adapter = None
    if config.lora_adapter:
        given = backbones.peft.load(config.lora_adapter, module.config)
        adapter = lora.Lora(jax.tree.map(jnp.array, given.factors), given.settings.scale)
        digests["lora_adapter"] = weights_digest(given.factors)
        heads_left = f"; its {', '.join(given.left)} not taken" if given.left else ""
        warnings.warn(
            f"LoRA starts from {config.lora_adapter}: rank {given.settings.rank}, scale "
            f"{given.settings.scale:g}{heads_left}",
            stacklevel=2,
        )
    elif config.lora_rank:
        adapter = fresh_adapter(config, lora_key, params)
    return Model(module, params, tokenizer, pooling, adapter, taken, digests)


# Places along an axis of which the order counts, too.
_SAMPLE = 8


def weights_digest(tree: Any) -> str:
    """Returns a digest that tells other weights: of every leaf its sum as integers, and a sample.

    The files that they came from do not matter, their type does. It takes the time of reading
    the memory once, a tenth of that of a SHA-256 of it all.

    Args:
      tree: arrays by name.
    """
    parts: list[str | np.ndarray] = []
    for path, leaf in sorted(paths.flatten(tree).items()):
        values = np.ascontiguousarray(leaf)
        whole = values.view(f"u{values.dtype.itemsize}").sum(dtype=np.uint64)
        sample = values[tuple(slice(None, None, max(1, n // _SAMPLE)) for n in values.shape)]
        parts += [path, f"{values.dtype}{values.shape}", whole, sample]
    return run_folder.digest(parts)


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
            given_value = f"{key}={getattr(config, key)!r}"
            raise ValueError(
                f"{given_value} contradicts lora_adapter={config.lora_adapter!r}, which "
                f"has {has}; leave {key} at its default"
            )


def check_ids(ids: Sequence[np.ndarray], vocab_size: int) -> None:
    """Checks that a tokenizer belongs to a model.

    Args:
      ids: token ids of texts.
      vocab_size: tokens that the model knows.

    Raises:
      ValueError: an id is beyond them.
    """
    highest = int(data.TokenRows.of(ids).tokens.max(initial=0))
    if highest >= vocab_size:
        raise ValueError(
            f"the tokenizer gives id {highest}, the model knows {vocab_size} tokens: "
            "they do not belong together"
        )
