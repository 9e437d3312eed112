"""A trained model as a function from texts to scores, categories and probabilities.

>>> model = dwa_jax.load("runs/mine")
>>> model(["EUR/USD jumps after ECB"])[0].score

Axes: N texts, B rows of a batch, T tokens, K categories.
"""

import dataclasses
import html
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from dwa_jax import data, regular_files, sharding, training
from dwa_jax.data import cells
from dwa_jax.data.rescaling import as_written
from dwa_jax.finetune import export, in_flight, plots, saved
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.model import check_ids
from dwa_jax.finetune.outputs import read_outputs
from dwa_jax.finetune.padded_shapes import PaddedShapes
from dwa_jax.finetune.setup import make_tasks
from dwa_jax.finetune.uncertainty import conformal
from dwa_jax.finetune.uncertainty import reference as references
from dwa_jax.finetune.uncertainty.likeness import Likeness, of_reference
from dwa_jax.finetune.uncertainty.reference import KeptRows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Metrics that say at a glance what a model is worth.
_AT_A_GLANCE = ("mse", "r2", "pearson", "accuracy", "f1_macro")
# Multiplications in the time of one compilation, most of which a cache of programs answers:
# of two cores, or of an accelerator.
_COMPILATION = {"cpu": 6e9, "other": 6e12}


class Prediction(NamedTuple):
    """What a run says of one text.

    Attributes:
      score: None where the run has no regression task.
      category: 0 to K-1; by the thresholds where the run has no classification task.
      name: the category's, where the run was given names.
      probabilities: K numbers; None where the run has no classification task.
      in_range: the score in `score_range`; None where the run has neither.
      truncated: whether the text is longer than what the run allows, and lost its end.
      interval: (low, high) that holds the true score as often as the run's key `coverage` says,
        in `score_range` where the run has one; None where it has no regression, or keeps no
        validation rows.
      unlike: whether the text is unlike those that the model was trained on, see
        `uncertainty.likeness`; None where the run keeps no rows.
      abstained: whether `abstain` marks it; None where nobody asked.
    """

    score: float | None
    category: int
    name: str | None
    probabilities: tuple[float, ...] | None
    in_range: float | None = None
    truncated: bool = False
    interval: tuple[float, float] | None = None
    unlike: bool | None = None
    abstained: bool | None = None


class Predictions(NamedTuple):
    """The same of N texts, as arrays.

    Attributes:
      score: (N,), or None.
      category: (N,).
      probabilities: (N, K), or None.
      in_range: (N,) the scores in `score_range`; None where the run has neither.
      truncated: (N,) booleans, or None where token ids were given.
      interval: (N, 2) low and high, or None.
      unlike: (N,) booleans, or None.
      abstained: (N,) booleans, or None where nobody asked.
    """

    score: np.ndarray | None
    category: np.ndarray
    probabilities: np.ndarray | None
    in_range: np.ndarray | None = None
    truncated: np.ndarray | None = None
    interval: np.ndarray | None = None
    unlike: np.ndarray | None = None
    abstained: np.ndarray | None = None


