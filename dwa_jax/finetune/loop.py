"""The training loop: epochs of steps, an evaluation each, checkpoints, early stopping."""

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from dwa_jax import data, metrics, processes, sharding, training
from dwa_jax.checkpoints import Checkpoints, MemoryCheckpoints
from dwa_jax.finetune import choices, in_flight
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import Corpus
from dwa_jax.finetune.health import Health
from dwa_jax.finetune.interrupts import Interrupted, Stop, ignore
from dwa_jax.finetune.listener import Listener
from dwa_jax.finetune.outputs import read_outputs
from dwa_jax.finetune.setup import Setup
from dwa_jax.finetune.uncertainty.calibration import calibration_error
from dwa_jax.finetune.writers import Log

HIGHER_IS_BETTER = frozenset(
    {
        "r2",
        "pearson",
        "spearman",
        "cosine",
        "accuracy",
        "precision_weighted",
        "recall_weighted",
        "f1_weighted",
        "f1_macro",
        "quadratic_weighted_kappa",
    }
)
LOWER_IS_BETTER = frozenset(
    {"mse", "mae", "rmse", "balanced_mse", "category_distance", "category_distance_macro"}
)
# Those that are a number only where what they compare differs between rows.
_OF_DIFFERENCES = ("r2", "pearson", "spearman", "quadratic_weighted_kappa")
# What the line of an epoch shows, of the tasks that train.
_SHOWN = ("mse", "r2", "pearson", "accuracy", "f1_macro")


@dataclass
class Progress:
    """What a restart needs beside the train state.

    Attributes:
      evaluated: epochs evaluated so far.
      best_epoch: the best of them, counted from 1; 0 before the first.
      best_step: its step.
      best_value: its value of the monitored metric.
      seconds: spent in steps so far.
      tokens: real ones in the steps since the last record.
      padded: all that were computed in them.
    """

    evaluated: int = 0
    best_epoch: int = 0
    best_step: int = 0
    best_value: float | None = None
    seconds: float = 0.0
    tokens: int = 0
    padded: int = 0


def merit(monitor: str, value: float) -> float:
    """Returns a metric's value turned so that higher is better.

    Raises:
      ValueError: the metric does not exist or has no direction.
    """
    if monitor in HIGHER_IS_BETTER:
        return value
    if monitor in LOWER_IS_BETTER:
        return -value
    known = ", ".join(sorted(HIGHER_IS_BETTER | LOWER_IS_BETTER))
    raise ValueError(f"monitor={monitor!r} is not one of {known}")


def check_monitor(config: Config, corpus: Corpus) -> None:
    """Checks that the validation split can tell which epoch is best.

    Raises:
      ValueError: the metric does not exist, or its task does not train, or no validation
        row has a label for it, or all have the same one and it tells differences.
    """
    monitor = config.monitor
    merit(monitor, 0.0)
    of_classes = monitor in metrics.OF_CATEGORIES
    if not of_classes and "regression" not in config.tasks:
        raise ValueError(f"monitor={monitor!r} needs the regression task; try accuracy, f1_macro")
    scored = ~np.isnan(corpus.rows["validation"].scores)
    labelled = corpus.categories["validation"] >= 0
    usable = labelled if of_classes else scored
    if monitor == "balanced_mse":
        usable = scored & labelled
    if not usable.any():
        raise ValueError(f"no validation row has a label that monitor={monitor!r} needs")
    labels = corpus.categories["validation"] if of_classes else corpus.rows["validation"].scores
    if monitor in _OF_DIFFERENCES and len(np.unique(labels[usable])) == 1:
        what, other = ("category", "accuracy") if of_classes else ("score", "mse")
        raise ValueError(
            f"monitor={monitor!r} is undefined: the {usable.sum()} validation rows that have a "
            f"{what} all have the same; monitor={other!r} is not, or validate on more rows"
        )


