"""What a trunk is made of: one frozen configuration for every family.

`BackboneConfig` is read from, and written to, the dictionary of a Hugging Face
`config.json`. Anything in that dictionary that would change the numbers and that
these trunks do not compute is an error here, before a single weight is read.

No arrays, so no axis letters.
"""

import dataclasses
import sys

from dwa_jax.backbones.messages import shown

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish")

# More layers than any model has: they are named one by one, so the number must be bounded.
MAX_LAYERS = 10_000
# Tokens and positions are 32-bit integers, and no other size is larger than theirs.
MAX_SIZE = 2**31 - 1
FLOAT_MAX = sys.float_info.max  # JSON has integers beyond it


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

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise BackboneError(
                f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}"
            )
        if self.rope_theta and self.head_dim % 2:
            raise BackboneError(f"head_dim must be even for rotary positions, got {self.head_dim}")
        if self.activation not in ACTIVATIONS:
            raise BackboneError(
                f"hidden_act {shown(self.activation)!r} is not supported; "
                f"one of {', '.join(ACTIVATIONS)}"
            )

    @property
    def unused_positions(self) -> int:
        """Rows of the position table that no token has: RoBERTa's, up to that of the pad id.

        Raises:
          BackboneError: a RoBERTa without a pad id.
        """
        if self.family != "roberta":
            return 0
        if self.pad_token_id is None:
            raise BackboneError("pad_token_id is None, but RoBERTa counts positions from it")
        return self.pad_token_id + 1

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

    if name not in list(FAMILIES):  # a list, because the name may be anything JSON holds
        quoted = repr(shown(name)) if isinstance(name, str) else shown(name)
        raise BackboneError(f"{field} {quoted} is not supported; one of {', '.join(FAMILIES)}")
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
    pad_token_id = _token(source, 1 if family == "roberta" else 0)
    if family == "roberta":
        if pad_token_id is None:
            raise BackboneError("pad_token_id is null, but RoBERTa counts positions from it")
        if not 0 <= pad_token_id < max_positions - 1:
            raise BackboneError(
                f"pad_token_id {pad_token_id} leaves no position: RoBERTa counts them from it, "
                f"and max_position_embeddings is {max_positions}"
            )
        # The rows up to and including the pad id are never a real token's position.
        max_positions -= pad_token_id + 1
    return BackboneConfig(
        family=family,
        vocab_size=_size(source, "vocab_size"),
        hidden_size=hidden_size,
        num_layers=_size(source, "num_hidden_layers", most=MAX_LAYERS),
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=hidden_size // num_heads,
        intermediate_size=_size(source, "intermediate_size"),
        max_positions=max_positions,
        norm_eps=_number(source, "layer_norm_eps", 1e-12),
        activation=source.get("hidden_act", "gelu"),
        hidden_dropout=_rate(source, "hidden_dropout_prob", 0.1),
        attention_dropout=_rate(source, "attention_probs_dropout_prob", 0.1),
        pad_token_id=pad_token_id,
        type_vocab_size=_size({"type_vocab_size": 2} | source, "type_vocab_size"),
        initializer_range=_number(source, "initializer_range", 0.02),
        tie_word_embeddings=_flag(source, "tie_word_embeddings", True),
    )


