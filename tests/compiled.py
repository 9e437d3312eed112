"""Where the programs that tests compile are kept: half of a test's time is saved the next time."""

import shutil
from pathlib import Path

import pytest

from dwa_jax import machine

# The programs of several versions of the suite.
_MOST_BYTES = 2**30


def place(config: pytest.Config) -> Path | None:
    """Returns a folder for JAX's cache, within pytest's own, which `--cache-clear` empties.

    None where that is switched off: -p no:cacheprovider.
    """
    if not hasattr(config, "cache"):
        return None
    folder = config.cache.mkdir("compiled") / machine.kind()
    if sum(path.stat().st_size for path in folder.glob("*")) > _MOST_BYTES:
        shutil.rmtree(folder, ignore_errors=True)
    return folder
