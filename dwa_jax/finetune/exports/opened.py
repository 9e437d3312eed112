"""Opens what was written with the program that it is for, and compares.

Axes: N texts, T tokens, K categories.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from dwa_jax import backbones, data, sharding, training
from dwa_jax.finetune.exports.form import ExportForm
from dwa_jax.finetune.model import module_options
from dwa_jax.finetune.outputs import read_outputs
from dwa_jax.finetune.saved import Trained
from dwa_jax.messages import one_line

TOLERANCE = 1e-4
# Texts that are compared: enough for unequal lengths, few enough for a large model on a CPU.
_TEXTS = 8
_USUAL = ("EUR/USD jumps after ECB", "Pound slips", "the dollar falls against the yen, again")


# Of a file that is near the run and not the same, there is more to tell than whether it is right.
_MORE_TEXTS = 64


class Near(NamedTuple):
    """How near a file is to the run whose numbers it does not have.

    Attributes:
      file: its name.
      texts: how many were compared.
      score_mean: mean absolute difference of scores; None without regression.
      score_most: the largest.
      same: share of the texts whose category is the same.
    """

    file: str
    texts: int
    score_mean: float | None
    score_most: float | None
    same: float

    def sentence(self) -> str:
        """Says it."""
        scores = (
            ""
            if self.score_mean is None
            else f"{self.file}'s scores differ by {self.score_mean:.3f} on average and "
            f"{self.score_most:.3f} at most, and "
        )
        of = "the categories" if scores else f"{self.file}'s categories"
        return f"on {self.texts} texts of the run, {scores}{self.same:.1%} of {of} are the same"


class Opened(NamedTuple):
    """What came of opening an export.

    Attributes:
      package: what opened it, with its version.
      texts: how many were compared.
      difference: the largest, of scores and probabilities.
      near: of a file that has other numbers, where there is one.
    """

    package: str
    texts: int
    difference: float
    near: Near | None = None


def open_and_compare(run: Trained, form: ExportForm, folder: Path) -> Opened | None:
    """Opens an export and compares what it gives with the model computed in float32.

    Args:
      run: what was exported.
      form: what it was written as.
      folder: where.

    Returns:
      The largest difference; None where what opens it is not installed.

    Raises:
      ValueError: it cannot be opened, or differs by more than `TOLERANCE`.
    """
    if not all(map(_installed, form.packages)):
        return None
    package = form.packages[0].replace("_", "-")
    name = f"{package} {importlib.metadata.version(package)}"
    texts = _some_texts(run)
    normalize = data.normalize_tweet if run.config.normalize_tweets else None

    def opened(outputs, texts):
        try:
            with _quietly(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                given = [normalize(text) for text in texts] if normalize else texts
                return outputs(run, folder, given)
        except Exception as error:  # whatever another library raises
            words = one_line(error, 300)
            raise ValueError(
                f"{name} cannot open what was written, which is removed again: {words}; "
                "check=False leaves that out"
            ) from error

    theirs = read_outputs(opened(form.outputs, texts), run.thresholds)
    ours = read_outputs(_ours(run, texts, normalize), run.thresholds)
    # Categories follow from them.
    pairs = [(ours[i], theirs[i]) for i in (0, 2) if ours[i] is not None]
    difference = max(
        float(np.abs(np.asarray(one) - np.asarray(other)).max()) for one, other in pairs
    )
    # Written so that nan fails as well.
    if not difference <= TOLERANCE:
        raise ValueError(
            f"opened with {name}, what was written differs from the run by {difference:.1e} on "
            f"{len(texts)} texts, more than {TOLERANCE:g}; it is removed again, which check=False "
            "leaves out"
        )
    near = None
    if form.near is not None and run.predictions is not None:
        file, outputs = form.near
        near = _how_near(run, file, functools.partial(opened, outputs))
    return Opened(name, len(texts), difference, near)


def _how_near(run, file, opened):
    known = run.predictions
    places = np.unique(np.linspace(0, len(known.texts) - 1, _MORE_TEXTS).round().astype(int))
    found = opened([known.texts[place] for place in places])
    score, category, _ = read_outputs(found, run.thresholds, run.config.clip_scores)
    far = None if score is None else np.abs(score - known.predicted_scores[places])
    same = float(np.mean(category == known.predicted_categories[places]))
    return Near(
        file,
        len(places),
        None if far is None else float(far.mean()),
        None if far is None else float(far.max()),
        same,
    )


def _installed(package):
    return importlib.util.find_spec(package) is not None


def _some_texts(run):
    known = sorted({*run.predictions.texts} if run.predictions else _USUAL, key=len)
    places = np.linspace(0, len(known) - 1, min(_TEXTS, len(known))).round().astype(int)
    return [known[place] for place in places]


def _ours(run, texts, normalize):
    # In float32, which is what is written, whatever the run computed in.
    config = dataclasses.replace(run.config, dtype="float32")
    module = backbones.build(run.module.config, **module_options(config))
    wide = dataclasses.replace(
        run, frozen=jax.tree.map(lambda leaf: leaf.astype(np.float32), run.frozen)
    )
    ids = data.encode(run.tokenizer, texts, run.max_tokens, normalize).ids
    mesh = sharding.data_mesh()
    batch = data.pad_rows(ids, len(ids), max(map(len, ids)), run.tokenizer.pad_token_id)
    predict = training.make_predict(
        module, run.tasks, pooling=run.pooling, lora_scale=run.lora_scale
    )
    # An accelerator would multiply in fewer digits.
    with jax.default_matmul_precision("highest"):
        found = jax.device_get(predict(wide, sharding.shard_rows(batch, mesh)))
    return {name: np.asarray(values)[: len(texts)] for name, values in found.items()}


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    # Other libraries' bars and advice; what matters of it is compared.
    from transformers.utils import logging as theirs

    level, bars = logging.root.manager.disable, theirs.is_progress_bar_enabled()
    logging.disable(logging.ERROR)
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        logging.disable(level)
        if bars:
            theirs.enable_progress_bar()