def read_decoder(source: dict) -> BackboneConfig:
    """Reads a Llama or Qwen2 dictionary; see `BackboneConfig.from_huggingface`."""
    family = source["model_type"]
    hidden_size, num_heads = _size(source, "hidden_size"), _size(source, "num_attention_heads")
    num_layers = _size(source, "num_hidden_layers", most=MAX_LAYERS)
    _refuse_sliding_window(source, num_layers)
    bias = _flag(source, "attention_bias", False)
    # Older files leave these two out, or null, where they follow from the others.
    derived = {"num_key_value_heads": num_heads, "head_dim": max(1, hidden_size // num_heads)}
    derived |= {field: source[field] for field in derived if source.get(field) is not None}
    if family == "qwen2":
        _refuse(source, "attention_bias", (None, False))
        _refuse(source, "mlp_bias", (None, False))
    return BackboneConfig(
        family=family,
        vocab_size=_size(source, "vocab_size"),
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=_size(derived, "num_key_value_heads"),
        head_dim=_size(derived, "head_dim"),
        intermediate_size=_size(source, "intermediate_size"),
        max_positions=_size(source, "max_position_embeddings"),
        norm_eps=_number(source, "rms_norm_eps", 1e-6),
        activation=source.get("hidden_act", "silu"),
        attention_dropout=_rate(source, "attention_dropout", 0.0),
        pad_token_id=_token(source, None),
        rope_theta=_rope_theta(source),
        qkv_bias=family == "qwen2" or bias,
        output_bias=bias,
        mlp_bias=_flag(source, "mlp_bias", False),
        initializer_range=_number(source, "initializer_range", 0.02),
        tie_word_embeddings=_flag(source, "tie_word_embeddings", False),
    )


def write_encoder(config: BackboneConfig) -> dict:
    """Inverts `read_encoder`."""
    return _write_common(config) | {
        "max_position_embeddings": config.max_positions + config.unused_positions,
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


def _size(source, field, most=MAX_SIZE):
    value = source.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise BackboneError(
            f"{field} must be a positive integer of at most {most}, got {shown(value)}"
        )
    return value


def _number(source, field, default):
    value = source.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= FLOAT_MAX:
        raise BackboneError(f"{field} must be a finite number above 0, got {shown(value)}")
    return value


def _rate(source, field, default):
    value = source.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise BackboneError(f"{field} must be a number in [0, 1), got {shown(value)}")
    return value


def _flag(source, field, default):
    value = source.get(field, default)
    if value is not None and not isinstance(value, bool):
        raise BackboneError(f"{field} must be true or false, got {shown(value)}")
    return bool(value)


def _token(source, default):
    value = source.get("pad_token_id", default)
    # Some files write -1 for no token.
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int) or not -1 <= value <= MAX_SIZE
    ):
        raise BackboneError(f"pad_token_id must be a token's id or null, got {shown(value)}")
    return value


def _refuse(source, field, accepted):
    if source.get(field) not in accepted:
        raise BackboneError(
            f"{field} = {shown(source[field])} is not supported for {source['model_type']}; "
            f"one of {', '.join(map(repr, accepted))}"
        )


def _refuse_sliding_window(source, num_layers):
    kinds = source.get("layer_types") or ["full_attention"]
    if not isinstance(kinds, list):
        raise BackboneError(f"layer_types must be a list, got {shown(kinds)}")
    other = next((kind for kind in kinds if kind != "full_attention"), None)
    if other is not None:
        raise BackboneError(f"layer_types holds {shown(other)}; only full_attention")
    in_use = source.get("use_sliding_window") and source.get("sliding_window") is not None
    # Without layer_types, the layers from max_window_layers on are the windowed ones.
    first = source.get("max_window_layers", 28)
    if isinstance(first, bool) or not isinstance(first, int):
        raise BackboneError(f"max_window_layers must be an integer, got {shown(first)}")
    if in_use and not source.get("layer_types") and first < num_layers:
        raise BackboneError(
            f"use_sliding_window with sliding_window = {shown(source['sliding_window'])} "
            "is not supported; only full attention"
        )


def _rope_theta(source):
    # transformers 5 writes rope_parameters; 4 wrote rope_theta and rope_scaling.
    for field in ("rope_parameters", "rope_scaling"):
        scaling = source.get(field) or {}
        if not isinstance(scaling, dict):
            raise BackboneError(f"{field} must be an object, got {shown(scaling)}")
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind != "default":
            raise BackboneError(
                f"{field}: rope type {shown(kind)!r} is not supported; only 'default'"
            )
        if scaling.get("partial_rotary_factor", 1.0) != 1.0:
            raise BackboneError(f"{field}: partial_rotary_factor other than 1 is not supported")
    _refuse(source, "partial_rotary_factor", (None, 1.0))
    parameters = source.get("rope_parameters") or {}
    written = parameters if "rope_theta" in parameters else source
    return float(_number(written, "rope_theta", 10000.0))
