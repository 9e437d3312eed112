"""Trunks from Hugging Face checkpoints and back.

Axes: B batch, T tokens, D width, L layers, I in, O out.
"""

import functools
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from dwa_jax.backbones import files, names
from dwa_jax.backbones.config import BackboneConfig, BackboneError, find_family
from dwa_jax.backbones.layers import Trunk
from dwa_jax.messages import shown

# How many tensors an error names before it only counts the rest.
NAMED = 10


def build(
    config: BackboneConfig,
    *,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    remat: bool = False,
    unroll: int = 0,
    lora_dropout: float = 0.0,
    platform: str = "",
    right_padded: bool = False,
) -> Trunk:
    """Makes the module of a configuration.

    Args:
      config: the trunk's configuration.
      dtype: what the trunk computes in.
      param_dtype: what its parameters are held in.
      remat: whether the backward pass recomputes each layer.
      unroll: layers a step of the scan, all of them at most; 0: all of up to 12 on a CPU
        (without remat), else 1.
      lora_dropout: dropout rate on the input of low-rank updates.
      platform: what its programs are for, "cpu" or "gpu"; "" is JAX's default where they are
        traced. To be given where one machine compiles for another.
      right_padded: whether every mask will have its zeros on the right alone, as batches of
        `dwa_jax.data` have; then a GPU's attention is fused where it can be.

    Returns:
      The family's trunk.

    Raises:
      BackboneError: an unknown family.
    """
    module: type[Trunk] = find_family(config.family).module
    return module(
        config,
        dtype=dtype,
        param_dtype=param_dtype,
        lora_dropout=lora_dropout,
        platform=platform,
        right_padded=right_padded,
        unroll=unroll,
        remat=remat,
    )


def init(key: jax.Array, module: Trunk) -> dict:
    """Draws fresh parameters: matrices from N(0, initializer_range^2), biases 0, norms 1.

    Args:
      key: PRNG key.
      module: from `build`.

    Returns:
      The parameter tree, in the module's `param_dtype`.
    """
    return _draw(key, module)


# Compiled, so that the forward pass that shapes the tree is never computed; once a module.
@functools.partial(jax.jit, static_argnums=1)
def _draw(key, module):
    ids = jnp.zeros((1, 1), jnp.int32)
    return module.init(key, ids, jnp.ones_like(ids))["params"]


def load(
    path_or_id: str | pathlib.Path,
    *,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    **options: Any,
) -> tuple[Trunk, dict]:
    """Loads a trunk from a local folder or the Hugging Face hub.

    Heads and buffers in the file are skipped; the names may carry the family's
    prefix or not. No code from the folder is ever run.

    Args:
      path_or_id: a folder, or a hub id such as "FacebookAI/roberta-large".
      dtype: what the trunk computes in.
      param_dtype: what its parameters are held in.
      **options: those of `build`.

    Returns:
      (module, params), to be called as at the head of `dwa_jax.backbones`.

    Raises:
      BackboneError: nothing found, an unsupported configuration, a damaged file, or
        tensors that are missing, unexpected or of another shape; names them.
    """
    folder = files.locate(path_or_id)
    config = BackboneConfig.from_huggingface(files.read_json(folder / files.CONFIG))
    module = build(config, dtype=dtype, param_dtype=param_dtype, **options)
    with files.open_tensors(folder) as tensors:
        params = _assemble(config, tensors, np.dtype(param_dtype), folder)
    return module, params


