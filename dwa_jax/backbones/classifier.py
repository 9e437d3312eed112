"""Each family's own sequence classifier: our head's leaves beside its tensors' names.

No arrays, so no axis letters.
"""

from typing import NamedTuple


class Classifier(NamedTuple):
    """The classifier that transformers puts on one family's trunk.

    Attributes:
      architecture: its class there.
      pooling: what it feeds to the head, in the words of `dwa_jax.heads`.
      modules: the modules that make up the head.
      tensors: path of our leaf -> tensor; a kernel, (in, out) here, is (out, in) there.
    """

    architecture: str
    pooling: str
    modules: tuple[str, ...]
    tensors: dict[tuple[str, str], str]


def dense_classifier(
    architecture: str, modules: tuple[str, ...], first: str, second: str
) -> Classifier:
    """Makes the classifier of an encoder: dense, tanh and out_proj on the first token.

    Args:
      architecture: its class in transformers.
      modules: the modules there that make up the head.
      first: the module there that is our `dense`.
      second: the one that is our `out_proj`.
    """
    tensors = {
        ("dense", "kernel"): f"{first}.weight",
        ("dense", "bias"): f"{first}.bias",
        ("out_proj", "kernel"): f"{second}.weight",
        ("out_proj", "bias"): f"{second}.bias",
    }
    return Classifier(architecture, "first", modules, tensors)


def score_classifier(architecture: str) -> Classifier:
    """Makes the classifier of a decoder: one matrix without bias on the last token.

    Args:
      architecture: its class in transformers.
    """
    return Classifier(architecture, "last", ("score",), {("score", "kernel"): "score.weight"})