def predict_split(
    setup: Setup,
    state: training.TrainState,
    batches: data.Batches,
    num_rows: int,
    thresholds: np.ndarray | None,
    stop: Stop | None = None,
    *,
    clip_scores: bool = False,
    representation: bool = False,
) -> dict:
    """Predicts every row of a split.

    Args:
      setup: of the run.
      state: its train state.
      batches: the split's.
      num_rows: N.
      thresholds: (K-1,), for a run without a classification task.
      stop: whether a signal came; None where nobody asks.
      clip_scores: see `read_outputs`.
      representation: whether pooled hidden states are returned, too.

    Returns:
      {"score": (N,), "category": (N,), "probabilities": (N, K) or None}, and it may be
      "representation": (N, D). Without a regression task scores are nan; without a
      classification task the category is the predicted score's.

    Raises:
      Interrupted: a signal came.
    """
    outputs: dict[str, np.ndarray] = {}
    stop = stop or Stop()
    wanted = [task.name for task in setup.tasks] + ["representation"] * representation

    def begun():
        for batch in batches.sequential():
            processes.come_to_a_batch()
            tokens = {name: batch[name] for name in ("input_ids", "attention_mask")}
            inputs = sharding.shard_rows(tokens, setup.mesh)
            # It may have to be compiled.
            result = stop.wait_for(functools.partial(setup.predict, state, inputs))
            sharding.keep_up(result, setup.mesh)
            yield batch["row"], {name: result[name] for name in wanted}

    def fetch(result):
        return stop.wait_for(functools.partial(jax.device_get, result))

    for rows, found in in_flight.fetched(begun(), fetch):
        for name, values in found.items():
            if name not in outputs:
                outputs[name] = np.full((num_rows, values.shape[1]), np.nan)
            # Behind the batch's own rows there may be some that make up the devices' number.
            outputs[name][rows[rows >= 0]] = values[: len(rows)][rows >= 0]
    score, category, probabilities = read_outputs(outputs, thresholds, clip_scores)
    missing = np.full(num_rows, np.nan)
    predictions = {
        "score": missing if score is None else score,
        "category": category,
        "probabilities": probabilities,
    }
    if representation:
        predictions["representation"] = outputs["representation"]
    return predictions


def evaluate_split(
    config: Config,
    setup: Setup,
    state: training.TrainState,
    batches: dict[str, data.Batches],
    corpus: Corpus,
    split: str,
    stop: Stop | None = None,
) -> tuple[dict, dict]:
    """Predicts a split and compares with its labels.

    Returns:
      (metrics, predictions) as `grade` and `predict_split` give them; the predictions carry
      the true "categories" as well.

    Raises:
      Interrupted: a signal came.
    """
    rows, categories = corpus.rows[split], corpus.categories[split]
    predictions = predict_split(
        setup,
        state,
        batches[split],
        len(rows),
        corpus.thresholds,
        stop,
        clip_scores=config.clip_scores,
    )
    predictions["categories"] = categories
    names = [task.name for task in setup.tasks]
    found = predictions["score"], predictions["category"]
    sizes = names, config.num_classes
    graded = grade(rows.scores, categories, *found, *sizes, predictions["probabilities"])
    return graded, predictions


def grade(
    scores: np.ndarray,
    categories: np.ndarray,
    predicted_scores: np.ndarray,
    predicted_categories: np.ndarray,
    tasks: Sequence[str],
    num_classes: int,
    probabilities: np.ndarray | None = None,
) -> dict:
    """Compares predictions with labels.

    Args:
      scores: (N,), nan where missing.
      categories: (N,), -1 where missing.
      predicted_scores: (N,), of no matter without a regression task.
      predicted_categories: (N,).
      tasks: names of those that train.
      num_classes: K.
      probabilities: (N, K); None without a classification task.

    Returns:
      What `metrics.evaluate` does, without the metrics of what is neither trained nor labelled,
      and "expected_calibration_error" where there are probabilities, see `calibration_error`.
    """
    # A score that was predicted as nan counts: it shows in the metrics.
    predicts_scores = "regression" in tasks
    has_score = ~np.isnan(scores) & predicts_scores
    has_category = categories >= 0
    result = metrics.evaluate(
        np.where(has_score, scores, 0),
        np.where(has_score, predicted_scores, 0),
        np.where(has_category, categories, 0),
        predicted_categories,
        num_classes,
        score_mask=has_score,
        category_mask=has_category,
    )
    absent: tuple[str, ...] = () if predicts_scores else metrics.OF_SCORES
    if not has_category.any() and "classification" not in tasks:
        absent += metrics.OF_CATEGORIES
    result = {name: value for name, value in result.items() if name not in absent}
    if probabilities is not None:
        result["expected_calibration_error"] = calibration_error(probabilities, categories)
    return result


