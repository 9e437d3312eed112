"""Cross-validation: a run a fold, each tested on rows that it has not seen, and what they say.

FOLDER/folds/1, FOLDER/folds/2, ...  a run's folder each
FOLDER/summary.json, plots  of all of them
FOLDER/predictions.csv  every row, predicted by the run that held it out
"""

import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from dwa_jax import data, processes, regular_files
from dwa_jax.finetune import loop, own_files, plots, predictions_file, run, run_folder, saved
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import divide, folds_of, read_rows
from dwa_jax.finetune.interrupts import Stop, ignore
from dwa_jax.finetune.listener import Listener
from dwa_jax.finetune.predictions_file import SplitPredictions

INTERVAL = "95 %, t over folds, variance corrected for rows they share (Nadeau and Bengio 2003)"
_CONFIDENCE = 0.95
_WRITTEN = ("predictions.csv", "plots", "summary.json")


def complete(
    config: Config,
    folder: Path | None,
    *,
    given: Mapping[str, data.Rows] | None = None,
    listener: Listener | None = None,
    listen: Callable[[], contextlib.AbstractContextManager[Stop]] = ignore,
    started: float | None = None,
) -> saved.Trained:
    """Trains to the end: once, or where the configuration has folds once a fold.

    Args:
      config: the whole configuration.
      folder: see `run.finish`; a fold that is finished is read, one that was begun goes on.
      given: see `run.finish`.
      listener: see `run.finish`.
      listen: see `run.finish`.
      started: see `run.finish`.

    Returns:
      The trained model; of several that of the fold whose validation rows it did best on, with
      the summary and predictions of all folds.

    Raises:
      ValueError: something of the user's is not usable; one line says what.
      OSError: something cannot be read or written.
      interrupts.Interrupted: a signal came; the folder can be continued.
      health.Diverged: too many updates in a row were left out.
    """
    if not config.folds or config.fold:
        return run.finish(
            config, folder, given=given, listener=listener, listen=listen, started=started
        )
    if processes.how_many() > 1:
        raise ValueError(
            f"folds={config.folds} are trained by one process, not by {processes.how_many()}; "
            "several train one fold, fold=1, or 2, ..."
        )
    listener, config = listener or Listener(), run_folder.located(config)
    if folder is not None and is_complete(config, folder):

        def rows():
            return _fingerprint(read_rows(config, given).everything)

        return run.read_finished(config, folder, rows, listener, handed_over=given is not None)
    with contextlib.ExitStack() as held:
        return _complete(config, folder, given, listener, listen, held)


def is_complete(config: Config, folder: Path) -> bool:
    """Says whether a folder holds a finished run, of which this configuration trains no more.

    Raises:
      ValueError: a summary.json is damaged.
      OSError: one cannot be read.
    """
    if not config.folds or config.fold:
        return processes.first(lambda: run.is_over(config, folder))
    if not regular_files.check_regular(folder / "summary.json"):
        return False
    places = [run_folder.fold_folder(folder, fold) for fold in range(1, config.folds + 1)]
    # Of which some may have been removed since: what they came to is in the summary of all.
    there = [place for place in places if regular_files.check_regular(place / "summary.json")]
    return all(run.is_over(config, place) for place in there)


