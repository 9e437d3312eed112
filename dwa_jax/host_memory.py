"""Memory of a process that computes on a CPU: kept from step to step, not fetched anew.

XLA allocates what a step needs when it begins and frees it when it ends. glibc gives such
large blocks back to the kernel, which has to hand out zeroed pages again a moment later:
a quarter of a training step's time.
"""

import ctypes
import importlib.metadata
import sys

import jax

# Of malloc.h: large blocks in the heap too, and nothing of it given back.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_OPTIONS = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))


def keep() -> bool:
    """Lets this process keep what it frees for what it allocates next.

    To be called before the first computation, from the main thread, which has to be the one
    that calls the steps as well; the programs in `experiments` do. The process holds on to
    the most it ever needed, and a step is computed when it is called instead of behind the
    caller's back. Does nothing where JAX has an accelerator, whose memory is its own, or
    where the C library is not glibc.

    Returns:
      Whether it is so.
    """
    platforms = jax.config.jax_platforms  # type: ignore[attr-defined]
    if not sys.platform.startswith("linux") or not _computes_on_cpu(platforms):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    try:
        # Only the heap of the main thread grows without bound: steps have to allocate there.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    except AttributeError:  # a JAX without this option
        return False
    return all([library.mallopt(option, value) == 1 for option, value in _OPTIONS])


def _computes_on_cpu(platforms):
    # By what is installed: asking JAX for its devices would start it.
    if platforms:
        return platforms.split(",")[0] == "cpu"
    return not importlib.metadata.entry_points(group="jax_plugins")