def train_loop(
    config: Config,
    setup: Setup,
    corpus: Corpus,
    batches: dict[str, data.Batches],
    checkpoints: Checkpoints | MemoryCheckpoints,
    log: Log,
    listener: Listener,
    listen: Callable[[], contextlib.AbstractContextManager[Stop]] = ignore,
) -> tuple[training.TrainState, Progress]:
    """Trains to the end, or continues where the last checkpoint is.

    Args:
      config: the whole configuration.
      setup: model, step and first state.
      corpus: labelled rows.
      batches: of each split.
      checkpoints: where states go.
      log: metrics.jsonl, and what goes beside it.
      listener: told how it goes.
      listen: whether to stop is asked of what it yields, `interrupts.listen` for signals.

    Returns:
      (the best epoch's state, progress).

    Raises:
      Interrupted: a signal came; the latest state is saved.
      Diverged: too many updates in a row were left out.
      ValueError: there are checkpoints, but none fits or none is intact, or a writer beside
        metrics.jsonl cannot begin.
      OSError: a checkpoint or a record cannot be written.
    """
    state, progress = setup.state, Progress()
    setup.state = None
    latest, notes = checkpoints.latest()
    for note in notes:
        listener.note(f"note: {note}")
    if latest is not None:
        state, stored = checkpoints.restore(state, latest)
        try:
            progress = Progress(**stored)
        except TypeError as error:
            raise ValueError(
                f"the checkpoint of step {latest} in {checkpoints.folder} is damaged: {error}"
            ) from None
        listener.note(f"continuing at step {latest}")
    elif log.read():
        listener.note("note: it was stopped before its first checkpoint; starting at step 0")
    log.rewind(latest or 0, progress.evaluated)
    steps_per_epoch = len(batches["train"])
    clock = _Clock(config.log_every, progress)
    step = latest or 0

    def last_saved():
        last, _ = checkpoints.latest()
        return "none yet" if last is None else f"step {last} in {checkpoints.folder}"

    health = Health(
        config.max_bad_steps,
        int(state.guard.in_a_row),
        corpus.rows["train"].origin,
        last_saved,
        log,
        listener,
        # Only a mean squared error can be compared with the scores' variance.
        corpus.rows["train"].scores if _learns_by_squares(config) else None,
    )

    def save():
        health.settle()
        best = (progress.best_step,) if progress.best_step else ()
        checkpoints.save(state, vars(progress), keep=best)

    with listen() as stop, listener.progress(setup.total_steps, step) as bar:
        compiled, saved = set(), time.perf_counter()
        try:
            # An epoch counts once it is evaluated, so a stop in between is made up for.
            while not is_trained(config, progress.evaluated, progress.best_epoch):
                epoch = progress.evaluated
                end = (epoch + 1) * steps_per_epoch
                clock.restart()
                for batch in batches["train"].epoch(epoch, start=step + steps_per_epoch - end):
                    stop.check()
                    processes.come_to_a_batch()
                    tokens, rows = int(batch["attention_mask"].sum()), batch.pop("row")
                    placed = sharding.shard_rows(batch, setup.mesh, setup.options.microbatches)
                    shape = placed["input_ids"].shape
                    if shape not in compiled:
                        # Ahead of the call, which finds it, while the state is still whole.
                        with bar.telling(f"compiling for {shape[0]} x {shape[1]} tokens"):
                            stop.wait_for(setup.step.lower(state, placed).compile)
                        compiled.add(shape)
                    state, values = setup.step(state, placed)
                    sharding.keep_up(values, setup.mesh)
                    step += 1
                    bar.advance()
                    health.follow(step, epoch + 1, rows, values)
                    record = clock.count(tokens, placed["input_ids"].size, step, values)
                    if record is not None:
                        # Those before it first, so that the file's order is the steps'.
                        health.settle()
                        log.write({"kind": "step", "step": step, "epoch": epoch + 1, **record})
                        bar.show(record)
                        health.check_bounds(step, record)
                    due = step < end and _is_due(config, step, time.perf_counter() - saved)
                    if due and health.is_sound():
                        started = time.perf_counter()
                        save()
                        saved = time.perf_counter()
                        clock.leave_out(saved - started)
                jax.block_until_ready(state)
                clock.stop()
                health.settle()
                _end_epoch(config, setup, state, batches, corpus, log, listener, progress, stop)
                save()
                saved = time.perf_counter()
            stop.check()
        except Interrupted:
            save()
            raise
    if not progress.best_step:
        # It may be so although every label differs: of a model that predicts one value.
        listener.note(f"note: {undefined(config.monitor)}")
    elif progress.best_step != step:
        state, _ = checkpoints.restore(state, progress.best_step)
    return state, progress


