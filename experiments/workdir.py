"""A run's folder: its configuration, metrics, summary and predictions.

config.json  metrics.jsonl  summary.json  predictions.csv  tokenizer/  backbone.json
checkpoints/  plots/
"""

import csv
import hashlib
import importlib.metadata
import json
import math
import os
import platform
from pathlib import Path

import numpy as np

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


def versions() -> dict[str, str]:
    """Returns the versions of what runs."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def plain(value):
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


def write_json(path: Path, value) -> None:
    """Writes a JSON file whole or not at all."""
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n", "utf-8")
    os.replace(partial, path)


def digest(parts) -> str:
    """Returns a fingerprint of an iterable of strings and arrays."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else np.asarray(part).tobytes())
        found.update(b"\0")
    return found.hexdigest()


def open_folder(folder: Path, config: dict, data: str | None = None) -> None:
    """Makes the folder and its config.json, or checks that it belongs to this configuration.

    Args:
      folder: the run's.
      config: the whole resolved configuration.
      data: fingerprint of the rows; None only checks, and makes nothing.

    Raises:
      ValueError: the folder holds another configuration's run (lists the differences), or
        one of other rows.
      NotADirectoryError: the path is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--workdir={folder} is a file, not a folder")
    path, config = folder / "config.json", plain(config)
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(
                f"--workdir={folder} is not empty and holds no run (no config.json); "
                "give a new folder"
            )
        if data is not None:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, {"config": config, "data": data, "versions": versions()})
        return
    try:
        file = json.loads(path.read_text("utf-8"))
        stored, rows = file["config"], file["data"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged; give a new --workdir, or remove the folder") from None
    keys = [key for key in {**stored, **config} if stored.get(key) != config.get(key)]
    if keys:
        changes = "; ".join(
            f"{key}: {stored.get(key)!r} there, {config.get(key)!r} now" for key in keys
        )
        raise ValueError(
            f"--workdir={folder} holds another configuration's run ({changes}); "
            "give a new folder, or the same configuration to continue"
        )
    if data is not None and rows != data:
        raise ValueError(
            f"--workdir={folder} holds a run on other rows: the data has changed since; "
            "give a new folder"
        )


class MetricsFile:
    """metrics.jsonl: one object a line, in order, none twice after a restart."""

    def __init__(self, path: Path):
        self.path = path

    def rewind(self, step: int) -> None:
        """Drops records past `step`, and a last line that was not written to its end."""
        if not self.path.exists():
            return
        kept = [record for record in self.read() if record["step"] <= step]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(record) + "\n" for record in kept), "utf-8")
        os.replace(partial, self.path)

    def write(self, record: dict) -> None:
        """Appends one record."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(record)) + "\n")

    def read(self) -> list[dict]:
        """Returns every whole record."""
        records = []
        if self.path.exists():
            for line in self.path.read_text("utf-8").splitlines():
                try:
                    records.append(json.loads(line))
                except ValueError:
                    break
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
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
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
    os.replace(partial, path)