def _complete(config, folder, given, listener, listen, held):
    run.check_choices(config)
    uncut = read_rows(config, given)
    configs = [Config.of(config, fold=fold) for fold in range(1, config.folds + 1)]
    corpora = [divide(one, uncut) for one in configs]
    for one, corpus in zip(configs, corpora, strict=True):
        try:
            loop.check_monitor(one, corpus)
        except ValueError as error:
            raise ValueError(f"fold {one.fold} of {config.folds}: {error}") from None
    if folder is not None:
        run_folder.open_folder(folder, config)
        weights = None
        if not (folder / "config.json").exists():
            # A mistake leaves no folder.
            model, *_ = run.prepare(configs[0], divide(configs[0], uncut))
            weights = model.digests
            folder.mkdir(parents=True, exist_ok=True)
        for one in configs:
            # Before the folder says that all of them are longer.
            of_fold = run_folder.fold_folder(folder, one.fold)
            if not run.is_over(one, of_fold):
                run.check_extensible(of_fold)
        held.enter_context(run_folder.lock(folder))
        own_files.check_own(folder, _WRITTEN, adopt=True)
        run_folder.open_folder(folder, config, _fingerprint(uncut.everything), weights)
    kept: saved.Trained | None = None
    summaries: list[dict] = []
    predictions: list[SplitPredictions] = []
    for one, corpus in zip(configs, corpora, strict=True):
        listener.note(f"fold {one.fold} of {config.folds}")
        place = None if folder is None else run_folder.fold_folder(folder, one.fold)
        told = _OfFold(listener, one.fold)
        trained = run.finish(one, place, given=given, corpus=corpus, listener=told, listen=listen)
        if kept is None or _worth(trained) > _worth(kept):
            kept = trained  # the others' weights go
        summaries.append(trained.summary)
        if trained.predictions is None:
            raise ValueError(f"{place} holds no predictions.csv any more; remove that folder")
        predictions.append(trained.predictions)
    assert kept is not None
    found = out_of_fold(uncut.everything.texts, folds_of(config, uncut.everything), predictions)
    summary = run_folder.plain(summary_of_folds(config, kept.config.fold, summaries, found))
    if folder is not None:
        with own_files.placing(folder, adopt=True) as place:
            predictions_file.write_predictions(place / "predictions.csv", found)
            plots.save(plots.draw(summary, kept.metrics, found), place / "plots")
        with own_files.placing(folder, adopt=True) as place:
            run_folder.write_json(place / "summary.json", summary)
    return dataclasses.replace(
        kept, config=config, summary=summary, predictions=found, folder=folder
    )


class _OfFold(Listener):
    """Tells a listener what a fold's run tells; what is about to run once."""

    def __init__(self, listener: Listener, fold: int):
        self._listener, self._fold = listener, fold
        self.progress, self.epoch = listener.progress, listener.epoch  # type: ignore[method-assign]

    def note(self, text):
        self._listener.note(f"fold {self._fold}: {text}")

    def begin(self, facts):
        if self._fold == 1:
            self._listener.begin(facts)


def _fingerprint(rows):
    return run_folder.digest(["folds", *rows.texts, rows.scores, rows.categories])


def _worth(trained):
    value = trained.summary["validation"].get(trained.config.monitor)
    return -math.inf if value is None else loop.merit(trained.config.monitor, value)


def out_of_fold(
    texts: Sequence[str], folds: np.ndarray, predictions: Sequence[SplitPredictions]
) -> SplitPredictions:
    """Puts together what the run of each fold predicts of the rows that it held out.

    Args:
      texts: N of all rows.
      folds: (N,) the fold, from 1, that holds out each.
      predictions: of each fold, in the rows' order; rows without a token may be missing.

    Returns:
      Predictions of all rows, in their order.
    """
    places = []
    for fold, found in enumerate(predictions, 1):
        predicted = 0
        for row in np.flatnonzero(folds == fold).tolist():
            if predicted < len(found.texts) and texts[row] == found.texts[predicted]:
                places.append(row)
                predicted += 1
        assert predicted == len(found.texts), "a fold predicts the rows that it holds out"
    order = np.argsort(places)

    def joined(name):
        return np.concatenate([getattr(found, name) for found in predictions])[order]

    return SplitPredictions(
        texts=[texts[places[i]] for i in order],
        scores=joined("scores"),
        predicted_scores=joined("predicted_scores"),
        categories=joined("categories"),
        predicted_categories=joined("predicted_categories"),
        probabilities=None if predictions[0].probabilities is None else joined("probabilities"),
        folds=folds[np.sort(places)],
    )


