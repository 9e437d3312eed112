"""Where arrays live: a batch's rows spread over all devices, parameters whole or split.

A mesh has two axes. Over "data" every device holds all parameters; over "fsdp" the large ones are
split, and gathered one layer at a time where they are used (Rajbhandari et al. 2020, "ZeRO"). Rows
spread over both. Batch statistics are sums over the rows, so the compiler's collectives make them
those of the global batch, and any mesh gives the same step.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dwa_jax import mesh_sizes, processes

AXES = ("data", "fsdp")
# What a stack of layers is called in a path; its first axis is never split, or a loop over the
# layers would have to gather all of them.
_STACK = "layers"
# Numbers below which a matrix stays whole: gathering it would cost its start and no more.
_SMALL = 4096


def make_mesh(sizes: str = "", devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh with the axes "data" and "fsdp".

    Args:
      sizes: as the configuration's key `mesh` gives them; "": all for "data".
      devices: by default all there are, of every process.

    Raises:
      ValueError: the sizes do not make up the devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    fitted = mesh_sizes.parse(sizes).fitted(len(devices))
    return Mesh(np.asarray(devices).reshape(fitted), AXES)


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh that splits nothing but rows, by default over this process's devices."""
    return make_mesh("", jax.local_devices() if devices is None else devices)


def spec_of(shape: Sequence[int], parts: int, *, stacked: bool = False) -> PartitionSpec:
    """Says how an array is split over "fsdp": by its largest axis that divides.

    Vectors and small matrices stay whole.

    Args:
      shape: of the array.
      parts: devices of the axis "fsdp".
      stacked: whether the first axis counts layers.
    """
    own = tuple(shape[1:] if stacked else shape)
    able = [axis for axis, size in enumerate(own) if size % parts == 0]
    if parts == 1 or len(own) < 2 or math.prod(own) < _SMALL or not able:
        return PartitionSpec()
    # Of two that are equal the later one.
    chosen = max(able, key=lambda axis: (own[axis], axis)) + stacked
    return PartitionSpec(*[None] * chosen, "fsdp")


def parameter_shardings(tree: Any, mesh: Mesh) -> Any:
    """Returns where every leaf of a tree of shared parameters, or of their moments, belongs.

    Args:
      tree: arrays or shapes; those of a path with "layers" in it are stacks of layers.
      mesh: from `make_mesh`.

    Returns:
      A tree of shardings.
    """
    parts = mesh.shape["fsdp"]

    def one(path, leaf):
        names = [getattr(key, "key", None) for key in path]
        return NamedSharding(mesh, spec_of(leaf.shape, parts, stacked=_STACK in names))

    return jax.tree_util.tree_map_with_path(one, tree)


def everywhere(tree: Any, mesh: Mesh) -> Any:
    """Returns shardings that put a whole copy of every leaf on every device."""
    return jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), tree)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts a whole copy of a tree of arrays on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def gathered(leaf: jax.Array, mesh: Mesh) -> jax.Array:
    """Gathers one layer's matrix where it is used; its gradient is split again.

    Args:
      leaf: no stack.
      mesh: over whose axis "fsdp" it is split.
    """
    spec = spec_of(leaf.shape, mesh.shape["fsdp"])
    if spec == PartitionSpec():
        return leaf

    # Split first, so that what comes before stays so; a custom derivative would be kept whole.
    here = jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))
    return jax.lax.with_sharding_constraint(here, NamedSharding(mesh, PartitionSpec()))


def on_all(tree: Any, mesh: Mesh) -> Any:
    """Has a program leave a whole copy of each array of a tree on every device."""
    return jax.lax.with_sharding_constraint(tree, everywhere(tree, mesh))


def splits_parameters(mesh: Mesh) -> bool:
    """Says whether parameters are split over a mesh."""
    return mesh.shape["fsdp"] > 1


def gathers_again(primitive: Any, *_: Any, **__: Any) -> bool:
    """What `jax.checkpoint` may keep of a layer for the way back: all but what it gathered."""
    return primitive.name != "sharding_constraint"


def by_rows(x: jax.Array, mesh: Mesh) -> jax.Array:
    """Keeps an array (B, ...) where its rows are, so that weights travel and no activations."""
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(AXES)))


def shard_rows(batch: dict[str, np.ndarray], mesh: Mesh, parts: int = 1) -> dict[str, jax.Array]:
    """Spreads a batch's rows over the devices.

    Where they do not divide, rows that count for nothing make up the number: no label, and
    attention on the first position alone, so that pooling stays defined. They come last.

    Args:
      batch: arrays of B rows each.
      mesh: of D devices.
      parts: M, that the step works through a batch in.

    Returns:
      The batch with the next multiple of D M rows.
    """
    filled = _filled(batch, mesh.size * parts)
    return put(filled, dict.fromkeys(filled, NamedSharding(mesh, PartitionSpec(AXES))))


def put(tree: Any, where: Any) -> Any:
    """Puts arrays where they belong; of several processes each puts its own devices' parts.

    Args:
      tree: arrays, the same ones on every process, or there already.
      where: a tree of shardings of the same structure.
    """
    if processes.how_many() == 1:
        return jax.device_put(tree, where)

    def one(leaf, sharding):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            numbers = one(jax.random.key_data(leaf), sharding)
            return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(leaf))
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return jax.tree.map(one, tree, where)


def to_host(tree: Any) -> Any:
    """Returns a tree of arrays as numpy arrays; what lies on other processes is gathered.

    To be called by every process.
    """

    def one(leaf):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            if not leaf.is_fully_replicated:
                return multihost_utils.process_allgather(leaf, tiled=True)
            leaf = leaf.addressable_data(0)
        return np.asarray(leaf)

    return jax.tree.map(one, tree)


def _filled(batch, multiple):
    more = -len(next(iter(batch.values()))) % multiple
    if not more:
        return batch

    def filler(name, values):
        rows = np.zeros((more, *values.shape[1:]), values.dtype)
        if name == "input_ids":
            rows[:] = values[:1]  # any that the model knows
        elif name == "attention_mask":
            rows[:, 0] = 1
        return rows

    return {name: np.concatenate([values, filler(name, values)]) for name, values in batch.items()}


def device_bytes(tree: Any) -> int:
    """Counts the bytes of a tree's arrays that one device holds."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * jnp.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )


def keep_up(values: Any, mesh: Mesh) -> None:
    """Waits for a step's values where several steps in flight could hang.

    Virtual devices of one CPU share a pool of threads. When steps are queued behind each
    other, one device's all-reduce can hold the threads that its peer needs to reach it, and
    XLA ends the process after 40 seconds. Real devices are never waited for.

    Args:
      values: what the step returned, or a part of it.
      mesh: the step's.
    """
    if mesh.size > 1 and mesh.devices.flat[0].platform == "cpu":
        jax.block_until_ready(values)
