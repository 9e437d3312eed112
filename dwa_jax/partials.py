"""Names for what is being written: one for each writer, known as left behind once that is gone.

A partial file or folder is called `.NAME.dwa_jax-RANDOM.partial` and locked while its writer
lives, so that what a killed one left can be told from what another is at work on.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

_RANDOM = "[0-9a-f]{16}"


def is_partial(name: str, of: str) -> bool:
    """Says whether a file of this name is, or was, a partial one of a file named `of`."""
    return re.fullmatch(rf"\.{re.escape(_short(of))}\.dwa_jax-{_RANDOM}\.partial", name) is not None


def _short(name):
    # A file's name has 255 bytes at most, and this adds 35.
    return os.fsdecode(os.fsencode(name)[:200])


def _fresh(path):
    return path.with_name(f".{_short(path.name)}.dwa_jax-{secrets.token_hex(8)}.partial")


@contextlib.contextmanager
def partial_file(path: Path, mode: int) -> Iterator[Path]:
    """Yields a new empty file beside a path, which is removed unless it was renamed.

    Args:
      path: what it will become.
      mode: permissions, of which the umask takes.

    Raises:
      OSError: it cannot be made.
    """
    clear(path)
    while True:
        partial = _fresh(path)
        handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        if _locked(handle, partial):
            break
        os.close(handle)
    try:
        yield partial
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        os.close(handle)


@contextlib.contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """Yields a new empty folder beside a path, which is removed unless it was renamed.

    Raises:
      OSError: it cannot be made.
    """
    clear(path)
    while True:
        partial = _fresh(path)
        partial.mkdir()
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if _locked(handle, partial):
                break
            os.close(handle)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(handle)


def _locked(handle, path):
    # Without locks, as on some network file systems, nothing is ever taken for left behind.
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)
    # Between making and locking it, another writer may have taken it for left behind.
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def clear(path: Path) -> None:
    """Removes the partial files and folders of a path whose writers are gone."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return
    for name in names:
        if not is_partial(name, path.name):
            continue
        left = path.with_name(name)
        with contextlib.suppress(OSError), abandoned(left):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


@contextlib.contextmanager
def abandoned(left: Path) -> Iterator[None]:
    """Holds what a writer that is gone left behind, so that no other takes it meanwhile.

    Raises:
      OSError: its writer is at work, it is a link, or there are no locks here.
    """
    handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
