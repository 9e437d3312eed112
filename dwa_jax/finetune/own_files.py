"""Files in a folder that others may use too: what is there is replaced only if it is ours.

FOLDER/.dwa_jax_files.json  every file that was written here, with the SHA-256 that it got
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from dwa_jax import partials, regular_files
from dwa_jax.atomic_files import replacing, whole_file

RECORD = ".dwa_jax_files.json"
_MOST = 10**7  # bytes of the record: thousands of files


def check_own(folder: Path, names: Iterable[str], *, adopt: bool = False) -> None:
    """Checks that files may be written, before what they come from is worked out.

    Args:
      folder: where, if it is there.
      names: relative to the folder; of a folder in it everything.
      adopt: whether regular files count as ours where there is no record at all, as in the
        folders of earlier versions.

    Raises:
      ValueError: something is there that was not written by this, or was changed since.
    """
    known = _read(folder)
    for name in names:
        found = regular_files.kind_of(folder / name)
        inside = [(name, found)] if found else []
        if found == "a folder":
            inside = [(f"{name}/{n}", k) for n, k in regular_files.walk(folder / name)]
        for path, what in inside:
            if what != "a folder":
                _check_one(folder, path, what, known, trusted=known is None and adopt)


def _check_one(folder, name, kind, known, trusted):
    if kind != "a file":
        raise ValueError(f"{folder / name} is {kind}, and stays as it is; move it away")
    if trusted:
        return
    if regular_files.file_digest(folder / name) not in (known or {}).get(name, ()):
        raise ValueError(
            f"{folder / name} is not as this wrote it, and stays as it is; move it away"
        )


def remove_own(folder: Path, name: str) -> None:
    """Removes a folder in it, all of whose files were written by this.

    Raises:
      ValueError: it holds something else; nothing is removed then.
    """
    check_own(folder, [name])
    if regular_files.kind_of(folder / name):
        shutil.rmtree(folder / name)


@contextlib.contextmanager
def placing(folder: Path, *, adopt: bool = False, overwrite: bool = False) -> Iterator[Path]:
    """Yields an empty folder; the files that the block writes there take their places after it.

    Args:
      folder: where they go; an existing one.
      adopt: see `check_own`.
      overwrite: whether files that are not ours are replaced, too.

    Raises:
      ValueError: one of the places holds something that was not written by this, or was
        changed since; nothing is replaced then.
      OSError: a file cannot be written.
    """
    with partials.partial_folder(folder / "new") as stage:
        yield stage
        known = _read(folder)
        new = {
            name: regular_files.file_digest(stage / name)
            for name, kind in regular_files.walk(stage)
            if kind == "a file"
        }
        there = {}
        for name in list(new):
            _check_parents(folder, name)
            kind = regular_files.kind_of(folder / name)
            if kind == "a file" and regular_files.file_digest(folder / name) == new[name]:
                there[name] = new[name]
            elif kind:
                trusted = overwrite or (known is None and adopt)
                _check_one(folder, name, kind, known, trusted)
                there[name] = regular_files.file_digest(folder / name)
        # First, so that what a kill leaves behind is known for ours.
        record = dict(known or {})
        for name, digest in new.items():
            record[name] = sorted({digest, *([there[name]] if name in there else [])})
        _write(folder, record)
        for name, digest in new.items():
            if there.get(name) == digest:
                continue
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(place, overwrite=name in there) as partial:
                os.replace(stage / name, partial)


def _check_parents(folder, name):
    for parent in reversed(Path(name).parents[:-1]):
        regular_files.check_real_folder(folder / parent)


def claim(folder: Path, name: str) -> None:
    """Records a file whose contents go on changing as written by this."""
    _write(folder, dict(_read(folder) or {}) | {name: []})


def claimed(folder: Path) -> set[str]:
    """Returns the names of all that was written by this, relative to the folder."""
    return set(_read(folder) or {})


def _read(folder):
    # None where there is no record.
    if not regular_files.kind_of(folder / RECORD):
        return None
    try:
        files = json.loads(regular_files.read_text(folder / RECORD, _MOST))["files"]
        return {str(name): [str(digest) for digest in of] for name, of in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(
            f"{folder / RECORD} is damaged; without it nothing tells which files are the run's"
        ) from None


def _write(folder, record):
    with replacing(folder / RECORD) as partial:
        partial.write_text(json.dumps({"files": record}, indent=1) + "\n", "utf-8")
