"""Files opened for what they are: no link is followed, no pipe or device is waited for.

A folder may come from a stranger, or hold what its owner put there since. What is read of it,
and what is written into it, goes through here.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

_PATIENCE = 10  # seconds
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# Of macOS, Windows and KDE.
_CLUTTER = (".DS_Store", ".localized", "Thumbs.db", "desktop.ini", ".directory")


def named_path(name: str | os.PathLike, what: str = "folder") -> Path:
    """Returns the path that somebody gave; a ~ at its beginning is a home.

    Args:
      name: of a file or a folder.
      what: it is called in messages.

    Raises:
      TypeError: it is neither a text nor a path.
      ValueError: it is empty, or holds a NUL character.
    """
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"{what}={name!r:.60} must be a text or a path")
    if not os.fspath(name) or "\0" in str(name):
        raise ValueError(f"{what}={name!r:.60} can be no name")
    # Unlike Path.expanduser, this leaves the name of a user whom nobody knows as it is.
    return Path(os.path.expanduser(name))


def kind_of(path: Path) -> str:
    """Says what a path is, itself and not what it may point at.

    Returns:
      "a file", "a link", "a folder", "a pipe", "a socket", "a device", or "" for nothing.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return _KINDS.get(stat.S_IFMT(mode), "a file")


def check_regular(path: Path) -> bool:
    """Says whether a file is there.

    Raises:
      ValueError: something else is, a link for instance.
    """
    return _is_there(path, "a file", "a regular file")


def check_real_folder(path: Path) -> bool:
    """Says whether a folder is there.

    Raises:
      ValueError: something else is, a link for instance.
    """
    return _is_there(path, "a folder", "a folder")


def _is_there(path, kind, words):
    found = kind_of(path)
    if found not in ("", kind):
        raise ValueError(f"{path} is {found}, where {words} is expected")
    return bool(found)


def open_to_read(path: Path) -> BufferedReader:
    """Opens a regular file.

    Raises:
      ValueError: it is something else.
      OSError: it is not there, or cannot be read.
    """
    return os.fdopen(_open(path, os.O_RDONLY), "rb")


def open_to_append(path: Path) -> BinaryIO:
    """Opens a regular file to write at its end; one that is not there is made.

    Raises:
      ValueError: it is something else.
      OSError: it cannot be written.
    """
    return os.fdopen(_open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT), "a+b")


def _open(path, flags):
    check_regular(path)  # before it is opened, which is felt by some devices
    try:
        file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise ValueError(f"{path} is no regular file") from None
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise ValueError(f"{path} is no regular file")
    return file


def read_text(path: Path, most: int) -> str:
    """Reads a regular file of UTF-8 text.

    Args:
      path: the file.
      most: bytes that it may have.

    Raises:
      ValueError: it is something else, larger, or no UTF-8.
      OSError: it is not there, or cannot be read.
    """
    with open_to_read(path) as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise ValueError(f"{path} has more than {most:,} bytes")
    try:
        return found.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a regular file.

    Raises:
      ValueError: it is something else.
      OSError: it is not there, or cannot be read.
    """
    with open_to_read(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_clutter(path: Path) -> bool:
    """Says whether a file is what a desktop or a file system leaves in any folder."""
    name = path.name
    known = name in _CLUTTER or name.startswith(("._", ".nfs", ".fuse_hidden"))
    return known and kind_of(path) == "a file"


def walk(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields (path relative to the folder, kind) of all that it holds, links not followed.

    Folders are named where they are empty, files and whatever else always, clutter never.

    Raises:
      OSError: it cannot be read.
    """
    for name in sorted(os.listdir(folder)):
        if is_clutter(folder / name):
            continue
        found = kind_of(folder / name)
        if found != "a folder":
            yield name, found
            continue
        inside = False
        for deeper, what in walk(folder / name):
            inside = True
            yield f"{name}/{deeper}", what
        if not inside:
            yield name, found


def check_tree(folder: Path) -> None:
    """Checks that a folder holds regular files, and folders of them, alone.

    Raises:
      ValueError: it holds something else; names it.
      OSError: it cannot be read.
    """
    check_real_folder(folder)
    for name, found in walk(folder):
        if found not in ("a file", "a folder"):
            raise ValueError(f"{folder / name} is {found}, where a regular file is expected")


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Waits until no other process of ours gives names in a folder, while the block runs."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A partial folder is locked by its writer, this one. Nobody else's lock, for names are
        # given within milliseconds, is waited for any longer.
        ends = time.monotonic() + _PATIENCE
        while not folder.name.endswith(".partial") and time.monotonic() < ends:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.005)
            except OSError:  # some network file systems have no locks
                break
            else:
                break
        yield
    finally:
        os.close(handle)
