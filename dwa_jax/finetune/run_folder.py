"""A run's folder: its configuration, metrics, summary and predictions.

config.json  metrics.jsonl  summary.json  predictions.csv  tokenizer/  backbone.json  folds/
checkpoints/ or model.safetensors  plots/  lock  .dwa_jax_files.json

Files are written beside and renamed, so that a process killed at any moment leaves whole ones.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import importlib.metadata
import io
import json
import math
import os
import platform
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dwa_jax import regular_files
from dwa_jax.atomic_files import is_partial, replacing
from dwa_jax.finetune.config import Config, flatten_keys, without_gone

_PACKAGES = (
    "dwa_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "transformers",
    "tokenizers",
    "numpy",
)


_LOCK, _FOLDS = "lock", "folds"
# Bytes of a JSON file: hundreds of times what a run writes, and little once it is read.
_MOST_JSON = 10**7


def versions() -> dict[str, str]:
    """Returns the versions of what runs."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def plain(value: Any) -> Any:
    """Turns arrays, numpy scalars and tuples into what JSON holds; nan and infinity into null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray) or hasattr(value, "tolist"):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file whole or not at all."""
    value = plain(value)
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:  # the name of a file that the locale cannot spell
            text = json.dumps(value, indent=2) + "\n"
    with replacing(path) as partial:
        partial.write_text(text, "utf-8")


def read_object(path: Path) -> dict:
    """Reads a JSON file that holds an object.

    Raises:
      ValueError: it is damaged.
      OSError: it cannot be read.
    """
    try:
        value = json.loads(regular_files.read_text(path, _MOST_JSON), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        words = str(error)
        raise ValueError(
            words if words.startswith(str(path)) else f"{path} is damaged: {words}"
        ) from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it holds no object")
    return value


def stored_config(path: Path, content: Mapping) -> Config:
    """Checks a stored configuration like one of the user's own.

    Args:
      path: its file, for messages.
      content: key -> value; those of other versions are left out.

    Raises:
      ValueError: a value cannot be; names the file and the key.
    """
    known = {field.name for field in dataclasses.fields(Config)}
    try:
        return Config.of({key: value for key, value in content.items() if key in known})
    except ValueError as error:
        raise ValueError(f"{path} does not fit this version: {error}") from None


def _refuse(name):
    raise ValueError(f"it holds {name}, which is no JSON")


def digest(parts: Iterable[str | np.ndarray]) -> str:
    """Returns a fingerprint of an iterable of strings and arrays."""
    found = hashlib.sha256()
    for part in parts:
        found.update(
            part.encode("utf-8", "surrogatepass")
            if isinstance(part, str)
            else np.asarray(part).tobytes()
        )
        found.update(b"\0")
    return found.hexdigest()


def fold_folder(folder: Path, fold: int) -> Path:
    """Returns the folder of one fold's run, in that of a cross-validation.

    Args:
      folder: of all folds.
      fold: from 1.
    """
    return folder / _FOLDS / str(fold)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Holds a folder for one process, which need not end well to let go of it.

    Args:
      folder: an existing one.

    Raises:
      ValueError: another process holds it, and which; or the file is not this program's.
    """
    path = folder / _LOCK
    with regular_files.open_to_append(path) as raw:
        raw.seek(0)
        if not re.fullmatch(rb"(pid \d+ on [^\n]*\n)?", raw.read(1000)):
            raise ValueError(f"{path} is not this program's, and stays as it is; move it away")
        file = io.TextIOWrapper(raw, encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "it has not said which"
            raise ValueError(
                f"{folder} is in use by another process ({holder}); wait for it to "
                "end, or give another folder"
            ) from None
        except OSError as error:
            # Some network file systems have none.
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        # Closing the file, which the end of the process does too, releases it.
        yield


def open_folder(folder: Path, config: dict, data: str | None = None) -> list[str]:
    """Makes the folder's config.json, or checks that it belongs to this configuration.

    A key that the run's configuration did not have yet counts as at its default.

    Args:
      folder: the run's; need not exist where `data` is None.
      config: the whole resolved configuration.
      data: fingerprint of the rows; None only checks, and makes nothing.

    Returns:
      Notes: which versions differ from those that the run began with.

    Raises:
      ValueError: the folder holds another configuration's run (lists the differences), or
        one of other rows.
      NotADirectoryError: the path is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, not a folder")
    path, config = folder / "config.json", plain(config)
    if not regular_files.check_regular(path):
        if folder.exists() and not all(
            entry.name == _LOCK
            or is_partial(entry.name, "config.json")
            or (entry.name == _FOLDS and config.get("folds"))  # one trained by itself
            for entry in folder.iterdir()
        ):
            raise ValueError(
                f"{folder} is not empty and holds no run (no config.json); give a new folder"
            )
        if data is not None:
            write_json(path, {"config": config, "data": data, "versions": versions()})
        return []
    try:
        file = read_object(path)
        stored, rows, began = dict(file["config"]), file["data"], dict(file["versions"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is damaged; give a new folder, or remove the folder") from None
    notes = [
        f"the run began with {package} {began.get(package, 'unknown')}; this is {version}"
        for package, version in versions().items()
        if began.get(package) != version
    ]
    stored, config = flatten_keys(without_gone(stored)), flatten_keys(config)
    # A key that there was not yet when the run began: its default is what the run did then.
    defaults = flatten_keys(plain(Config().to_dict()))
    newer = {key: value for key, value in defaults.items() if key in config and key not in stored}
    stored, missing = newer | stored, object()
    keys = [key for key in {**stored, **config} if stored.get(key, missing) != config.get(key)]
    if keys:
        changes = "; ".join(
            f"{key}: {_shown(stored, key)} there, {_shown(config, key)} now" for key in keys
        )
        raise ValueError(
            f"{folder} holds another configuration's run ({changes}); "
            "give a new folder, or the same configuration to continue"
            + "".join(f"; {note}" for note in notes)
        )
    if data is not None and rows != data:
        raise ValueError(
            f"{folder} holds a run on other rows: the data has changed since; give a new folder"
        )
    return notes


def _shown(config, key):
    return repr(config[key]) if key in config else "nothing"
