"""Data parallelism over the local devices: rows are sharded, everything else replicated.

Batch statistics are sums over the rows, so the compiler's all-reduce makes them those
of the global batch and any number of devices gives the same step.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh with the single axis "data" over the devices, by default all local ones."""
    return Mesh(np.asarray(jax.local_devices() if devices is None else list(devices)), ("data",))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts a whole copy of a tree of arrays on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def shard_rows(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Spreads a batch's rows over the devices.

    Args:
      batch: arrays of B rows each.
      mesh: of D devices.

    Raises:
      ValueError: B is not a multiple of D.
    """
    rows, size = len(next(iter(batch.values()))), mesh.size
    if rows % size:
        raise ValueError(f"a batch of {rows} rows does not divide over {size} devices")
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
