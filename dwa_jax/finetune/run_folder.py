"""A run's folder: its configuration, metrics, summary and predictions.

config.json  metrics.jsonl  summary.json  predictions.csv  tokenizer/  backbone.json  folds/
checkpoints/ or model.safetensors  reference.safetensors  plots/  lock  .dwa_jax_files.json

Files are written beside and renamed, so that a process killed at any moment leaves whole ones.
"""

import contextlib
import dataclasses
import errno
import fcntl
import functools
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
from typing import Any, NamedTuple

import numpy as np

from dwa_jax import regular_files
from dwa_jax.atomic_files import is_partial, replacing
from dwa_jax.finetune.config import Config, flatten_keys, later, without_gone
from dwa_jax.messages import one_line

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
    return {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES}


@functools.cache
def _version(package):
    # Looking one up reads the folders of all that is installed.
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


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
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path} is damaged: {one_line(error, 300)}") from None
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


class Length(NamedTuple):
    """Epochs that a run was to have, and how its learning rate goes on to there; see `lengths`."""

    epochs: int
    schedule: str


def lengths(folder: Path | None, config: Config) -> list[Length]:
    """Returns how long a run was to be as it was begun, and each time that it was extended.

    Args:
      folder: the run's, if it has one, whether or not it is there.
      config: what it goes on with, which may extend it.

    Raises:
      ValueError: config.json is damaged.
    """
    now = Length(config.epochs, config.extension_schedule)
    if folder is None or not regular_files.check_regular(path := folder / "config.json"):
        return [now]
    if is_unbegun(folder):
        return [now]
    file = read_object(path)
    try:
        found = [Length(*one) for one in file.get("lengths", [])]
        found = found or [Length(file["config"]["epochs"], now.schedule)]
        for one in found:
            Config(epochs=one.epochs, extension_schedule=one.schedule)
        if sorted({one.epochs for one in found}) != [one.epochs for one in found]:
            raise ValueError("its lengths do not grow")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return [*found, now] if config.epochs > found[-1].epochs else found


def located(config: Config) -> Config:
    """Returns a configuration in which folders of weights are absolute paths."""
    places = {key: getattr(config, key) for key in ("backbone", "lora_adapter")}
    return Config.of(
        config,
        **{
            key: os.path.abspath(place)
            for key, name in places.items()
            if name and os.path.isdir(place := os.path.expanduser(name))
        },
    )


class Differences(NamedTuple):
    """What a folder's run has to do with a configuration.

    Attributes:
      notes: sentences for the reader.
      changes: {key: its values there and now}, of those that may differ.
      file: config.json; {} where there is none, or one that another run may replace.
    """

    notes: list[str]
    changes: dict[str, str]
    file: dict


def open_folder(
    folder: Path, config: Config, data: str | None = None, weights: Mapping[str, str] | None = None
) -> list[str]:
    """Makes the folder's config.json, or checks that its run can go on with this configuration.

    What differs, and may, is written then.

    Args:
      folder: the run's; need not exist where `data` is None.
      config: the whole configuration.
      data: fingerprint of the rows; None only checks, and makes nothing.
      weights: {key: digest of the weights that it names}.

    Returns:
      Notes: which versions and keys differ from those that the run had.

    Raises:
      ValueError: see `differences`.
      NotADirectoryError: the path is a file.
    """
    found = differences(folder, config, data, weights)
    notes, path = found.notes, folder / "config.json"
    if data is not None and not found.file:
        content = {"config": config.to_dict(), "data": data, "weights": dict(weights or {})}
        write_json(path, content | {"versions": versions()})
    elif found.changes:
        notes.append(f"the run goes on with other keys: {'; '.join(found.changes.values())}")
        if data is not None:
            times = lengths(folder, config)
            more: dict[str, Any] = {"lengths": times} if len(times) > 1 else {}
            if weights is not None:
                more["weights"] = dict(weights)
            write_json(path, found.file | {"config": config.to_dict()} | more)
    return notes