def _assemble(config, tensors, dtype, folder):
    family, layers = find_family(config.family), config.num_layers
    # First, because the names of so many layers may fill the memory.
    if layers > len(tensors):
        raise BackboneError(
            f"{folder}: the configuration says {layers} layers, the files hold "
            f"{len(tensors)} tensors"
        )
    table = family.tensors(config)
    wanted = {name: entry.shape for entry in table for name in entry.names(layers)}
    found, problems = {}, []
    for name, tensor in tensors.items():
        bare = _bare_name(name, family.prefix)
        if bare not in wanted:
            if not any(re.fullmatch(pattern, bare) for pattern in family.ignored):
                problems.append(f"unexpected {shown(name)}")
        elif bare in found:
            problems.append(f"{bare} twice, with and without prefix {family.prefix!r}")
        else:
            found[bare] = tensor
            if tensor[0] != wanted[bare]:
                problems.append(f"{name} is {tensor[0]}, the configuration says {wanted[bare]}")
    problems += [f"missing {name}" for name in wanted if name not in found]
    if problems:
        rest = len(problems) - NAMED
        more = [f"and {rest} more"] if rest > 0 else []
        raise BackboneError(f"{folder}: {'; '.join(problems[:NAMED] + more)}")

    params: dict[str, Any] = {}
    for entry in table:
        parts = [found[name][1] for name in entry.names(layers)]
        # Filled in place, one file tensor at a time: no second copy of the leaf.
        shape = entry.shape[::-1] if entry.transpose else entry.shape
        stacked = np.empty((entry.first + len(parts), *shape), dtype)
        stacked[: entry.first] = 1
        for i, (read, name) in enumerate(
            zip(parts, entry.names(layers), strict=True), start=entry.first
        ):
            value = read()
            if not jnp.issubdtype(value.dtype, jnp.floating):
                raise BackboneError(f"{folder}: {name} is {value.dtype}, not floating point")
            stacked[i] = value.T if entry.transpose else value
        tree = params
        for key in entry.path[:-1]:
            tree = tree.setdefault(key, {})
        # A copy, because an array that shares numpy's memory could not be donated.
        tree[entry.path[-1]] = jnp.array(stacked if entry.stacked else stacked[0], copy=True)
    return params


def _bare_name(name, prefix):
    name = name.removeprefix(prefix)
    # Checkpoints converted from TensorFlow still name a norm's weights this way.
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)


def to_huggingface(config: BackboneConfig, params: dict, *, prefix: str = "") -> dict:
    """Names a parameter tree the way a Hugging Face checkpoint does.

    Args:
      config: the trunk's configuration.
      params: its parameter tree; a tree of gradients is named just as well.
      prefix: put before every name, such as "roberta." or "model.".

    Returns:
      name -> contiguous numpy array, in the parameters' dtype; matrices are (O, I).

    Raises:
      BackboneError: a tree with other leaves than the configuration's; names them.
    """
    table = find_family(config.family).tensors(config)
    wanted, given = {entry.path for entry in table}, set(names.paths(params))
    if wanted != given:
        odd = sorted("/".join(path) for path in wanted ^ given)
        raise BackboneError(f"parameters missing or unexpected: {', '.join(odd[:NAMED])}")
    tensors = {}
    for entry in table:
        value = np.asarray(names.leaf(params, entry.path))
        if not entry.stacked:
            value = value[None]
        shape = entry.shape[::-1] if entry.transpose else entry.shape
        if value.shape[1:] != shape or (entry.stacked and len(value) != config.num_layers):
            raise BackboneError(f"{'/'.join(entry.path)} is {value.shape}, of layers of {shape}")
        present = value[entry.first :]
        for name, part in zip(entry.names(config.num_layers), present, strict=True):
            tensors[prefix + name] = np.ascontiguousarray(part.T if entry.transpose else part)
    return tensors


def head_to_huggingface(family: str, head: dict) -> dict[str, np.ndarray]:
    """Names a head's parameters the way the family's own classifier does.

    Args:
      family: a name in `backbones.FAMILIES`.
      head: what `heads.init` made of it.

    Returns:
      Name -> array; matrices are (outputs, D).

    Raises:
      BackboneError: an unknown family, or a head of another family's shape.
    """
    table = find_family(family).classifier.tensors
    given = {(module, leaf) for module, leaves in head.items() for leaf in leaves}
    if given != set(table):
        odd = sorted("/".join(path) for path in given ^ set(table))
        raise BackboneError(f"head of {family}: missing or unexpected {', '.join(odd)}")
    tensors = {}
    for (module, leaf), name in table.items():
        value = np.asarray(head[module][leaf])
        tensors[name] = np.ascontiguousarray(value.T if leaf == "kernel" else value)
    return tensors
