"""What a trunk is made of: one frozen configuration for every family.

`BackboneConfig` is read from, and written to, the dictionary of a Hugging Face
`config.json`. Anything in that dictionary that would change the numbers and that
these trunks do not compute is an error here, before a single weight is read.

No arrays, so no axis letters.
"""

import dataclasses
from typing import Any

from dwa_jax.backbones.registry import FAMILIES
from dwa_jax.backbones.rotary import Scaling
from dwa_jax.messages import shown

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
      pad_token_id: None where a model has none.
      positions_from_pad: whether a token's position is the number of tokens up to it that
        are not this id, counted from it on; else its place in the row.
      type_vocab_size: rows of the token type embedding; 0 for decoders.
      rope_theta: base of the rotary embedding; 0 where positions are learned.
      rope_scaling: what is done to its frequencies; None: nothing.
      window: tokens that a token of a decoder sees, itself included; None: all before it.
      qk_norm: whether each head's queries and keys are normalised.
      qkv_bias: whether query, key and value have biases.
      output_bias: whether the attention output has one.
      mlp_bias: whether the feed-forward matrices have them.
      initializer_range: standard deviation of a fresh matrix.
      tie_word_embeddings: whether the language model head shares the embedding;
        the trunk has no such head, a saved configuration keeps the flag.
      pooling: what the file says its classifier pools, in the words of `dwa_jax.heads`;
        None where it does not say.
      first_layer: what number the lowest layer has; 0 but for the upper part of a trunk.

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
    positions_from_pad: bool = False
    type_vocab_size: int = 0
    rope_theta: float = 0.0
    rope_scaling: Scaling | None = None
    window: int | None = None
    qk_norm: bool = False
    qkv_bias: bool = True
    output_bias: bool = True
    mlp_bias: bool = True
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    pooling: str | None = None
    first_layer: int = 0

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
        """Rows of the position table that no token has: up to that of the pad id.

        Raises:
          BackboneError: positions that are counted from a pad id that there is not.
        """
        if not self.positions_from_pad:
            return 0
        if self.pad_token_id is None:
            raise BackboneError(f"pad_token_id is None, but {self.family} counts positions from it")
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
        return find_family(source.get("model_type"), "model_type").read(source)

    def to_huggingface(self) -> dict:
        """Writes the dictionary that transformers 4 and 5 read as `config.json`.

        Returns:
          A dictionary with `model_type`; `from_huggingface` inverts it.
        """
        return find_family(self.family, "family").write(self)


def find_family(name: Any, field: str = "family") -> Any:
    """Returns the entry of a family.

    Args:
      name: what should be a family's name; anything JSON holds.
      field: where it was found, for the message.

    Raises:
      BackboneError: there is no such family; the message lists those that there are.
    """
    if name not in list(FAMILIES):  # a list, because not everything JSON holds is hashable
        quoted = repr(shown(name)) if isinstance(name, str) else shown(name)
        raise BackboneError(f"{field} {quoted} is not supported; one of {', '.join(FAMILIES)}")
    return FAMILIES[name]