def differences(
    folder: Path, config: Config, data: str | None = None, weights: Mapping[str, str] | None = None
) -> Differences:
    """Checks that a folder's run, if it holds one, can go on with this configuration.

    A key that the run's configuration did not have yet counts as at its default. `Key.later` says
    which may differ. A run of which nothing was computed may become any other.

    Args:
      folder: the run's; need not exist.
      config: the whole configuration.
      data: fingerprint of the rows; None does not compare them.
      weights: {key: digest of the weights that it names}; None does not compare them.

    Raises:
      ValueError: the folder holds another configuration's run (lists the differences), or
        one of other rows or weights, or something else than a run.
      NotADirectoryError: the path is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, not a folder")
    path = folder / "config.json"
    if not regular_files.check_regular(path):
        if folder.exists() and not all(
            entry.name == _LOCK
            or is_partial(entry.name, "config.json")
            or (entry.name == _FOLDS and config.folds)  # one trained by itself
            or regular_files.is_clutter(entry)
            for entry in folder.iterdir()
        ):
            raise ValueError(
                f"{folder} is not empty and holds no run (no config.json); give a new folder"
            )
        return Differences([], {}, {})
    try:
        file = read_object(path)
        stored, rows, began = dict(file["config"]), file["data"], dict(file["versions"])
        named = dict(file.get("weights", {}))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is damaged; give a new folder, or remove the folder") from None
    notes = [
        f"the run began with {package} {began.get(package, 'unknown')}; this is {version}"
        for package, version in versions().items()
        if began.get(package) != version
    ]
    stored, now = flatten_keys(without_gone(stored)), flatten_keys(plain(config.to_dict()))
    # A key that there was not yet when the run began: its default is what the run did then.
    stored = flatten_keys(plain(Config().to_dict())) | stored
    keys = [key for key in {**stored, **now} if key not in now or stored[key] != now[key]]
    changes = {key: f"{key}: {_shown(stored, key)} there, {_shown(now, key)} now" for key in keys}
    wrong = [key for key, one in (weights or {}).items() if named.get(key) not in (None, one)]
    if (keys or wrong or data not in (None, rows)) and is_unbegun(folder):
        return Differences(
            [f"{folder} held a run of which nothing was computed yet; this one takes its place"],
            {},
            {},
        )
    grows, extended = config.epochs > _epochs(stored), "lengths" in file
    refused = [
        key for key in keys if not _may_become(key, stored[key], now, grows, named, extended)
    ]
    if refused:
        raise ValueError(
            f"{folder} holds another configuration's run "
            f"({'; '.join(changes[key] for key in refused)}); "
            "give a new folder, or the same configuration to continue"
            + "".join(f"; {note}" for note in notes)
        )
    told = f" ({'; '.join(changes.values())})" if changes else ""
    for key in wrong:
        raise ValueError(
            f"{folder} holds a run that began from other weights than those of "
            f"{key}={now[key]!r}{told}; give a new folder, or its own weights"
        )
    if data not in (None, rows):
        raise ValueError(
            f"{folder} holds a run on other rows: the data has changed since{told}; give a new "
            "folder"
        )
    return Differences(notes, changes, file)


def _may_become(key, before, now, grows, named, extended):
    what, value = later(key), now.get(key)
    return (
        what in ("any", "same rows")
        or (what == "more" and grows)
        or (what == "extending" and (grows or not extended))
        or (what == "same weights" and value not in ("", "scratch") and key in named)
        # Earlier versions wrote a folder as it was given, and no digest.
        or (what == "same weights" and value == os.path.abspath(os.path.expanduser(str(before))))
    )


def _epochs(stored):
    found = stored.get("epochs")
    return found if isinstance(found, int) else math.inf


def is_unbegun(folder: Path) -> bool:
    """Says whether nothing was saved of a run and no epoch ended, so that nothing of it is lost."""
    if regular_files.kind_of(folder / "summary.json"):
        return False
    saved = folder / "checkpoints"
    if regular_files.kind_of(saved) and any(name[0] != "." for name in os.listdir(saved)):
        return False
    folds = folder / _FOLDS
    if regular_files.kind_of(folds) == "a folder" and not all(map(is_unbegun, folds.iterdir())):
        return False
    records = folder / "metrics.jsonl"
    if not regular_files.check_regular(records):
        return True
    with regular_files.open_to_read(records) as file:
        return b'"kind": "evaluation"' not in file.read(_MOST_JSON)


def _shown(config, key):
    return repr(config[key]) if key in config else "nothing"
