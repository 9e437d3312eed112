"""The one table of each family: our parameter paths beside Hugging Face tensor names.

Loading and saving both read it, so they cannot disagree.

Axes: L layers, I in, O out.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dwa_jax.backbones.config import BackboneConfig


class Tensor(NamedTuple):
    """One leaf of a parameter tree and the file tensors it is made of.

    path: keys from the root of the tree; a path under "layers" is stacked, (L, ...).
    name: the tensor's name without prefix; `{}` stands for the layer.
    shape: its shape in the file; a matrix is (O, I) there.
    transpose: whether the leaf is its transpose, (I, O).
    """

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]
    transpose: bool

    @property
    def stacked(self) -> bool:
        return self.path[0] == "layers"

    def names(self, num_layers: int) -> list[str]:
        """Every file tensor of this leaf, in the order of the layers."""
        return [self.name.format(i) for i in range(num_layers)] if self.stacked else [self.name]


# module path: (file module, rows and columns as fields of `_widths`, whether it has a bias)
ENCODER_MATRICES = {
    ("attention", "query"): ("attention.self.query", "query", "hidden"),
    ("attention", "key"): ("attention.self.key", "key", "hidden"),
    ("attention", "value"): ("attention.self.value", "key", "hidden"),
    ("attention", "output"): ("attention.output.dense", "hidden", "query"),
    ("mlp", "up"): ("intermediate.dense", "inner", "hidden"),
    ("mlp", "down"): ("output.dense", "hidden", "inner"),
}
ENCODER_NORMS = {"attention_norm": "attention.output.LayerNorm", "mlp_norm": "output.LayerNorm"}
DECODER_MATRICES = {
    ("attention", "query"): ("self_attn.q_proj", "query", "hidden"),
    ("attention", "key"): ("self_attn.k_proj", "key", "hidden"),
    ("attention", "value"): ("self_attn.v_proj", "key", "hidden"),
    ("attention", "output"): ("self_attn.o_proj", "hidden", "query"),
    ("mlp", "gate"): ("mlp.gate_proj", "inner", "hidden"),
    ("mlp", "up"): ("mlp.up_proj", "inner", "hidden"),
    ("mlp", "down"): ("mlp.down_proj", "hidden", "inner"),
}
DECODER_NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}


def encoder_tensors(config: BackboneConfig) -> list[Tensor]:
    """Lists the tensors of BERT or RoBERTa.

    Args:
      config: the trunk's configuration.

    Returns:
      One `Tensor` a leaf of the parameter tree.
    """
    width = config.hidden_size
    rows = {
        "word": config.vocab_size,
        "position": config.max_positions + config.unused_positions,
        "token_type": config.type_vocab_size,
    }
    tensors = [
        Tensor(
            ("embeddings", ours, "embedding"),
            f"embeddings.{ours}_embeddings.weight",
            (count, width),
            False,
        )
        for ours, count in rows.items()
    ]
    tensors += _norm(("embeddings", "norm"), "embeddings.LayerNorm", width)
    for path, (module, out, into) in ENCODER_MATRICES.items():
        tensors += _matrix(config, path, f"encoder.layer.{{}}.{module}", out, into)
    for ours, module in ENCODER_NORMS.items():
        tensors += _norm(("layers", ours), f"encoder.layer.{{}}.{module}", width)
    return tensors


def decoder_tensors(config: BackboneConfig) -> list[Tensor]:
    """Lists the tensors of Llama or Qwen2.

    Args:
      config: the trunk's configuration.

    Returns:
      One `Tensor` a leaf of the parameter tree.
    """
    width = config.hidden_size
    tensors = [
        Tensor(
            ("embeddings", "word", "embedding"),
            "embed_tokens.weight",
            (config.vocab_size, width),
            False,
        )
    ]
    for path, (module, out, into) in DECODER_MATRICES.items():
        tensors += _matrix(config, path, f"layers.{{}}.{module}", out, into)
    for ours, module in DECODER_NORMS.items():
        tensors += _norm(("layers", ours), f"layers.{{}}.{module}", width, bias=False)
    return tensors + _norm(("final_norm",), "norm", width, bias=False)


def _matrix(config, path, module, out, into):
    widths = {
        "hidden": config.hidden_size,
        "inner": config.intermediate_size,
        "query": config.num_heads * config.head_dim,
        "key": config.num_kv_heads * config.head_dim,
    }
    if path[0] == "mlp":
        has_bias = config.mlp_bias
    else:
        has_bias = config.output_bias if path[1] == "output" else config.qkv_bias
    path = ("layers", *path)
    shape = (widths[out], widths[into])
    tensors = [Tensor((*path, "kernel"), f"{module}.weight", shape, True)]
    if has_bias:
        tensors.append(Tensor((*path, "bias"), f"{module}.bias", shape[:1], False))
    return tensors


def _norm(path, module, width, bias=True):
    tensors = [Tensor((*path, "scale"), f"{module}.weight", (width,), False)]
    if bias:
        tensors.append(Tensor((*path, "bias"), f"{module}.bias", (width,), False))
    return tensors


def leaf(tree: Mapping, path: tuple[str, ...]) -> Any:
    """Follows a path into a nested dictionary; KeyError where it ends early."""
    for key in path:
        tree = tree[key]
    return tree


def paths(tree: Mapping, root: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Lists the path of every leaf of a nested dictionary."""
    found: list[tuple[str, ...]] = []
    for key, value in tree.items():
        here = (*root, key)
        found += paths(value, here) if isinstance(value, Mapping) else [here]
    return found