class Predictor:
    """A trained model: predicts texts, and knows how it came about.

    `dwa_jax.train` and `dwa_jax.load` return one.

    Attributes:
      run: what was trained.
      batch_size: rows that go through the model at once.
      names: of the categories; None where the run was given none.
      clip_scores: whether scores beyond [-1, 1] are given as its ends; the run's key of this
        name, and can be set.
      coverage: how often intervals are to hold the true score, likewise.
      intervals: one of `uncertainty.conformal.HOW`, likewise.
    """

    def __init__(self, run: saved.Trained, batch_size: int | None = None):
        """Takes over a model that was trained or loaded.

        Args:
          run: from `saved.load` or `run.finish`.
          batch_size: B; by default what the run evaluated with, or the next multiple of the
            number of devices here.

        Raises:
          ValueError: the batch size is no whole number, or below 1.
        """
        size = run.config.eval_batch_size if batch_size is None else batch_size
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise ValueError(f"batch_size={size!r:.60} must be a whole number of at least 1")
        self.run = run
        self.batch_size = int(size)
        self.names: tuple[str, ...] | None = run.config.category_names or None
        self.clip_scores = run.config.clip_scores
        self.coverage = run.config.coverage
        self.intervals = run.config.intervals
        self._begin()

    def _begin(self):
        run = self.run
        self._mesh = sharding.data_mesh()
        self.batch_size = -(-self.batch_size // self._mesh.size) * self._mesh.size
        self._predict = training.make_predict(
            run.module,
            run.tasks,
            pooling=run.pooling,
            lora_scale=run.lora_scale,
            representation=True,
        )
        self._likeness = None if run.reference is None else of_reference(run.reference)
        shape = run.module.config
        # A token's multiplications, nearly, and what is worth one compilation of them.
        per_token = 12 * shape.num_layers * shape.hidden_size**2
        worth = _COMPILATION["cpu" if self._mesh.devices.flat[0].platform == "cpu" else "other"]
        self._shapes = PaddedShapes(run.max_tokens, worth / per_token, self._mesh.size)

    @classmethod
    def load(
        cls,
        workdir: str | os.PathLike,
        batch_size: int | None = None,
        backbone: str | os.PathLike = "",
    ) -> "Predictor":
        """Loads the best epoch of a finished run.

        Args:
          workdir: the run's folder.
          batch_size: rows that go through the model at once.
          backbone: see `saved.load`.

        Raises:
          ValueError: the run cannot be used; one line says why.
          OSError: a file cannot be read.
        """
        return cls(saved.load(workdir, backbone), batch_size)

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json holds: metrics of the splits, best epoch, timing, and more."""
        return self.run.summary

    @property
    def history(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl: one a logged step, one an evaluation."""
        return self.run.metrics

    @property
    def thresholds(self) -> np.ndarray | None:
        """(K-1,) scores between the categories; None where no row had a score."""
        return None if self.run.thresholds is None else np.asarray(self.run.thresholds, float)

    @property
    def config(self) -> Config:
        """The whole configuration that it was trained with."""
        return self.run.config

    def save(self, folder: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Writes a folder that `dwa_jax.load` and every program take.

        Args:
          folder: a new or an empty one, or one that this wrote before.
          overwrite: whether one that this wrote is replaced also where its files were changed
            since. One that holds other files never is.

        Returns:
          The folder.

        Raises:
          ValueError: the folder holds something else, or what was changed; nothing is written.
          TypeError: the folder is neither a text nor a path.
          OSError: it cannot be written.
        """
        path = regular_files.named_path(folder)
        written = saved.write(self.run, path, overwrite=overwrite)
        if self.run.folder is None:
            self.run = written
        return path

    def export(
        self,
        folder: str | os.PathLike,
        *,
        format: str = "",
        license: str = "unknown",
        check: bool = True,
        overwrite: bool = False,
    ) -> Path:
        """Writes a form that other programs open; see `dwa_jax.finetune.export`.

        Args:
          folder: a new or an empty one, or an earlier export.
          format: one of `export.FORMATS`; "" takes the first that can hold this model.
          license: identifier for the model card.
          check: whether it is opened, where what opens it is installed, and compared.
          overwrite: whether an earlier export is replaced also where its files were changed
            since. A folder that holds other files never is.

        Returns:
          The folder.

        Raises:
          ValueError: the format does not exist or cannot hold this model, or the folder holds
            something else, or what was changed; nothing is written.
          TypeError: the folder is neither a text nor a path.
          OSError: it cannot be written.
        """
        path = regular_files.named_path(folder)
        return export.export(
            self.run, format, path, license=license, overwrite=overwrite, check=check
        )

    def figures(self) -> dict[str, "Figure"]:
        """Draws the pictures of the run.

        Returns:
          {"score_distribution", "losses", "weights", "confusion", "predicted_vs_true",
          "score_panels", "reliability": a matplotlib figure} without those that there is nothing
          for.
        """
        return plots.draw(self.run.summary, self.run.metrics, self.run.predictions)

    def __getstate__(self) -> dict[str, Any]:
        # What is compiled and where it runs belongs to a process; losses are functions.
        state = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        arrays = {
            name: jax.tree.map(np.asarray, getattr(self.run, name))
            for name in ("theta", "frozen", "psi")
        }
        return state | {"run": dataclasses.replace(self.run, **arrays, tasks=[])}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.run = dataclasses.replace(self.run, tasks=make_tasks(self.run.config))
        self._begin()

    def _told(self):
        run, shape = self.run, self.run.module.config
        split = run.summary["predictions"]
        found = run.summary[split]
        known = {name: found.get(name) for name in _AT_A_GLANCE}
        numbers = {
            f"{split} {name}": f"{value:.4f}" for name, value in known.items() if value is not None
        }
        return {
            "backbone": f"{run.config.backbone} ({shape.family}, {shape.num_layers} layers of "
            f"{shape.hidden_size})",
            "tasks": ", ".join(task.name for task in run.tasks),
            "weighting": run.config.weighting,
            "best epoch": f"{run.summary['best_epoch']} of {run.summary['epochs']}",
            **numbers,
            "folder": "none" if run.folder is None else str(run.folder),
        }

    def __repr__(self) -> str:
        words = ", ".join(f"{name}: {value}" for name, value in self._told().items())
        return f"<dwa_jax model; {words}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self._told().items()
        )
        return f"<table><caption>dwa_jax model</caption>{rows}</table>"

    def __call__(self, texts: Iterable[str], *, abstain: float | None = None) -> list[Prediction]:
        """Predicts texts, in their order.

        Args:
          texts: any number, as a list, a column of a table or whatever else yields them; one
            longer than what the run allows is cut, as it was there.
          abstain: see `abstentions`; None marks none.

        Raises:
          ValueError: a text has no token, or the model cannot abstain.
          TypeError: a single string is given, or something else than strings.
        """
        return self.each(self.predict(texts, abstain=abstain))

    def each(self, found: Predictions) -> list[Prediction]:
        """Returns what was predicted of N texts, text by text."""

        def one(values, i, kind):
            return None if values is None else kind(values[i])

        def several(values):
            return tuple(map(float, values))

        return [
            Prediction(
                score=one(found.score, i, float),
                category=int(category),
                name=self.names[category] if self.names else None,
                probabilities=one(found.probabilities, i, several),
                in_range=one(found.in_range, i, float),
                truncated=found.truncated is not None and bool(found.truncated[i]),
                interval=one(found.interval, i, several),
                unlike=one(found.unlike, i, bool),
                abstained=one(found.abstained, i, bool),
            )
            for i, category in enumerate(found.category)
        ]

    def predict(
        self,
        texts: Iterable[str],
        origin: Sequence[tuple[str, int]] | None = None,
        *,
        abstain: float | None = None,
    ) -> Predictions:
        """Predicts texts, in their order.

        Args:
          texts: N strings.
          origin: N pairs (file, row number), for a message.
          abstain: see `abstentions`; None marks none.

        Returns:
          What there is to say of each, as arrays.

        Raises:
          ValueError: a text has no token, or the model cannot abstain.
          TypeError: a single string is given, or something else than strings.
        """
        if abstain is not None:
            self.check_abstain(abstain)
        return self.predict_tokens(self.tokens(_listed(texts), origin), abstain=abstain)

    def predict_tokens(self, encoded: data.Encoded, *, abstain: float | None = None) -> Predictions:
        """Predicts N texts that `tokens` returned.

        Args:
          encoded: what was returned.
          abstain: a width that `check_abstain` takes, or None.
        """
        found = self.predict_ids(encoded.ids)._replace(truncated=encoded.truncated)
        if abstain is None:
            return found
        return found._replace(abstained=self.abstentions(found, abstain))

    def check_abstain(self, width: float) -> None:
        """Checks that the model can say which texts it would rather not judge.

        Args:
          width: see `abstentions`.

        Raises:
          ValueError: it is no width, or the run keeps nothing that it takes.
        """
        if isinstance(width, bool) or not isinstance(width, int | float) or not width > 0:
            raise ValueError(f"abstain={width!r:.60} must be a width above 0, or infinity")
        if self.run.reference is None:
            raise ValueError(
                f"abstain={width:g} takes what a run keeps of its rows, {references.FILE}, which "
                "runs of earlier versions lack; train it again"
            )
        if width < np.inf and self.fit_intervals() is None:
            raise ValueError(
                f"abstain={width:g} is a width of intervals, which a model without regression, or "
                "without scores in its validation rows, has none of; abstain=inf marks texts that "
                "are unlike the training's"
            )

    def abstentions(self, found: Predictions, width: float) -> np.ndarray:
        """Says of which texts a person had better judge.

        Args:
          found: predictions of N texts by this model.
          width: of the widest interval that will do, in `score_range` where the run has one;
            infinity where any will.

        Returns:
          (N,) booleans: the interval is wider, or the text unlike the training texts.
        """
        assert found.unlike is not None, "check_abstain tells of a run without reference"
        if found.interval is None:
            return found.unlike
        # What rounding adds to a width is not wider.
        wide = found.interval[:, 1] - found.interval[:, 0] > width * (1 + 1e-6)
        return found.unlike | wide

    @property
    def likeness(self) -> Likeness | None:
        """By which texts are like the training's; None of a run that keeps no rows."""
        return self._likeness

    def fit_intervals(self) -> conformal.Intervals | None:
        """Fits the intervals that `coverage` and `intervals` ask for; None where there are none."""
        if self.run.reference is None:
            return None
        num_classes = self.run.config.num_classes
        return conformal.fit_intervals(
            self.run.reference, num_classes, self.coverage, self.intervals
        )

    def encode(
        self, texts: Sequence[str], origin: Sequence[tuple[str, int]] | None = None
    ) -> data.TokenRows:
        """Turns texts into token ids as the run did; see `data.encode`."""
        return self.tokens(texts, origin).ids

    def tokens(
        self,
        texts: Sequence[str],
        origin: Sequence[tuple[str, int]] | None = None,
        *,
        allow_wordless: bool = False,
    ) -> data.Encoded:
        """Turns texts into token ids as the run did, and says which of them were cut."""
        run = self.run
        normalize = data.normalize_tweet if run.config.normalize_tweets else None
        encoded = data.encode(
            run.tokenizer, texts, run.max_tokens, normalize, origin, allow_wordless=allow_wordless
        )
        check_ids(encoded.ids, run.module.config.vocab_size)
        return encoded

    def warm_up(self, shapes: Iterable[tuple[int, int]]) -> dict[tuple[int, int], float]:
        """Compiles programs for batches of these shapes, and pads to no others from here on.

        Batches that fit none of them are padded to shapes of their own, as before.

        Args:
          shapes: (rows, tokens) of each, rows a multiple of the number of devices.

        Returns:
          The seconds that a batch of each shape takes.
        """
        seconds = {}
        for rows, length in shapes:
            filled = [np.zeros(length, np.int32)] * rows
            batch = data.pad_rows(filled, rows, length, self.run.tokenizer.pad_token_id)
            for _ in ("compiled", "timed"):
                began = time.perf_counter()
                jax.block_until_ready(
                    self._predict(self.run, sharding.shard_rows(batch, self._mesh))
                )
            seconds[rows, length] = time.perf_counter() - began
        self._shapes.fix(seconds)
        return seconds

    def predict_ids(self, ids: Sequence[np.ndarray]) -> Predictions:
        """Predicts N rows of token ids, each (length of the text,)."""
        run = self.run
        lengths = np.array([len(row) for row in ids], np.int64)
        outputs = {task.name: np.zeros((len(ids), task.outputs)) for task in run.tasks}
        distances = np.zeros(len(ids))
        for rows, found in self._computed(ids, lengths):
            for name, values in outputs.items():
                values[rows] = found[name]
            if self._likeness is not None:
                distances[rows] = self._likeness.distances(found["representation"])
        predictions = Predictions(*read_outputs(outputs, run.thresholds, self.clip_scores))
        return predictions._replace(
            in_range=scores_in_range(run.config, predictions.score),
            interval=self._intervals_around(predictions, lengths),
            unlike=None if self._likeness is None else distances > self._likeness.limit,
        )

    def observe(
        self, ids: Sequence[np.ndarray], scores: np.ndarray, categories: np.ndarray
    ) -> KeptRows:
        """Predicts rows, and returns of them what a run keeps of its own.

        Args:
          ids: N rows of token ids, each (length of the text,).
          scores: (N,) true, in [-1, 1]; nan where missing.
          categories: (N,) true, -1 where missing.
        """
        run = self.run
        lengths = np.array([len(row) for row in ids], np.int64)
        outputs = {task.name: np.zeros((len(ids), task.outputs)) for task in run.tasks}
        outputs["representation"] = np.zeros((len(ids), run.module.config.hidden_size))
        for rows, found in self._computed(ids, lengths):
            for name, values in outputs.items():
                values[rows] = found[name]
        score, category, _ = read_outputs(outputs, run.thresholds)
        return references.keep_rows(
            ids, run.tokenizer, scores, categories, score, category, outputs["representation"]
        )

    def _computed(self, ids, lengths):
        # Yields (rows, {task: (B, outputs), "representation": (B, D)}), B of the rows alone.
        # The longest first: what does not fit the memory fails at once.
        order = np.argsort(-lengths, kind="stable")
        shapes = self._shapes.choose(lengths[order], self.batch_size)

        def begun():
            for number, (count, length) in enumerate(shapes):
                rows = order[number * self.batch_size :][: self.batch_size]
                chosen = [ids[row] for row in rows]
                batch = data.pad_rows(chosen, count, length, self.run.tokenizer.pad_token_id)
                yield rows, self._predict(self.run, sharding.shard_rows(batch, self._mesh))

        for rows, found in in_flight.fetched(begun()):
            yield rows, {name: values[: len(rows)] for name, values in found.items()}

    def _intervals_around(self, found, lengths):
        intervals = self.fit_intervals()
        if intervals is None or found.score is None:
            return None
        ends = intervals.around(found.score, found.category, lengths)
        given = scores_in_range(self.run.config, ends.ravel())
        return ends if given is None else given.reshape(ends.shape)


def scores_in_range(config: Config, scores: np.ndarray | None) -> np.ndarray | None:
    """Returns (N,) predicted scores in `score_range`; None where there are neither.

    Scores count as float32, since the model computes no further digits.
    """
    ends = config.score_range
    if scores is None or not ends:
        return None
    return np.array(
        [cells.restore(as_written(x), ends) if np.isfinite(x) else np.nan for x in scores]
    )


def _listed(texts):
    expected = "a list of texts is expected: model(['EUR/USD jumps after ECB'])"
    # Mappings and tables would yield their keys, which are strings too.
    if isinstance(texts, str | Mapping) or hasattr(texts, "columns"):
        raise TypeError(f"{expected}, or a column: model(table['text'])")
    texts = list(texts)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {place} is {text!r:.60}, no string; {expected}")
        try:
            cells.check_characters(text)
        except cells.BadCell as problem:
            raise data.DataError(f"texts, row {place}: {problem}") from None
    return texts
