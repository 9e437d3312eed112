"""Each family's own sequence classifier: our head's leaves beside its tensors' names.

No arrays, so no axis letters.
"""

from typing import Any, NamedTuple


class Classifier(NamedTuple):
    """The classifier that transformers puts on one family's trunk.

    Attributes:
      architecture: its class there.
      poolings: what it can feed to the head, in the words of `dwa_jax.heads`, and what
        its `config.json` says for each; the first is its default.
      modules: the modules that make up the head.
      tensors: path of our leaf -> tensor; a kernel, (in, out) here, is (out, in) there. The
        last module is the one that gives the outputs.
      activation: between the two matrices of a head that has two: one of
        `dwa_jax.heads.ACTIVATIONS`.
    """

    architecture: str
    poolings: dict[str, dict[str, Any]]
    modules: tuple[str, ...]
    tensors: dict[tuple[str, str], str]
    activation: str = "tanh"

    @property
    def pooling(self) -> str:
        """The default one."""
        return next(iter(self.poolings))

    @property
    def needs_pad_id(self) -> bool:
        """Whether transformers finds the pooled token by the pad id of its configuration."""
        return "last" in self.poolings


def dense_classifier(
    architecture: str,
    modules: tuple[str, ...],
    first: str,
    second: str,
    *,
    activation: str = "tanh",
) -> Classifier:
    """Makes the classifier of an encoder: dense, activation and out_proj on the first token.

    Args:
      architecture: its class in transformers.
      modules: the modules there that make up the head.
      first: the module there that is our `dense`.
      second: the one that is our `out_proj`.
      activation: one of `dwa_jax.heads.ACTIVATIONS`.
    """
    tensors = {
        ("dense", "kernel"): f"{first}.weight",
        ("dense", "bias"): f"{first}.bias",
        ("out_proj", "kernel"): f"{second}.weight",
        ("out_proj", "bias"): f"{second}.bias",
    }
    return Classifier(architecture, {"first": {}}, modules, tensors, activation)


def score_classifier(architecture: str) -> Classifier:
    """Makes the classifier of a decoder: one matrix without bias on the last token.

    Args:
      architecture: its class in transformers.
    """
    return Classifier(architecture, {"last": {}}, ("score",), {("score", "kernel"): "score.weight"})
