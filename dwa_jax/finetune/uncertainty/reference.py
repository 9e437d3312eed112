"""What a run keeps of its training and validation rows, by which later texts are judged.

reference.safetensors  of at most `MOST` rows of each split, drawn by the seed: lengths, labels,
predictions and pooled hidden states; no texts

Axes: N rows, D width.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dwa_jax import backbones, data, regular_files
from dwa_jax.finetune import loop
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import Corpus
from dwa_jax.finetune.setup import Setup
from dwa_jax.messages import shown

FILE = "reference.safetensors"
# Rows of each split: what is estimated from as many is off by a percent, and the file is small.
MOST = 1000
_SPLITS = ("train", "validation")


class KeptRows(NamedTuple):
    """What is kept of N rows of a split, without their texts.

    Attributes:
      lengths: (N,) int32, tokens a text.
      unknown: (N,) int32, tokens of them that the tokenizer does not know.
      scores: (N,) float32 true, nan where missing.
      predicted_scores: (N,) float32 in [-1, 1], nan for a run without regression.
      categories: (N,) int32 true, -1 where missing.
      predicted_categories: (N,) int32.
      representations: (N, D) float16, pooled hidden states of length 1.
    """

    lengths: np.ndarray
    unknown: np.ndarray
    scores: np.ndarray
    predicted_scores: np.ndarray
    categories: np.ndarray
    predicted_categories: np.ndarray
    representations: np.ndarray


_TYPES = {
    name: np.dtype(kind)
    for name, kind in zip(KeptRows._fields, ("i4", "i4", "f4", "f4", "i4", "i4", "f2"), strict=True)
}


class Reference(NamedTuple):
    """The rows that a run learned from, and those that chose its best epoch."""

    train: KeptRows
    validation: KeptRows


def gather(
    config: Config,
    setup: Setup,
    state: Any,
    batches: dict[str, data.Batches],
    corpus: Corpus,
    tokenizer: Any,
) -> Reference:
    """Predicts a part of the training and of the validation rows, and keeps what comes of it.

    Args:
      config: the whole configuration.
      setup: of the run.
      state: the best epoch's.
      batches: of each split.
      corpus: labelled rows.
      tokenizer: whose unknown tokens are counted.
    """
    kept = {}
    for split in _SPLITS:
        rows, ids = corpus.rows[split], batches[split].ids
        drawn = np.sort(np.random.default_rng(config.seed).permutation(len(ids))[:MOST])
        chosen = ids.take(drawn)
        # In the shapes of the validation rows, which are compiled.
        buckets = [length for _, length in batches["validation"].shapes]
        longest = int(chosen.lengths.max())
        if longest > buckets[-1]:
            buckets.append(longest)
        scores, categories = rows.scores[drawn], corpus.categories[split][drawn]
        part = data.Batches(
            chosen,
            scores,
            categories,
            batch_size=config.eval_batch_size,
            buckets=buckets,
            seed=config.seed,
            pad_id=tokenizer.pad_token_id,
            rows_of=batches[split].rows_of,
        )
        found = loop.predict_split(
            setup, state, part, len(chosen), corpus.thresholds, representation=True
        )
        predicted = found["score"], found["category"], found["representation"]
        kept[split] = keep_rows(chosen, tokenizer, scores, categories, *predicted)
    return Reference(**kept)


def keep_rows(
    ids: Sequence[np.ndarray],
    tokenizer: Any,
    scores: np.ndarray,
    categories: np.ndarray,
    predicted_scores: np.ndarray | None,
    predicted_categories: np.ndarray,
    representations: np.ndarray,
) -> KeptRows:
    """Puts together what is kept of N rows.

    Args:
      ids: N rows of token ids.
      tokenizer: that gave them.
      scores: (N,) true, nan where missing.
      categories: (N,) true, -1 where missing.
      predicted_scores: (N,), or None without regression.
      predicted_categories: (N,).
      representations: (N, D) of length 1.
    """
    if predicted_scores is None:
        predicted_scores = np.full(len(ids), np.nan)
    columns = {
        "lengths": np.array([len(row) for row in ids]),
        "unknown": data.count_unknown(tokenizer, ids),
        "scores": scores,
        "predicted_scores": np.clip(predicted_scores, -1, 1),
        "categories": categories,
        "predicted_categories": predicted_categories,
        # Of a model that has diverged.
        "representations": np.nan_to_num(representations),
    }
    return KeptRows(**{name: np.asarray(x, _TYPES[name]) for name, x in columns.items()})


def write(folder: Path, reference: Reference) -> None:
    """Writes the file into a run's folder."""
    named = {
        f"{split}/{name}": column
        for split in _SPLITS
        for name, column in getattr(reference, split)._asdict().items()
    }
    backbones.save_tensors(folder / FILE, named)


def read(folder: Path, width: int, num_classes: int) -> Reference | None:
    """Reads the file.

    Args:
      folder: of the run, which may be a stranger's.
      width: D of its model.
      num_classes: K.

    Returns:
      What was kept; None for a run of an earlier version, which kept nothing.

    Raises:
      ValueError: it is damaged; names file and tensor.
      OSError: it cannot be read.
    """
    path = folder / FILE
    if not regular_files.check_regular(path):
        return None
    with contextlib.ExitStack() as stack:
        tensors = backbones.open_safetensors(stack, path)
        wanted = {f"{split}/{name}" for split in _SPLITS for name in KeptRows._fields}
        if wrong := sorted(wanted ^ set(tensors)):
            raise ValueError(f"{path} is damaged: {shown(wrong[0])} is missing or not expected")
        kept = {}
        for split in _SPLITS:
            shape = tensors[f"{split}/lengths"][0]
            count = shape[0] if len(shape) == 1 else 0
            if not 1 <= count <= MOST:
                raise ValueError(f"{path} is damaged: {split} has shape {shape}, not 1 to {MOST}")
            columns = {}
            for name, kind in _TYPES.items():
                there, read_tensor = tensors[f"{split}/{name}"]
                if there != ((count, width) if name == "representations" else (count,)):
                    raise ValueError(f"{path} is damaged: {split}/{name} has shape {there}")
                columns[name] = read_tensor()
                if columns[name].dtype != kind:
                    raise ValueError(f"{path} is damaged: {split}/{name} is {columns[name].dtype}")
            kept[split] = KeptRows(**columns)
            _check(path, split, kept[split], num_classes)
    return Reference(**kept)


def _check(path, split, rows, num_classes):
    fits = {
        "lengths": rows.lengths >= 1,
        "unknown": (rows.unknown >= 0) & (rows.unknown <= rows.lengths),
        "scores": ~(np.abs(rows.scores) > 1),
        "predicted_scores": ~(np.abs(rows.predicted_scores) > 1),
        "categories": (rows.categories >= -1) & (rows.categories < num_classes),
        "predicted_categories": (rows.predicted_categories >= 0)
        & (rows.predicted_categories < num_classes),
        "representations": np.abs(rows.representations) <= 1.01,
    }
    for name, good in fits.items():
        if not good.all():
            raise ValueError(f"{path} is damaged: {split}/{name} is out of range")
