"""What the library must know of a family of trunks: one entry, in one file.

No arrays, so no axis letters.
"""

from collections.abc import Callable
from typing import NamedTuple

from dwa_jax.backbones.classifier import Classifier
from dwa_jax.backbones.config import BackboneConfig
from dwa_jax.backbones.layers import Trunk
from dwa_jax.backbones.names import Tensor
from dwa_jax.backbones.registry import FAMILIES


class Family(NamedTuple):
    """One family of trunks.

    Attributes:
      name: its `model_type` in a `config.json`.
      title: how its authors write it.
      module: the Linen module.
      prefix: what its tensors' names open with inside a model that has a head.
      tensors: configuration -> table of names; PEFT finds its matrices by it, too.
      ignored: regular expressions of whole names (without prefix) that are no part of
        the trunk: heads, and buffers that are computed.
      read: `config.json` dictionary -> configuration.
      write: and back.
      classifier: gives our heads their pooling, their shape and their activation.
      scratch: sizes, as `from_scratch` takes them -> `config.json` dictionary, in the one
        family that trunks from scratch are of; None in the others.
    """

    name: str
    title: str
    module: type[Trunk]
    prefix: str
    tensors: Callable[[BackboneConfig], list[Tensor]]
    ignored: tuple[str, ...]
    read: Callable[[dict], BackboneConfig]
    write: Callable[[BackboneConfig], dict]
    classifier: Classifier
    scratch: Callable[..., dict] | None = None


def register(family: Family) -> None:
    """Adds a family to `backbones.FAMILIES`, so that everything knows it."""
    FAMILIES[family.name] = family


def from_scratch(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    heads: int,
    feed_forward: int,
    max_positions: int,
    pad_token_id: int,
) -> BackboneConfig:
    """Returns the configuration of a small trunk that starts from random weights.

    Args:
      vocab_size: tokens of its tokenizer.
      width: D.
      layers: L.
      heads: H; divides the width.
      feed_forward: width of the feed-forward block.
      max_positions: tokens of the longest text.
      pad_token_id: of its tokenizer.

    Raises:
      BackboneError: sizes that do not fit together.
    """
    makers = [family.scratch for family in FAMILIES.values() if family.scratch]
    source = makers[0](
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        heads=heads,
        feed_forward=feed_forward,
        max_positions=max_positions,
        pad_token_id=pad_token_id,
    )
    return BackboneConfig.from_huggingface(source)
