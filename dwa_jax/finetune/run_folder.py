"""A run's folder: its configuration, metrics, summary and predictions.

config.json  metrics.jsonl  summary.json  predictions.csv  tokenizer/  backbone.json
checkpoints/  plots/  lock

Files are written beside and renamed, so that a process killed at any moment leaves whole ones.
"""

import contextlib
import csv
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs import base
from dwa_jax.finetune import settings

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


_LOCK = "lock"


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


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields where to write what takes a file's place once it is whole.

    Raises:
      OSError: the disk is full, or will not be written; says which file.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise _unwritten(path, error) from error


def _unwritten(path, error):
    # Of a write that fails Python says why, not where.
    return OSError(f"{path} cannot be written: {error.strerror or error}")


def write_json(path: Path, value) -> None:
    """Writes a JSON file whole or not at all."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n"
    with replacing(path) as partial:
        partial.write_text(text, "utf-8")


def read_json(path: Path) -> dict:
    """Reads a JSON file that holds an object.

    Raises:
      ValueError: it is damaged.
      OSError: it cannot be read.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it holds no object")
    return value


def digest(parts) -> str:
    """Returns a fingerprint of an iterable of strings and arrays."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else np.asarray(part).tobytes())
        found.update(b"\0")
    return found.hexdigest()


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Holds a folder for one process, which need not end well to let go of it.

    Args:
      folder: an existing one.

    Raises:
      ValueError: another process holds it; says which.
    """
    with (folder / _LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "it has not said which"
            raise ValueError(
                f"--workdir={folder} is in use by another process ({holder}); wait for it to "
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

    A key that the run's configuration did not have yet counts as at its default in base.py.

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
        raise NotADirectoryError(f"--workdir={folder} is a file, not a folder")
    path, config = folder / "config.json", plain(config)
    if not path.exists():
        ours = {_LOCK, "config.json.partial"}
        if folder.exists() and any(entry.name not in ours for entry in folder.iterdir()):
            raise ValueError(
                f"--workdir={folder} is not empty and holds no run (no config.json); "
                "give a new folder"
            )
        if data is not None:
            write_json(path, {"config": config, "data": data, "versions": versions()})
        return []
    try:
        file = json.loads(path.read_text("utf-8"))
        stored, rows, began = dict(file["config"]), file["data"], dict(file["versions"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged; give a new --workdir, or remove the folder") from None
    notes = [
        f"the run began with {package} {began.get(package, 'unknown')}; this is {version}"
        for package, version in versions().items()
        if began.get(package) != version
    ]
    stored, config = settings.flatten(stored), settings.flatten(config)
    # A key that there was not yet when the run began: its default is what the run did then.
    defaults = settings.flatten(plain(base.get_config().to_dict()))
    newer = {key: value for key, value in defaults.items() if key in config and key not in stored}
    stored, missing = newer | stored, object()
    keys = [key for key in {**stored, **config} if stored.get(key, missing) != config.get(key)]
    if keys:
        changes = "; ".join(
            f"{key}: {_shown(stored, key)} there, {_shown(config, key)} now" for key in keys
        )
        raise ValueError(
            f"--workdir={folder} holds another configuration's run ({changes}); "
            "give a new folder, or the same configuration to continue"
            + "".join(f"; {note}" for note in notes)
        )
    if data is not None and rows != data:
        raise ValueError(
            f"--workdir={folder} holds a run on other rows: the data has changed since; "
            "give a new folder"
        )
    return notes


def _shown(config, key):
    return repr(config[key]) if key in config else "nothing"


class MetricsFile:
    """metrics.jsonl: one object a line, in order, none twice after a restart."""

    def __init__(self, path: Path):
        self.path = path

    def rewind(self, step: int, evaluated: int) -> None:
        """Drops what came after a checkpoint, and a last line that was not written to its end.

        Args:
          step: of the checkpoint.
          evaluated: epochs that were evaluated by then; at an epoch's end it may not be yet.
        """
        if not self.path.exists():
            return
        kept = [
            record
            for record in self.read()
            if record["step"] <= step
            and (record["kind"] != "evaluation" or record["epoch"] <= evaluated)
        ]
        with replacing(self.path) as partial:
            partial.write_text("".join(json.dumps(record) + "\n" for record in kept), "utf-8")

    def write(self, record: dict) -> None:
        """Appends one record.

        Raises:
          OSError: the disk is full, or will not be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(plain(record)) + "\n")
        except OSError as error:
            raise _unwritten(self.path, error) from error

    def read(self) -> list[dict]:
        """Returns every record but a last one that was not written to its end.

        Raises:
          ValueError: another line is damaged.
        """
        if not self.path.exists():
            return []
        records = []
        lines = self.path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            try:
                records.append(json.loads(line))
            except ValueError:
                if number == len(lines) and not line.endswith(b"\n"):
                    break
                raise ValueError(
                    f"line {number} of {self.path} is damaged; remove that line to continue "
                    "without it"
                ) from None
        return records


def write_predictions(path: Path, rows, predictions: dict[str, np.ndarray]) -> None:
    """Writes predictions.csv: text, labels, predictions, one probability a category.

    Args:
      path: the file.
      rows: N labelled texts.
      predictions: "score" (N,), "category" (N,), "probabilities" (N, K) or None, and
        the true "categories" (N,), -1 where missing.
    """
    probabilities = predictions["probabilities"]
    num_classes = 0 if probabilities is None else probabilities.shape[1]
    header = ["text", "score", "predicted_score", "category", "predicted_category"]
    header += [f"probability_{k}" for k in range(num_classes)]
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for i, text in enumerate(rows.texts):
            score, category = rows.scores[i], predictions["categories"][i]
            line = [
                text,
                "" if np.isnan(score) else float(score),
                float(predictions["score"][i]),
                "" if category < 0 else int(category),
                int(predictions["category"][i]),
            ]
            line += [float(probabilities[i, k]) for k in range(num_classes)]
            writer.writerow(line)


class Predictions(NamedTuple):
    """What predictions.csv holds: N rows, K categories.

    Attributes:
      texts: N strings.
      scores: (N,) true, NaN where the row has none.
      predicted_scores: (N,), NaN for a run without regression.
      categories: (N,) true, -1 where the row has none.
      predicted_categories: (N,).
      probabilities: (N, K), or None for a run without classification.
    """

    texts: list[str]
    scores: np.ndarray
    predicted_scores: np.ndarray
    categories: np.ndarray
    predicted_categories: np.ndarray
    probabilities: np.ndarray | None


def read_predictions(path: Path) -> Predictions:
    """Reads predictions.csv.

    Args:
      path: the file.

    Returns:
      Its rows, in their order.

    Raises:
      ValueError: it is damaged; says where.
      OSError: it cannot be read.
    """
    number = 1
    kinds = {"text": str, "score": float, "predicted_score": float}
    kinds |= {"category": int, "predicted_category": int}
    missing = {float: math.nan, int: -1}
    # A text may be longer than the 128 KiB that the module takes by itself.
    previous = csv.field_size_limit(2**31 - 1)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            num_classes = len(header) - len(kinds)
            kinds |= {f"probability_{k}": float for k in range(num_classes)}
            if header != list(kinds):
                raise ValueError("its columns are not those of a run's predictions")
            columns: dict[str, list] = {name: [] for name in kinds}
            for line in lines:
                number = lines.line_num
                for (name, kind), cell in zip(kinds.items(), line, strict=True):
                    columns[name].append(kind(cell) if cell or kind is str else missing[kind])
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is damaged at line {number}: {error}") from None
    finally:
        csv.field_size_limit(previous)
    probabilities = [columns[f"probability_{k}"] for k in range(num_classes)]
    return Predictions(
        columns["text"],
        np.array(columns["score"], float),
        np.array(columns["predicted_score"], float),
        np.array(columns["category"], int),
        np.array(columns["predicted_category"], int),
        np.array(probabilities, float).T if num_classes else None,
    )