def summary_of_folds(
    config: Config, kept: int, summaries: Sequence[Mapping], found: SplitPredictions
) -> dict:
    """Says what all folds come to.

    Args:
      config: the whole configuration.
      kept: the fold, from 1, whose model is kept.
      summaries: of each fold.
      found: from `out_of_fold`.

    Returns:
      The summary of the fold that is kept, whose "test" is of all rows, each predicted by the run
      that held it out; with "folds": "kept", "kept_by", "interval", "metrics" (metric -> "mean",
      "standard_deviation", "low" and "high" over folds) and "each".
    """
    test = loop.grade(
        found.scores,
        found.categories,
        found.predicted_scores,
        found.predicted_categories,
        config.tasks,
        config.num_classes,
        found.probabilities,
    )
    sizes = [{split: part["count"] for split, part in one["rows"].items()} for one in summaries]
    of_test = float(np.mean([size["test"] / size["train"] for size in sizes]))
    values = {
        # An earlier version's fold may lack one.
        name: [one["test"].get(name) for one in summaries]
        for name, value in {**test, **summaries[kept - 1]["test"]}.items()
        if not isinstance(value, list)
    }
    first = summaries[kept - 1]
    known = found.categories[found.categories >= 0]
    counted = {
        "count": len(found.texts),
        "by_class": np.bincount(known, minlength=config.num_classes).tolist(),
    }
    return {
        **first,
        "test": test,
        "rows": first["rows"] | {"test": counted},
        "folds": {
            "kept": kept,
            "kept_by": f"{config.monitor} of its validation rows",
            "interval": INTERVAL,
            "metrics": {name: over_folds(of, of_test) for name, of in values.items()},
            "each": [
                {"rows": size}
                | {key: one[key] for key in ("best_epoch", "thresholds", "validation", "test")}
                for size, one in zip(sizes, summaries, strict=True)
            ],
        },
        "skipped_steps": sum(one["skipped_steps"] for one in summaries),
        "timing": {name: sum(one["timing"][name] for one in summaries) for name in first["timing"]},
        "memory": {
            name: max(one["memory"].get(name, 0) for one in summaries) for name in first["memory"]
        },
        "notes": _notes(summaries),
    }


def over_folds(values: Sequence[float | None], test_over_train: float) -> dict[str, float | None]:
    """Returns mean, spread and interval of a metric over folds.

    Runs of two folds share most of their training rows, so that their results vary together, and
    s^2 / J, for J results, is too small a variance of their mean. Nadeau and Bengio (2003),
    section 3.2, take (1 / J + test rows / training rows) s^2, a correction that they derive for
    random splits; of folds, too, it is an approximation, for which no exact one exists (Bengio and
    Grandvalet 2004).

    Args:
      values: one a fold; those that are None or nan, where a fold leaves it undefined, are left
        out.
      test_over_train: test rows / training rows.

    Returns:
      {"mean", "standard_deviation" (with J - 1), "low", "high"}; None where there are too few
      values.
    """
    known = np.array([v for v in values if v is not None and np.isfinite(v)], float)
    count = len(known)
    mean = float(known.mean()) if count else None
    if mean is None or count < 2:
        return {"mean": mean, "standard_deviation": None, "low": None, "high": None}
    from scipy import special  # a quarter of a second at every program's start

    deviation = float(known.std(ddof=1))
    quantile = float(special.stdtrit(count - 1, (1 + _CONFIDENCE) / 2))
    reach = quantile * deviation * math.sqrt(1 / count + test_over_train)
    return {
        "mean": mean,
        "standard_deviation": deviation,
        "low": mean - reach,
        "high": mean + reach,
    }


def _notes(summaries):
    # What each run notes is said once.
    counts = Counter(note for one in summaries for note in dict.fromkeys(one["notes"]))
    told = [note for note, count in counts.items() if count == len(summaries)]
    for fold, one in enumerate(summaries, 1):
        told += [f"fold {fold}: {note}" for note in one["notes"] if note not in told]
    return told
