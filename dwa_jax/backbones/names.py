"""What a family's table is made of: our parameter paths beside Hugging Face tensor names.

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
    first: the first layer that has the tensor; those below hold ones, which nothing reads.
    """

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]
    transpose: bool
    first: int = 0

    @property
    def stacked(self) -> bool:
        return self.path[0] == "layers"

    def names(self, num_layers: int) -> list[str]:
        """Every file tensor of this leaf, in the order of the layers that have it."""
        if not self.stacked:
            return [self.name]
        return [self.name.format(i) for i in range(self.first, num_layers)]


def matrices(
    config: BackboneConfig, layer: str, table: Mapping[tuple[str, str], tuple[str, str, str]]
) -> list[Tensor]:
    """Lists the matrices of every layer, with their biases where the configuration has them.

    Args:
      config: the trunk's configuration.
      layer: what a layer's tensors open with; `{}` stands for its number.
      table: (block, matrix) here -> (module there, rows, columns), these two being names of
        widths: "hidden", "inner", "query" or "key" (and value).
    """
    widths = {
        "hidden": config.hidden_size,
        "inner": config.intermediate_size,
        "query": config.num_heads * config.head_dim,
        "key": config.num_kv_heads * config.head_dim,
    }
    tensors = []
    for path, (module, out, into) in table.items():
        if path[0] == "mlp":
            has_bias = config.mlp_bias
        else:
            has_bias = config.output_bias if path[1] == "output" else config.qkv_bias
        shape = (widths[out], widths[into])
        tensors += matrix(("layers", *path), f"{layer}.{module}", shape, has_bias)
    return tensors


def matrix(
    path: tuple[str, ...], module: str, shape: tuple[int, int], has_bias: bool
) -> list[Tensor]:
    """Lists one matrix, of `shape` (O, I) in the file, and its bias."""
    tensors = [Tensor((*path, "kernel"), f"{module}.weight", shape, True)]
    if has_bias:
        tensors.append(Tensor((*path, "bias"), f"{module}.bias", shape[:1], False))
    return tensors


def norm(
    path: tuple[str, ...], module: str, width: int, *, bias: bool = True, first: int = 0
) -> list[Tensor]:
    """Lists a norm's weights; `first` as in `Tensor`."""
    tensors = [Tensor((*path, "scale"), f"{module}.weight", (width,), False, first)]
    if bias:
        tensors.append(Tensor((*path, "bias"), f"{module}.bias", (width,), False, first))
    return tensors


def table(path: tuple[str, ...], module: str, rows: int, width: int) -> Tensor:
    """Names an embedding's table."""
    return Tensor((*path, "embedding"), f"{module}.weight", (rows, width), False)


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
