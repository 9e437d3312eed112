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
_ASYNCHRONOUS = "jax_cpu_enable_async_dispatch"


def begin() -> bool:
    """Lets steps be computed in the thread that calls them, whose heap alone can grow at will.

    To be called before JAX's first computation, in the main thread. Does nothing where
    JAX has an accelerator, whose memory is its own, or where the C library is not glibc.

    Returns:
      Whether it is so, and `keep` will do something.
    """
    if not _applies():
        return False
    jax.config.update(_ASYNCHRONOUS, False)
    return True


def keep() -> bool:
    """Lets this process keep what it frees for what it allocates next.

    To be called after `begin`, once all that stays for long is there: a model is loaded in
    larger pieces than a step takes, and what is freed of them later would stay as well. From
    here on the process holds on to the most it ever needed.

    Returns:
      Whether it is so; false where `begin` was not called or did nothing.
    """
    if not _applies() or jax.config.read(_ASYNCHRONOUS):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(option, value) == 1 for option, value in _OPTIONS])


def _applies():
    platforms = jax.config.jax_platforms  # type: ignore[attr-defined]
    if not sys.platform.startswith("linux") or not _computes_on_cpu(platforms):
        return False
    try:
        jax.config.read(_ASYNCHRONOUS)
    except AttributeError:  # a JAX without this option
        return False
    return hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


def _computes_on_cpu(platforms):
    # By what is installed: asking JAX for its devices would start it.
    if platforms:
        return platforms.split(",")[0] == "cpu"
    return not importlib.metadata.entry_points(group="jax_plugins")
