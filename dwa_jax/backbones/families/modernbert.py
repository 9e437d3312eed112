"""ModernBERT: most layers see a window alone, every few all of the text.

Rotary positions, with a base for each of the two kinds of layers; norms without bias, before
each block but the first attention; a gated feed-forward block; one matrix for query, key and
value, and one for the gated block's two. A window saves no time here: its layers compute all
scores and mask them.

Source: Warner et al. 2024, "Smarter, Better, Faster, Longer".

Axes: B batch, T tokens, D width, H heads, E width of one head.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dwa_jax.backbones import decoder_files, fields, names
from dwa_jax.backbones.attention import attention
from dwa_jax.backbones.classifier import Classifier
from dwa_jax.backbones.config import BackboneConfig, BackboneError
from dwa_jax.backbones.family import Family
from dwa_jax.backbones.layers import (
    Block,
    Embedding,
    LayerNorm,
    Linear,
    Trunk,
    activation,
    at,
    rotary_angles,
    rotate,
)
from dwa_jax.messages import shown

_KINDS = ("sliding_attention", "full_attention")
_EVERY = 3  # one global layer in so many
_WINDOW = 128
_THETAS = {"full_attention": ("global_rope_theta", 160_000.0)}
_THETAS["sliding_attention"] = ("local_rope_theta", 10_000.0)
# Ours -> what the file says.
_POOLINGS = {"first": {"classifier_pooling": "cls"}, "mean": {"classifier_pooling": "mean"}}


@dataclasses.dataclass(frozen=True)
class ModernBertConfig(BackboneConfig):
    """What the family has beside `BackboneConfig`; `hidden_dropout` is on embeddings alone.

    Args:
      global_layers: for each layer of the whole trunk, whether it sees all of the text.
      local_attention: width in tokens of the window of the others, half of it either side.
      local_theta: base of their rotary positions.
      mlp_dropout: rate inside the feed-forward block.
    """

    global_layers: tuple[bool, ...] = ()
    local_attention: int = _WINDOW
    local_theta: float = _THETAS["sliding_attention"][1]
    mlp_dropout: float = 0.0


class Embeddings(Block):
    """Word embeddings, normalised."""

    @nn.compact
    def __call__(self, input_ids: jax.Array) -> jax.Array:
        word = self.part(Embedding, self.config.vocab_size, name="word")(input_ids)
        return self.part(LayerNorm, use_bias=False, name="norm")(word)


class AlternatingAttention(Block):
    """Attention with one matrix for query, key and value."""

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        angles: tuple[jax.Array, ...],
        deterministic: bool,
        positions: jax.Array | None,
    ) -> jax.Array:
        c = self.config
        width = c.num_heads * c.head_dim
        joined = self.part(Linear, 3 * width, c.qkv_bias, name="qkv")(x, deterministic)
        parts = joined.reshape(*x.shape[:2], 3, c.num_heads, c.head_dim)
        query, key, value = parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]
        query = at(rotate(query, *angles), positions)
        rate = 0.0 if deterministic else c.attention_dropout
        drop_key = self.make_rng("dropout") if rate else None
        mixed = attention(
            query,
            rotate(key, *angles),
            value,
            at(mask, positions),
            dropout_rate=rate,
            dropout_key=drop_key,
            platform=self.platform,
        )
        mixed = mixed.reshape(*mixed.shape[:2], width)
        update = self.part(Linear, x.shape[-1], c.output_bias, name="output")(mixed, deterministic)
        return self.dropout(update, c.attention_dropout, deterministic)


class GatedMLP(Block):
    """down(act(a) * b), a and b being the halves of up x."""

    config: ModernBertConfig

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        c = self.config
        joined = self.part(Linear, 2 * c.intermediate_size, c.mlp_bias, name="up")(x, deterministic)
        opened, gate = joined[..., : c.intermediate_size], joined[..., c.intermediate_size :]
        hidden = self.dropout(activation(c.activation)(opened) * gate, c.mlp_dropout, deterministic)
        return self.part(Linear, x.shape[-1], c.mlp_bias, name="down")(hidden, deterministic)


class Layer(Block):
    """One layer, told which of the two kinds it is and whether it is the lowest."""

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: Any,
        deterministic: bool,
        positions: jax.Array | None,
        is_global: jax.Array,
        is_first: jax.Array,
    ) -> tuple[jax.Array, None]:
        everywhere, nearby = context
        mask, *angles = jax.tree.map(lambda *pair: jnp.where(is_global, *pair), everywhere, nearby)
        # The embeddings were normalised just before, so the lowest has no norm of its own.
        normed = jnp.where(is_first, x, self.part(LayerNorm, False, name="attention_norm")(x))
        attend = self.part(AlternatingAttention, name="attention")
        x = at(x, positions) + attend(normed, mask, tuple(angles), deterministic, positions)
        normed = self.part(LayerNorm, False, name="mlp_norm")(x)
        return x + self.part(GatedMLP, name="mlp")(normed, deterministic), None


class ModernBert(Trunk):
    """A ModernBERT trunk; the hidden states are those after the final norm.

    Args:
      config: `ModernBertConfig`.
      dtype: what the trunk computes in.
      param_dtype: what its parameters are held in.
      lora_dropout: rate on the input of low-rank updates.
      platform: what its programs are for, as in `backbones.build`.
      unroll: layers a step of the scan, as in `backbones.build`.
      remat: whether the backward pass recomputes each layer.
      right_padded: as in `backbones.build`.
      single: a trunk of one layer whose parameters are not stacked, for `top`.

    Called as every trunk is. Positions are relative, so padding on the left shifts nothing.

    Raises:
      ValueError: more tokens than `config.max_positions`, or shapes that differ.
    """

    config: ModernBertConfig

    def setup(self) -> None:
        self.embeddings = self.part(Embeddings)
        self.layers = self.stack(Layer)
        self.final_norm = self.part(LayerNorm, use_bias=False)

    def embed(self, input_ids: jax.Array, deterministic: bool) -> jax.Array:
        x = self.embeddings(input_ids)
        return self.dropout(x, self.config.hidden_dropout, deterministic)

    def context(self, attention_mask: jax.Array) -> Any:
        c, tokens = self.config, attention_mask.shape[1]
        place = jnp.arange(tokens)
        near = jnp.abs(place[:, None] - place[None, :]) <= c.local_attention // 2
        everywhere = jnp.broadcast_to(
            attention_mask[:, None, :], (attention_mask.shape[0], tokens, tokens)
        )
        kinds = ((everywhere, c.rope_theta), (everywhere & near[None], c.local_theta))
        return tuple(
            (mask, *rotary_angles(tokens, c.head_dim, theta, self.dtype)) for mask, theta in kinds
        )

    def each(self) -> tuple[jax.Array, ...]:
        c = self.config
        numbers = range(c.first_layer, c.first_layer + c.num_layers)
        kinds = [c.global_layers[number] for number in numbers]
        return jnp.array(kinds, bool), jnp.array([number == 0 for number in numbers], bool)

    def finish(self, x: jax.Array) -> jax.Array:
        return self.final_norm(x)


def _layers(source):
    count = fields.size(source, "num_hidden_layers", most=fields.MAX_LAYERS)
    kinds = source.get("layer_types")
    if kinds is None:
        every = fields.size(
            {"global_attn_every_n_layers": _EVERY} | source, "global_attn_every_n_layers"
        )
        return tuple(number % every == 0 for number in range(count))
    if not isinstance(kinds, list) or len(kinds) != count:
        raise BackboneError(f"layer_types must be a list of {count}, got {shown(kinds)}")
    other = next((kind for kind in kinds if kind not in _KINDS), None)
    if other is not None:
        raise BackboneError(f"layer_types holds {shown(other)}; one of {', '.join(_KINDS)}")
    return tuple(kind == "full_attention" for kind in kinds)


def _thetas(source):
    parameters = source.get("rope_parameters") or {}
    if not isinstance(parameters, dict):
        raise BackboneError(f"rope_parameters must be an object, got {shown(parameters)}")
    found: dict[str, float] = {}
    for kind, (field, default) in _THETAS.items():
        given = parameters.get(kind) or {}
        if not isinstance(given, dict):
            raise BackboneError(f"rope_parameters: {kind} must be an object, got {shown(given)}")
        # transformers 4 wrote the bases apart; null is that of the other layers there.
        if source.get(field, default) is None:
            old = found.get("full_attention", default)
        else:
            old = float(fields.number(source, field, default))
        one = {"model_type": source["model_type"], "rope_theta": old, "rope_parameters": given}
        one["rope_scaling"] = source.get("rope_scaling")
        found[kind], _ = decoder_files.read_rope(one, {})
    return found


def _read(source: dict) -> ModernBertConfig:
    width, num_heads = fields.heads(source, "hidden_size", "num_attention_heads")
    for field in ("norm_bias", "classifier_bias"):
        fields.refuse(source, field, (None, False))
    fields.refuse(source, "classifier_activation", (None, "gelu"))
    fields.refuse(source, "classifier_pooling", (None, "cls", "mean"))
    mean = source.get("classifier_pooling") == "mean"
    thetas, bias = _thetas(source), fields.flag(source, "attention_bias", False)
    layers = _layers(source)
    return ModernBertConfig(
        family="modernbert",
        vocab_size=fields.size(source, "vocab_size"),
        hidden_size=width,
        num_layers=len(layers),
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=width // num_heads,
        intermediate_size=fields.size(source, "intermediate_size"),
        max_positions=fields.size(source, "max_position_embeddings"),
        norm_eps=fields.number(source, "norm_eps", 1e-5),
        activation=source.get("hidden_activation", "gelu"),
        hidden_dropout=fields.rate(source, "embedding_dropout", 0.0),
        attention_dropout=fields.rate(source, "attention_dropout", 0.0),
        mlp_dropout=fields.rate(source, "mlp_dropout", 0.0),
        pad_token_id=fields.pad_token(source, None),
        pooling="mean" if mean else "first",
        rope_theta=thetas["full_attention"],
        local_theta=thetas["sliding_attention"],
        global_layers=layers,
        local_attention=fields.size({"local_attention": _WINDOW} | source, "local_attention"),
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=fields.flag(source, "mlp_bias", False),
        initializer_range=fields.number(source, "initializer_range", 0.02),
        tie_word_embeddings=fields.flag(source, "tie_word_embeddings", True),
    )


def _write(config: BackboneConfig) -> dict:
    assert isinstance(config, ModernBertConfig)
    thetas = {"full_attention": config.rope_theta, "sliding_attention": config.local_theta}
    return {
        "model_type": "modernbert",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_positions,
        "norm_eps": config.norm_eps,
        "norm_bias": False,
        "hidden_activation": config.activation,
        "embedding_dropout": config.hidden_dropout,
        "attention_dropout": config.attention_dropout,
        "mlp_dropout": config.mlp_dropout,
        "pad_token_id": config.pad_token_id,
        "attention_bias": config.qkv_bias,
        "mlp_bias": config.mlp_bias,
        "local_attention": config.local_attention,
        "layer_types": [_KINDS[is_global] for is_global in config.global_layers],
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()
        },
        # The next two are where transformers 4 looks.
        "global_rope_theta": config.rope_theta,
        "local_rope_theta": config.local_theta,
        "classifier_activation": "gelu",
        "classifier_bias": False,
        **_POOLINGS[config.pooling or "first"],
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def _tensors(config: BackboneConfig) -> list[names.Tensor]:
    width, inner = config.hidden_size, config.intermediate_size
    query = config.num_heads * config.head_dim
    found = [
        names.table(("embeddings", "word"), "embeddings.tok_embeddings", config.vocab_size, width)
    ]
    matrices = {
        ("attention", "qkv"): ("attn.Wqkv", (3 * query, width), config.qkv_bias),
        ("attention", "output"): ("attn.Wo", (width, query), config.output_bias),
        ("mlp", "up"): ("mlp.Wi", (2 * inner, width), config.mlp_bias),
        ("mlp", "down"): ("mlp.Wo", (width, inner), config.mlp_bias),
    }
    for path, (module, shape, has_bias) in matrices.items():
        found += names.matrix(("layers", *path), f"layers.{{}}.{module}", shape, has_bias)
    norms = {
        ("embeddings", "norm"): ("embeddings.norm", 0),
        ("layers", "attention_norm"): ("layers.{}.attn_norm", 1),
        ("layers", "mlp_norm"): ("layers.{}.mlp_norm", 0),
        ("final_norm",): ("final_norm", 0),
    }
    for place, (module, first) in norms.items():
        found += names.norm(place, module, width, bias=False, first=first)
    return found


FAMILY = Family(
    name="modernbert",
    title="ModernBERT",
    module=ModernBert,
    prefix="model.",
    tensors=_tensors,
    ignored=(r"head\..*", r"decoder\..*", r"classifier\..*", r"drop\..*", r"qa_outputs\..*"),
    read=_read,
    write=_write,
    classifier=Classifier(
        "ModernBertForSequenceClassification",
        _POOLINGS,
        ("head", "classifier"),
        {
            ("dense", "kernel"): "head.dense.weight",
            ("norm", "scale"): "head.norm.weight",
            ("out_proj", "kernel"): "classifier.weight",
            ("out_proj", "bias"): "classifier.bias",
        },
        "gelu",
    ),
)
