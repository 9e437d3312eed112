"""GPUs as XLA's compiler sees them, none of which need be there, and their best rates.

Sources: NVIDIA's data sheets and tuning guides. Rates are dense ones; of matrix products with
sums in float32.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from dwa_jax import sharding

GIB = 2**30


class Card(NamedTuple):
    """A kind of GPU.

    Attributes:
      title: what a reader calls it.
      capability: (major, minor) of its instructions.
      cores: streaming multiprocessors.
      shared: bytes of shared memory of each.
      block: bytes of it that one block may take.
      threads: of each multiprocessor, at most.
      cache: bytes of the second level.
      gigahertz: of its clock.
      memory: bytes.
      bandwidth: bytes a second of the memory.
      half: operations a second of products in bfloat16.
      single: likewise of float32 as TF32, which XLA takes unless a precision is set.
      full: likewise of float32 with all of its digits.
      whole: operations a second on integers.
      link: bytes a second to other cards of one machine, each way: NVLink's, or PCI Express 4.
    """

    title: str
    capability: tuple[int, int]
    cores: int
    shared: int
    block: int
    threads: int
    cache: int
    gigahertz: float
    memory: int
    bandwidth: float
    half: float
    single: float
    full: float
    whole: float
    link: float = 32e9

    def usable(self, fraction: float = 0.75) -> float:
        """Bytes that JAX takes for itself at its start, by default three quarters."""
        return fraction * self.memory

    def target(self) -> str:
        """What the compiler is told of it: XLA's GpuTargetConfigProto, as text."""
        major, minor = self.capability
        # Of Hopper's the compiler knows more than what later cards have as well.
        feature = "ACCELERATED_FEATURES" if major >= 9 else "NONE"
        return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: {self.shared} shared_memory_per_block_optin: {self.block}
  threads_per_core_limit: {self.threads} core_count: {self.cores} fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  memory_bandwidth: {self.bandwidth:.0f} l2_cache_size: {self.cache}
  clock_rate_ghz: {self.gigahertz} device_memory_size: {self.memory}
  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: {feature} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  device_vendor: "NVIDIA Corporation" device_address_bits: 64 name: "{self.title}"
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{self.title}"
"""

    def mesh(self, devices: int = 1, sizes: str = "") -> Mesh:
        """Such devices, which are not there, for `jax.jit(...).lower` to compile for.

        Args:
          devices: of one machine.
          sizes: of the mesh, see `sharding.make_mesh`.

        Raises:
          ValueError: the compiler is not installed, or the sizes do not make up the devices.
        """
        try:
            topology = topologies.get_topology_desc(
                self.title, "cuda", target_config=self.target(), topology=f"1x1x{devices}"
            )
        except (RuntimeError, NotImplementedError, jax.errors.JaxRuntimeError) as error:
            raise ValueError(
                f"compiling for a GPU needs NVIDIA's wheels: pip install -e '.[gpu_plan]' ({error})"
            ) from None
        return sharding.make_mesh(sizes, topology.devices)


_HOPPER: dict[str, Any] = {
    "capability": (9, 0),
    "cores": 132,
    "shared": 233472,
    "block": 232448,
    "threads": 2048,
    "cache": 52428800,
    "gigahertz": 1.98,
    "half": 989e12,
    "single": 495e12,
    "full": 67e12,
    "whole": 16.7e12,
    "link": 450e9,
}
_AMPERE: dict[str, Any] = {"capability": (8, 6), "shared": 102400, "block": 101376, "threads": 1536}
_ADA: dict[str, Any] = {**_AMPERE, "capability": (8, 9), "cache": 75497472}

CARDS = {
    "h200": Card("H200", memory=151397597184, bandwidth=4.8e12, **_HOPPER),
    "h100": Card("H100", memory=84929347584, bandwidth=3.35e12, **_HOPPER),
    "a100": Card(
        "A100 80 GB",
        capability=(8, 0),
        cores=108,
        shared=167936,
        block=166912,
        threads=2048,
        cache=41943040,
        gigahertz=1.41,
        memory=84987740160,
        bandwidth=2.039e12,
        half=312e12,
        single=156e12,
        full=19.5e12,
        whole=9.7e12,
        link=300e9,
    ),
    "l40s": Card(
        "L40S",
        cores=142,
        gigahertz=2.52,
        memory=47810936832,
        bandwidth=0.864e12,
        half=362e12,
        single=183e12,
        full=91.6e12,
        whole=45.8e12,
        **_ADA,
    ),
    "rtx4090": Card(
        "RTX 4090",
        cores=128,
        gigahertz=2.52,
        memory=25393692672,
        bandwidth=1.008e12,
        half=165e12,
        single=82.6e12,
        full=82.6e12,
        whole=41.3e12,
        **_ADA,
    ),
    "rtx3090ti": Card(
        "RTX 3090 Ti",
        cores=84,
        cache=6291456,
        gigahertz=1.86,
        memory=25438126080,
        bandwidth=1.008e12,
        half=80e12,
        single=40e12,
        full=40e12,
        whole=20e12,
        **_AMPERE,
    ),
}


def holding(size: float, cards: Sequence[str] = tuple(CARDS)) -> list[str]:
    """Returns the cards whose memory, as JAX takes it by default, holds so many bytes."""
    return [name for name in cards if size <= CARDS[name].usable()]