def undefined(monitor: str) -> str:
    """Says that no epoch could be called the best."""
    return f"monitor={monitor!r} was undefined after every epoch; the last one is kept"


def _learns_by_squares(config):
    name, _ = choices.parse(config.regression_loss, "regression_loss")
    return "regression" in config.tasks and name == "mse"


def _is_due(config, step, seconds):
    steps, minutes = config.checkpoint_every, config.checkpoint_minutes
    if steps and step % steps == 0:
        return True
    # Clocks differ, and asking at every step would cost.
    if not minutes or (processes.how_many() > 1 and step % config.log_every):
        return False
    return processes.first(lambda: seconds >= 60 * minutes)


def is_trained(config: Config, evaluated: int, best_epoch: int) -> bool:
    """Says whether no epoch is left to train, of which so many are evaluated."""
    # Where the monitor has been undefined so far there is none to wait for a better one than.
    stalled = bool(config.patience and best_epoch) and evaluated - best_epoch >= config.patience
    return stalled or evaluated >= config.epochs


def _end_epoch(config, setup, state, batches, corpus, log, listener, progress, stop):
    started = time.perf_counter()
    result, _ = evaluate_split(config, setup, state, batches, corpus, "validation", stop)
    seconds = time.perf_counter() - started
    progress.evaluated += 1
    value, step = result[config.monitor], int(state.step)
    usable = bool(np.isfinite(value))
    better = usable and (
        progress.best_value is None
        or merit(config.monitor, value) > merit(config.monitor, progress.best_value)
    )
    if better:
        progress.best_epoch, progress.best_step = progress.evaluated, step
        progress.best_value = float(value)
    record = {"kind": "evaluation", "step": step, "epoch": progress.evaluated, **result}
    log.write({**record, "seconds": seconds})
    shown = [key for key in dict.fromkeys((*_SHOWN, config.monitor)) if key in result]
    row = {key: result[key] for key in shown}
    listener.epoch({"epoch": progress.evaluated, "best": better, **row})


class _Clock:
    """Time and rates; the step's own values stay on the device between two records."""

    def __init__(self, every: int, progress: Progress):
        self._every, self._progress = every, progress

    def restart(self):
        self._since = self._counted = time.perf_counter()
        self._steps, self._tokens = 0, 0

    def stop(self):
        now = time.perf_counter()
        self._progress.seconds += now - self._counted
        self._counted = now

    def leave_out(self, seconds):
        self._since += seconds
        self._counted += seconds

    def count(self, tokens, padded, step, values):
        # Padding is the rows' own, and goes on where the last process stopped; rates do not.
        progress = self._progress
        progress.tokens += tokens
        progress.padded += padded
        self._steps += 1
        self._tokens += tokens
        if step % self._every:
            self.stop()
            return None
        record = {name: float(value) for name, value in jax.device_get(values).items()}
        self.stop()
        seconds = self._counted - self._since
        record |= {
            "step_ms": 1000 * seconds / self._steps,
            "tokens_per_second": self._tokens / seconds,
            "padding_fraction": 1 - progress.tokens / progress.padded,
        }
        progress.tokens = progress.padded = 0
        self.restart()
        return record
