"""Each family's own sequence classifier: our head's leaves beside its tensors' names.

Axes: D width, K outputs.
"""

from typing import NamedTuple

import numpy as np

from dwa_jax.backbones.config import BackboneError
from dwa_jax.backbones.families import FAMILIES


class Classifier(NamedTuple):
    """The classifier that transformers puts on one family's trunk.

    architecture: its class there.
    pooling: what it feeds to the head, in the words of `dwa_jax.heads`.
    modules: the modules that make up the head.
    tensors: path of our leaf -> tensor; a kernel, (in, out) here, is (out, in) there.
    """

    architecture: str
    pooling: str
    modules: tuple[str, ...]
    tensors: dict[tuple[str, str], str]


def _dense(first, second):
    return {
        ("dense", "kernel"): f"{first}.weight",
        ("dense", "bias"): f"{first}.bias",
        ("out_proj", "kernel"): f"{second}.weight",
        ("out_proj", "bias"): f"{second}.bias",
    }


_SCORE = {("score", "kernel"): "score.weight"}

CLASSIFIERS = {
    "bert": Classifier(
        "BertForSequenceClassification",
        "first",
        ("pooler", "classifier"),
        _dense("bert.pooler.dense", "classifier"),
    ),
    "roberta": Classifier(
        "RobertaForSequenceClassification",
        "first",
        ("classifier",),
        _dense("classifier.dense", "classifier.out_proj"),
    ),
    "llama": Classifier("LlamaForSequenceClassification", "last", ("score",), _SCORE),
    "qwen2": Classifier("Qwen2ForSequenceClassification", "last", ("score",), _SCORE),
}


def head_to_huggingface(family: str, head: dict) -> dict[str, np.ndarray]:
    """Names a head's parameters the way the family's own classifier does.

    Args:
      family: a name in `FAMILIES`.
      head: what `heads.init` made: {"dense", "out_proj"} or {"score"}.

    Returns:
      Name -> array; matrices are (K, D).

    Raises:
      BackboneError: an unknown family, or a head of another family's shape.
    """
    if family not in CLASSIFIERS:
        raise BackboneError(f"family {family!r} has no classifier; one of {', '.join(FAMILIES)}")
    table = CLASSIFIERS[family].tensors
    given = {(module, leaf) for module, leaves in head.items() for leaf in leaves}
    if given != set(table):
        odd = sorted("/".join(path) for path in given ^ set(table))
        raise BackboneError(f"head of {family}: missing or unexpected {', '.join(odd)}")
    tensors = {}
    for (module, leaf), name in table.items():
        value = np.asarray(head[module][leaf])
        tensors[name] = np.ascontiguousarray(value.T if leaf == "kernel" else value)
    return tensors
