"""What a trunk is made of: one frozen configuration for every family.

`BackboneConfig` is read from, and written to, the dictionary of a Hugging Face
`config.json`. Anything in that dictionary that would change the numbers and that
these trunks do not compute is an error here, before a single weight is read.

No arrays, so no axis letters.
"""

import dataclasses

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish")


class BackboneError(ValueError):
    """A trunk that cannot be configured, found, read or written; the message says why."""


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """The shape and the constants of a trunk.

    Args:
      family: a name in `backbones.FAMILIES`.
      vocab_size: rows of the word embedding.
      hidden_size: width D of the hidden states.
      num_layers: layers L; 0 leaves the embeddings (and a decoder's final norm).
      num_heads: query heads H.
      num_kv_heads: key and value heads; divides `num_heads`.
      head_dim: width of one head.
      intermediate_size: width of the feed-forward block.
      max_positions: the longest sequence in tokens.
      norm_eps: added to the variance by every norm.
      activation: one of `ACTIVATIONS`.
      hidden_dropout: rate on embeddings and on each block's output (encoders).
      attention_dropout: rate on attention probabilities.
      pad_token_id: RoBERTa counts positions from it; None where a model has none.
      type_vocab_size: rows of the token type embedding; 0 for decoders.
      rope_theta: base of the rotary embedding; 0 for encoders.
      qkv_bias: whether query, key and value have biases.
      output_bias: whether the attention output has one.
      mlp_bias: whether the feed-forward matrices have them.
      initializer_range: standard deviation of a fresh matrix.
      tie_word_embeddings: whether the language model head shares the embedding;
        the trunk has no such head, a saved configuration keeps the flag.

    Raises:
      BackboneError: sizes that do not fit together.
    """

    family: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    max_positions: int
    norm_eps: float
    activation: str
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    pad_token_id: int | None = None
    type_vocab_size: int = 0
    rope_theta: float = 0.0
    qkv_bias: bool = True
    output_bias: bool = True
    mlp_bias: bool = True
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self):
        if self.num_heads % self.num_kv_heads:
            raise BackboneError(
                f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}"
            )
        if self.rope_theta and self.head_dim % 2:
            raise BackboneError(f"head_dim must be even for rotary positions, got {self.head_dim}")
        if self.activation not in ACTIVATIONS:
            raise BackboneError(
                f"hidden_act {self.activation!r} is not supported; one of {', '.join(ACTIVATIONS)}"
            )

    @classmethod
    def from_huggingface(cls, source: dict) -> "BackboneConfig":
        """Reads the dictionary of a Hugging Face `config.json`.

        Args:
          source: the parsed file, as written by transformers 4 or 5.

        Returns:
          The configuration.

        Raises:
          BackboneError: an unsupported `model_type`, a missing size, or a feature
            that would change the numbers and is not computed here; names the field.
        """
        return _family(source.get("model_type"), "model_type").read(source)

    def to_huggingface(self) -> dict:
        """Writes the dictionary that transformers 4 and 5 read as `config.json`.

        Returns:
          A dictionary with `model_type`; `from_huggingface` inverts it.
        """
        return _family(self.family, "family").write(self)


