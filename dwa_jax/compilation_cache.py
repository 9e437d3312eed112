"""Compiled programs kept on disk from one process to the next: JAX's persistent cache, on.

A library does not switch this for a program that imports it; a program does, with `enable`.
"""

import warnings
from pathlib import Path
from typing import Any

import jax

from dwa_jax import cache_folders, machine

# Bytes of one kind of machine's programs; those that were not used for longest go first.
MOST_BYTES = 2**30
# What compiles faster than this is not worth a file.
_LEAST_SECONDS = 0.1
# As JAX names its files: a program, and when it was last used, written after it.
_PROGRAM, _USED = "-cache", "-atime"


def enable(place: str = "") -> Path | None:
    """Keeps what this process compiles, and takes what an earlier one compiled.

    To be called before JAX compiles anything. The results are the same bits with and without.
    Does nothing where JAX has been told itself (JAX_COMPILATION_CACHE_DIR,
    JAX_ENABLE_COMPILATION_CACHE), and never raises: without a folder that can be used, programs
    are compiled.

    Args:
      place: a folder; "" is dwa_jax in the user's cache folder (XDG_CACHE_HOME, ~/.cache,
        ~/Library/Caches), "off" none.

    Returns:
      The folder that is used; None where there is none.
    """
    config: Any = jax.config  # which says nothing of its options' types
    if not config.jax_enable_compilation_cache:
        return None
    if config.jax_compilation_cache_dir:
        return Path(config.jax_compilation_cache_dir)
    if place == "off":
        return None
    # A home may be shared by machines, and JAX's key does not tell them apart.
    folder = cache_folders.own_folder(place, f"compiled-{machine.kind()}")
    if folder is None:
        return None
    try:
        _mend(folder)
    except OSError:
        return None
    for option, value in (
        ("jax_compilation_cache_dir", str(folder)),
        ("jax_compilation_cache_max_size", MOST_BYTES),
        ("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS),
    ):
        jax.config.update(option, value)
    # A program that cannot be read is compiled, one that cannot be written will be again.
    warnings.filterwarnings("ignore", message=".*persistent compilation cache")
    return folder


def _mend(folder):
    # A process that was killed while it wrote leaves a program without its time, at which JAX
    # would stumble whenever it writes another.
    for program in folder.glob(f"*{_PROGRAM}"):
        used = program.with_name(program.name.removesuffix(_PROGRAM) + _USED)
        if not used.is_file() or used.stat().st_size != 8:
            program.unlink(missing_ok=True)
            used.unlink(missing_ok=True)
