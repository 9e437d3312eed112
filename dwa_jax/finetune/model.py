"""The model of a run: a trunk with its tokenizer, parameters and LoRA factors."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dwa_jax import backbones, data, heads, lora
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import Corpus


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


def only_here(model: Model) -> list[str]:
    """Returns a note where the run could not be exported, while that can still be changed."""
    classifier = backbones.FAMILIES[model.module.config.family].classifier
    if model.pooling == classifier.pooling:
        return []
    return [
        f"pooling={model.pooling!r} is not that of {classifier.architecture}: the run will "
        f"predict, but not export to transformers or PEFT; --config.pooling={classifier.pooling} "
        "does"
    ]


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
    }


def load_model(
    config: Config, corpus: Corpus | None, key: jax.Array, tokenizer: Any = None
) -> Model:
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
            assert corpus is not None, "a new tokenizer is trained on a corpus"
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
            targets=config.lora_targets or None,
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
    highest = max((int(row.max()) for row in ids), default=0)
    if highest >= vocab_size:
        raise ValueError(
            f"the tokenizer gives id {highest}, the model knows {vocab_size} tokens: "
            "they do not belong together"
        )
