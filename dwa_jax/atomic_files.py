"""Output that is there whole or not at all, and takes no place that is not its own."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def check_file(path: Path, *, overwrite: bool) -> None:
    """Checks that a file may be written.

    Args:
      path: the file.
      overwrite: whether one that is there may be replaced.

    Raises:
      ValueError: there is one, or a folder, or no folder to write in.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} is there already; give another name, or --overwrite")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} to write {path.name} in")


@contextlib.contextmanager
def whole_file(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yields where to write a file, which gets its name once the block ends well.

    Args:
      path: the file.
      overwrite: whether one that is there may be replaced.

    Raises:
      ValueError: see `check_file`.
      OSError: it cannot be written; says which file.
    """
    check_file(path, overwrite=overwrite)
    with replacing(path) as partial:
        yield partial


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields where to write what takes a file's place once the block ends well.

    Args:
      path: the file, which need not be there.

    Raises:
      OSError: the disk is full, or will not be written; says which file.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise
        raise unwritten(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def is_partial(name: str, of: str) -> bool:
    """Says whether a file of this name is what a killed process left of one named `of`."""
    return name == f"{of}.partial" or (name.startswith(f".{of}.") and name.endswith(".partial"))


def unwritten(path: Path, error: OSError) -> OSError:
    """Returns the error that says which file: of a write that fails Python says why alone."""
    return OSError(f"{path} cannot be written: {error.strerror or error}")


@contextlib.contextmanager
def whole_folder(path: Path, marker: str) -> Iterator[Path]:
    """Yields an empty folder to fill, which gets its name once the block ends well.

    A file named `marker` lists what was written. A folder whose own marker lists all that it
    holds is an earlier one of these, and is replaced.

    Args:
      path: the folder.
      marker: name of the file.

    Raises:
      ValueError: there is a file, or a folder that this did not write, or did not write all of.
      OSError: it cannot be written; says which folder.
    """
    check_folder(path, marker)
    partial, previous = (path.with_name(f".{path.name}.{kind}") for kind in ("partial", "previous"))
    for left in (partial, previous):
        # Of a process that was killed; another's folder of that name is refused.
        check_folder(left, marker)
    if previous.exists() and not path.exists():
        os.rename(previous, path)
    for left in (partial, previous):
        shutil.rmtree(left, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        # Before anything else, so that what a kill leaves behind is known for what it is.
        (partial / marker).write_text(json.dumps({"files": None}) + "\n", "utf-8")
        yield partial
        files = [name for name in _files(partial) if name != marker]
        # Some writers keep what they write from everybody else, whatever the umask.
        usual = (partial / marker).stat().st_mode
        for name in files:
            (partial / name).chmod(usual)
        (partial / marker).write_text(json.dumps({"files": files}, indent=1) + "\n", "utf-8")
        if path.exists():
            os.rename(path, previous)
        try:
            os.rename(partial, path)
        except BaseException:
            if previous.exists():
                os.rename(previous, path)
            raise
        shutil.rmtree(previous, ignore_errors=True)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


def check_folder(path: Path, marker: str) -> None:
    """Checks that a folder may be written: a new one, an empty one, or an earlier export.

    Args:
      path: the folder.
      marker: name of the file that lists what an export wrote.

    Raises:
      ValueError: there is a file, or a folder that holds anything else.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise ValueError(f"{path} is no folder; give a new one")
    if not path.exists() or not any(path.iterdir()):
        return
    try:
        listed = json.loads((path / marker).read_text("utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{path} holds something else than an export; give a new folder") from None
    others = [] if listed is None else sorted(set(_files(path)) - {*listed, marker})
    if others:
        raise ValueError(
            f"{path} holds {others[0]!r}, which no export wrote; move it, or give a new folder"
        )
