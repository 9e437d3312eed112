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
