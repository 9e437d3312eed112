"""Output that is there whole or not at all, and takes no place that is not its own."""

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from dwa_jax import partials, regular_files
from dwa_jax.partials import is_partial

__all__ = [
    "check_file",
    "check_folder",
    "is_partial",
    "replacing",
    "unwritten",
    "whole_file",
    "whole_folder",
]

# Bytes of a list of files: thousands of them.
_MOST_LISTED = 10**7


def check_file(path: Path, *, overwrite: bool) -> None:
    """Checks that a file may be written.

    Args:
      path: the file.
      overwrite: whether one that is there may be replaced.

    Raises:
      ValueError: there is one, or something else, or no folder to write in.
    """
    found = regular_files.kind_of(path)
    if found == "a folder":
        raise ValueError(f"{path} is a folder; name a file in it")
    if found not in ("", "a file"):
        raise ValueError(f"{path} is {found}, which is never written through; name a file")
    if found and not overwrite:
        raise ValueError(f"{path} is there already; give another name, or overwrite=True")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} to write {path.name} in")


@contextlib.contextmanager
def whole_file(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yields where to write a file, which gets its name once the block ends well.

    Args:
      path: the file.
      overwrite: whether one that is there may be replaced; otherwise one that appears while
        the block runs is not either.

    Raises:
      ValueError: see `check_file`.
      OSError: it cannot be written; says which file.
    """
    check_file(path, overwrite=overwrite)
    with _partial(path, fresh=not overwrite) as partial:
        yield partial


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields where to write what takes a file's place once the block ends well.

    Its permissions are those of the file that it replaces.

    Args:
      path: the file, which need not be there. A link is never followed, and not replaced.

    Raises:
      ValueError: something else than a file is there.
      OSError: the disk is full, or will not be written; says which file.
    """
    regular_files.check_regular(path)
    with _partial(path, fresh=False) as partial:
        yield partial


@contextlib.contextmanager
def _partial(path, *, fresh):
    mode = None
    with contextlib.suppress(OSError):
        mode = stat.S_IMODE(os.lstat(path).st_mode)
    partial = None
    try:
        with partials.partial_file(
            path, 0o666 if mode is None else mode & 0o700 | 0o600
        ) as partial:
            yield partial
            if not fresh and mode is not None:
                partial.chmod(mode)
            with regular_files.one_at_a_time(path.parent):
                if fresh and regular_files.kind_of(path):
                    raise FileExistsError
                # It may have become one while the block ran.
                regular_files.check_regular(path)
                _give_name(partial, path, fresh)
    except FileExistsError:
        raise ValueError(
            f"{path} appeared while this was running, and stays as it is; give another name, or "
            "overwrite=True"
        ) from None
    except OSError as error:
        if error.filename not in (None, str(path), str(partial)) and partial is not None:
            raise
        raise unwritten(path, error) from error


def _give_name(partial, path, fresh):
    if not fresh:
        os.replace(partial, path)
        return
    try:
        # Unlike a renaming, this takes no name that is another's.
        os.link(partial, path, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
        os.replace(partial, path)


def unwritten(path: Path, error: OSError) -> OSError:
    """Returns the error that says which file: of a write that fails Python says why alone."""
    return OSError(f"{path} cannot be written: {error.strerror or error}")


@contextlib.contextmanager
def whole_folder(path: Path, marker: str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields an empty folder to fill, which gets its name once the block ends well.

    A file named `marker` lists what was written, with digests. A folder whose own marker
    accounts for all that it holds is an earlier one of these, and is replaced.

    Args:
      path: the folder.
      marker: name of the file.
      overwrite: whether files of an earlier one may have been changed since.

    Raises:
      ValueError: there is a file, or a folder that this did not write, or did not write all of.
      OSError: it cannot be written; says which folder.
    """
    try:
        check_folder(path, marker, overwrite=overwrite)
        path.parent.mkdir(parents=True, exist_ok=True)
        with partials.partial_folder(path) as partial:
            yield partial
            listed = _listed(partial)
            _usual_modes(partial, listed, path)
            text = json.dumps({"files": listed}, indent=1) + "\n"
            (partial / marker).write_text(text, "utf-8")
            with regular_files.one_at_a_time(path.parent):
                _swap(partial, path, marker, overwrite)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error


def _listed(folder):
    found = {}
    for name, kind in regular_files.walk(folder):
        if kind not in ("a file", "a folder"):
            raise ValueError(f"{folder / name} is {kind}; only regular files are published")
        if kind == "a file":
            found[name] = regular_files.file_digest(folder / name)
    return found


def _usual_modes(partial, names, path):
    # Some writers keep what they write from everybody else, whatever the umask.
    os.umask(mask := os.umask(0))
    for name in names:
        mode = 0o666 & ~mask
        with contextlib.suppress(OSError):
            earlier = os.lstat(path / name).st_mode
            mode = stat.S_IMODE(earlier) if stat.S_ISREG(earlier) else mode
        (partial / name).chmod(mode)
    with contextlib.suppress(OSError):
        partial.chmod(stat.S_IMODE(os.lstat(path).st_mode))


def _swap(partial, path, marker, overwrite):
    # A process killed between the two renamings leaves the earlier one under this name, and
    # only then nothing under its own.
    previous = path.with_name(f".{path.name}.{marker.strip('.')}.previous")
    if regular_files.kind_of(previous):
        _check(previous, marker, True)
        if regular_files.kind_of(path):
            shutil.rmtree(previous)
        else:
            os.rename(previous, path)
    _check(path, marker, overwrite)
    if regular_files.kind_of(path):
        os.rename(path, previous)
    try:
        # Nobody can put anything more into it by its name.
        _check(previous, marker, overwrite)
        # What appeared in between was checked by nobody: a folder that is not empty, or a file,
        # makes this fail.
        os.rename(partial, path)
    except BaseException:
        if regular_files.kind_of(previous) and not regular_files.kind_of(path):
            os.rename(previous, path)
        raise
    if regular_files.kind_of(previous):
        shutil.rmtree(previous, ignore_errors=True)


def check_folder(path: Path, marker: str, *, overwrite: bool = False) -> None:
    """Checks that a folder may be written: a new one, an empty one, or an earlier export.

    Args:
      path: the folder.
      marker: name of the file that lists what an export wrote.
      overwrite: whether what an export wrote may have been changed since.

    Raises:
      ValueError: there is a file, or a folder that holds anything else.
      OSError: it cannot be read.
    """
    if regular_files.kind_of(path) not in ("", "a folder"):
        raise ValueError(f"{path} is no folder; give a new one")
    if regular_files.kind_of(path):
        # Or another writer could give its name to another folder halfway through this.
        with regular_files.one_at_a_time(path.parent):
            _check(path, marker, overwrite)


def _check(path, marker, overwrite):
    if not regular_files.kind_of(path) or not any(regular_files.walk(path)):
        return
    try:
        text = regular_files.read_text(path / marker, _MOST_LISTED)
        listed = json.loads(text)["files"]
        known = dict(listed) if isinstance(listed, dict) else dict.fromkeys(map(str, listed))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path} holds something else than an export; give a new folder") from None
    there = [(name, kind) for name, kind in regular_files.walk(path) if name != marker]
    for name, kind in there:
        if name not in known or kind != "a file":
            raise ValueError(
                f"{path} holds {name!r}, which no export wrote; move it, or give a new folder"
            )
    if overwrite:
        return
    for name, _ in there:
        # Earlier versions listed names alone, which tell nothing of contents.
        if regular_files.file_digest(path / name) != known[name]:
            raise ValueError(
                f"{path}: {name!r} is not as an export wrote it; give a new folder, or "
                "overwrite=True"
            )
