"""Folders in the user's cache, where a program keeps what it would otherwise make again."""

import os
import stat
import sys
from pathlib import Path


def own_folder(place: str, name: str) -> Path | None:
    """Makes a folder in which nobody else can write.

    Args:
      place: the folder around it; "" is dwa_jax in the user's cache folder (XDG_CACHE_HOME,
        ~/.cache, ~/Library/Caches).
      name: of the folder.

    Returns:
      The folder; None where it cannot be had: no home, a read-only disk, somebody else's.
    """
    try:
        base = Path(place).expanduser() if place else _default()
        folder = base / name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder if _is_ours(folder) else None
    except (OSError, RuntimeError):
        return None


def _default():
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "dwa_jax"
    home = Path.home()
    return (home / "Library/Caches" if sys.platform == "darwin" else home / ".cache") / "dwa_jax"


def _is_ours(folder):
    # What lies there is run, or learned from.
    found = folder.stat()
    return (
        found.st_uid == os.geteuid()
        and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        and os.access(folder, os.R_OK | os.W_OK | os.X_OK)
    )
