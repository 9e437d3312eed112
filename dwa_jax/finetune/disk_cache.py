"""What is made of many texts, kept on disk from one process to the next.

A library does not switch this for a program that imports it; a program does, with
`enable_disk_cache`. What is kept is found by all that it was made of, so that it never goes stale;
processes of one machine share the pages that they map.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from dwa_jax import cache_folders

# Of fewer texts it is made in the time that a file takes.
LEAST_TEXTS = 20_000
# Of all that is kept; what was not used for longest goes first.
MOST_BYTES = 8 * 2**30
_FOLDER, _LOCK = "tokens", ".lock"
_place: list[Path] = []

T = TypeVar("T")


def enable_disk_cache(place: str = "") -> Path | None:
    """Keeps what this process makes of many texts, and takes what an earlier one made.

    Never raises: without a folder that can be used, it is made each time.

    Args:
      place: a folder; "" is dwa_jax/tokens in the user's cache folder, "off" none.

    Returns:
      The folder that is used; None where there is none.
    """
    _place.clear()
    if place != "off":
        base = cache_folders.own_folder(place, _FOLDER)
        if base is not None:
            _place.append(base)
    return _place[0] if _place else None


def is_enabled() -> bool:
    """Tells whether anything is kept."""
    return bool(_place)


def once(
    name: str,
    make: Callable[[], T],
    write: Callable[[Path, T], bool | None],
    read: Callable[[Path], T | None],
) -> T:
    """Returns what was kept, or else makes it and keeps it.

    Of several processes one makes it, and the others wait for it. What `make` raises is raised,
    and nothing is kept then.

    Args:
      name: tells it apart from everything else.
      make: returns it.
      write: puts it into an empty folder; false where it is not to be kept.
      read: returns it from such a folder; None where that is not whole.
    """
    folder = _place[0] / name
    raised: list[BaseException] = []

    def made():
        try:
            return make()
        except BaseException as error:
            raised.append(error)
            raise

    try:
        with _alone(_place[0] / f"{name}{_LOCK}", folder):
            found = _read(folder, read)
            if found is None:
                found = made()
                if _write(folder, found, write):
                    found = _read(folder, read) or found
    except OSError:  # a full disk, or one that knows no locks
        if raised:
            raise
        return make()
    return found


@contextlib.contextmanager
def _alone(path: Path, folder: Path) -> Iterator[None]:
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if not folder.exists():
                path.unlink(missing_ok=True)


def _read(folder, read):
    try:
        found = read(folder)
        os.utime(folder)
    except (OSError, ValueError, EOFError, LookupError, TypeError, NotImplementedError):
        # Not there, or no more whole.
        return None
    return found


def _write(folder, made, write):
    # Beside a full disk: what cannot be written as UTF-8.
    with contextlib.suppress(OSError, ValueError):
        partial = Path(tempfile.mkdtemp(prefix=".partial_", dir=folder.parent))
        try:
            if write(partial, made) is False:
                return False
            shutil.rmtree(folder, ignore_errors=True)  # one that was damaged
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        _forget(folder.parent, keep=folder)
        return True
    return False


def _forget(base, keep):
    # The oldest first, until the rest fits; what another process reads stays open to it.
    found = [path for path in base.iterdir() if path.is_dir() and path != keep]
    sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in [*found, keep]}
    total = sum(sizes.values())
    for path in sorted(found, key=lambda path: path.stat().st_mtime):
        if total <= MOST_BYTES:
            return
        shutil.rmtree(path, ignore_errors=True)
        path.with_name(f"{path.name}{_LOCK}").unlink(missing_ok=True)
        total -= sizes[path]