def _family(name, field):
    # Late, because the registry's modules take a BackboneConfig.
    from dwa_jax.backbones.families import FAMILIES

    if name not in FAMILIES:
        raise BackboneError(f"{field} {name!r} is not supported; one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def read_encoder(source: dict) -> BackboneConfig:
    """Reads a BERT or RoBERTa dictionary; see `BackboneConfig.from_huggingface`."""
    family = source["model_type"]
    _refuse(source, "position_embedding_type", (None, "absolute"))
    _refuse(source, "is_decoder", (None, False))
    _refuse(source, "add_cross_attention", (None, False))
    hidden_size, num_heads = _size(source, "hidden_size"), _size(source, "num_attention_heads")
    if hidden_size % num_heads:
        raise BackboneError(
            f"hidden_size {hidden_size} is not a multiple of num_attention_heads {num_heads}"
        )
    max_positions = _size(source, "max_position_embeddings")
    pad_token_id = source.get("pad_token_id", 1 if family == "roberta" else 0)
    if family == "roberta":
        if pad_token_id is None:
            raise BackboneError("pad_token_id is null, but RoBERTa counts positions from it")
        # The rows up to and including the pad id are never a real token's position.
        max_positions -= pad_token_id + 1
    return BackboneConfig(
        family=family,
        vocab_size=_size(source, "vocab_size"),
        hidden_size=hidden_size,
        num_layers=_size(source, "num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=hidden_size // num_heads,
        intermediate_size=_size(source, "intermediate_size"),
        max_positions=max_positions,
        norm_eps=source.get("layer_norm_eps", 1e-12),
        activation=source.get("hidden_act", "gelu"),
        hidden_dropout=source.get("hidden_dropout_prob", 0.1),
        attention_dropout=source.get("attention_probs_dropout_prob", 0.1),
        pad_token_id=pad_token_id,
        type_vocab_size=source.get("type_vocab_size", 2),
        initializer_range=source.get("initializer_range", 0.02),
        tie_word_embeddings=source.get("tie_word_embeddings", True),
    )


def read_decoder(source: dict) -> BackboneConfig:
    """Reads a Llama or Qwen2 dictionary; see `BackboneConfig.from_huggingface`."""
    family = source["model_type"]
    hidden_size, num_heads = _size(source, "hidden_size"), _size(source, "num_attention_heads")
    num_layers = _size(source, "num_hidden_layers")
    _refuse_sliding_window(source, num_layers)
    bias = bool(source.get("attention_bias", False))
    if family == "qwen2":
        _refuse(source, "attention_bias", (None, False))
        _refuse(source, "mlp_bias", (None, False))
    return BackboneConfig(
        family=family,
        vocab_size=_size(source, "vocab_size"),
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=source.get("num_key_value_heads") or num_heads,
        head_dim=source.get("head_dim") or hidden_size // num_heads,
        intermediate_size=_size(source, "intermediate_size"),
        max_positions=_size(source, "max_position_embeddings"),
        norm_eps=source.get("rms_norm_eps", 1e-6),
        activation=source.get("hidden_act", "silu"),
        attention_dropout=source.get("attention_dropout", 0.0),
        pad_token_id=source.get("pad_token_id"),
        rope_theta=_rope_theta(source),
        qkv_bias=family == "qwen2" or bias,
        output_bias=bias,
        mlp_bias=bool(source.get("mlp_bias", False)),
        initializer_range=source.get("initializer_range", 0.02),
        tie_word_embeddings=source.get("tie_word_embeddings", False),
    )


def write_encoder(config: BackboneConfig) -> dict:
    """Inverts `read_encoder`."""
    unused_rows = config.pad_token_id + 1 if config.family == "roberta" else 0
    return _write_common(config) | {
        "max_position_embeddings": config.max_positions + unused_rows,
        "layer_norm_eps": config.norm_eps,
        "hidden_dropout_prob": config.hidden_dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "type_vocab_size": config.type_vocab_size,
        "position_embedding_type": "absolute",
    }


def write_decoder(config: BackboneConfig) -> dict:
    """Inverts `read_decoder`."""
    target = _write_common(config) | {
        "num_key_value_heads": config.num_kv_heads,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "attention_dropout": config.attention_dropout,
        # transformers 4 reads the first, transformers 5 the second.
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"},
        "head_dim": config.head_dim,
    }
    if config.family == "llama":
        target |= {"attention_bias": config.output_bias, "mlp_bias": config.mlp_bias}
    return target


def _write_common(config):
    return {
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
        "hidden_act": config.activation,
        "pad_token_id": config.pad_token_id,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def _size(source, field):
    value = source.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BackboneError(f"{field} must be a positive integer, got {value!r}")
    return value


def _refuse(source, field, accepted):
    if source.get(field) not in accepted:
        raise BackboneError(
            f"{field} = {source[field]!r} is not supported for {source['model_type']}; "
            f"one of {', '.join(map(repr, accepted))}"
        )


def _refuse_sliding_window(source, num_layers):
    kinds = source.get("layer_types") or ["full_attention"]
    other = sorted(set(kinds) - {"full_attention"})
    if other:
        raise BackboneError(f"layer_types holds {', '.join(other)}; only full_attention")
    in_use = source.get("use_sliding_window") and source.get("sliding_window") is not None
    # Without layer_types, the layers from max_window_layers on are the windowed ones.
    windowed = not source.get("layer_types") and source.get("max_window_layers", 28) < num_layers
    if in_use and windowed:
        raise BackboneError(
            f"use_sliding_window with sliding_window = {source['sliding_window']} "
            "is not supported; only full attention"
        )


def _rope_theta(source):
    # transformers 5 writes rope_parameters; 4 wrote rope_theta and rope_scaling.
    parameters = source.get("rope_parameters") or {}
    for field in ("rope_parameters", "rope_scaling"):
        scaling = source.get(field) or {}
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind != "default":
            raise BackboneError(f"{field}: rope type {kind!r} is not supported; only 'default'")
        if scaling.get("partial_rotary_factor", 1.0) != 1.0:
            raise BackboneError(f"{field}: partial_rotary_factor other than 1 is not supported")
    _refuse(source, "partial_rotary_factor", (None, 1.0))
    return float(parameters.get("rope_theta", source.get("rope_theta", 10000.0)))
