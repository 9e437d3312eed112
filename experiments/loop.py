"""The training loop: epochs of steps, an evaluation each, checkpoints, early stopping."""

import contextlib
import signal
import time
from dataclasses import dataclass

import jax
import numpy as np

from dwa_jax import data, metrics, sharding, stratify
from dwa_jax.checkpoints import Checkpoints
from experiments.pipeline import Corpus, Run
from experiments.workdir import MetricsFile

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
    }
)
LOWER_IS_BETTER = frozenset({"mse", "mae", "rmse", "balanced_mse"})


class Interrupted(Exception):
    """A signal asked the run to stop; a checkpoint was written.

    Attributes:
      signum: the signal.
    """

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


@dataclass
class Progress:
    """What a restart needs beside the train state.

    Attributes:
      evaluated: epochs evaluated so far.
      best_epoch: the best of them, counted from 1; 0 before the first.
      best_step: its step.
      best_value: its value of the monitored metric.
      seconds: spent in steps so far.
    """

    evaluated: int = 0
    best_epoch: int = 0
    best_step: int = 0
    best_value: float | None = None
    seconds: float = 0.0


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


def check_monitor(config, corpus: Corpus) -> None:
    """Checks that the validation split can tell which epoch is best.

    Raises:
      ValueError: the metric does not exist, or its task does not train, or no validation
        row has a label for it.
    """
    monitor = config.monitor
    merit(monitor, 0.0)
    of_classes = monitor.startswith(("accuracy", "precision", "recall", "f1"))
    if not of_classes and "regression" not in config.tasks:
        raise ValueError(f"monitor={monitor!r} needs the regression task; try accuracy, f1_macro")
    scored = ~np.isnan(corpus.rows["validation"].scores)
    labelled = corpus.categories["validation"] >= 0
    usable = labelled if of_classes else scored
    if monitor == "balanced_mse":
        usable = scored & labelled
    if not usable.any():
        raise ValueError(f"no validation row has a label that monitor={monitor!r} needs")


def predict(run: Run, state, batches: data.Batches, num_rows: int, thresholds) -> dict:
    """Predicts every row of a split.

    Args:
      run: of the model.
      state: its train state.
      batches: the split's.
      num_rows: N.
      thresholds: (K-1,), for a run without a classification task.

    Returns:
      {"score": (N,), "category": (N,), "probabilities": (N, K) or None}. Without a
      regression task scores are nan; without a classification task the category is
      the predicted score's.
    """
    outputs: dict[str, np.ndarray] = {}
    for batch in batches.sequential():
        rows = batch["row"]
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        result = jax.device_get(run.predict(state, sharding.shard_rows(inputs, run.mesh)))
        for name, values in result.items():
            if name not in outputs:
                outputs[name] = np.full((num_rows, values.shape[1]), np.nan)
            outputs[name][rows[rows >= 0]] = values[rows >= 0]
    score = outputs["regression"][:, 0] if "regression" in outputs else np.full(num_rows, np.nan)
    if "classification" not in outputs:
        clipped = np.clip(score, -1, 1)
        category = np.asarray(stratify.categorize(clipped, thresholds))
        return {"score": score, "category": category, "probabilities": None}
    logits = outputs["classification"]
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return {
        "score": score,
        "category": logits.argmax(axis=1),
        "probabilities": odds / odds.sum(axis=1, keepdims=True),
    }


def evaluate(run: Run, state, batches, corpus: Corpus, split: str, num_classes: int):
    """Predicts a split and compares with its labels.

    Returns:
      (metrics, predictions) as `metrics.evaluate` and `predict` give them; the
      predictions carry the true "categories" as well.
    """
    rows, categories = corpus.rows[split], corpus.categories[split]
    predictions = predict(run, state, batches[split], len(rows), corpus.thresholds)
    predictions["categories"] = categories
    # A score that was predicted as nan counts: it shows in the metrics.
    predicts_scores = any(task.name == "regression" for task in run.tasks)
    has_score = ~np.isnan(rows.scores) & predicts_scores
    has_category = categories >= 0
    result = metrics.evaluate(
        np.where(has_score, rows.scores, 0),
        np.where(has_score, predictions["score"], 0),
        np.where(has_category, categories, 0),
        predictions["category"],
        num_classes,
        score_mask=has_score,
        category_mask=has_category,
    )
    return result, predictions


@contextlib.contextmanager
def _signals():
    """Collects the first SIGINT or SIGTERM; a second one ends the process at once."""
    received: list[int] = []
    previous = {}

    def handle(signum, frame):
        received.append(signum)
        signal.signal(signum, signal.SIG_DFL)

    # Handlers can be set in the main thread only; elsewhere signals stay as they are.
    with contextlib.suppress(ValueError):
        for signum in (signal.SIGINT, signal.SIGTERM):
            previous[signum] = signal.signal(signum, handle)
    try:
        yield received
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def train(
    config,
    run: Run,
    corpus: Corpus,
    batches: dict[str, data.Batches],
    checkpoints: Checkpoints,
    log: MetricsFile,
    console,
) -> tuple[object, Progress]:
    """Trains to the end, or continues where the last checkpoint is.

    Args:
      config: the whole configuration.
      run: model, step and first state.
      corpus: labelled rows.
      batches: of each split.
      checkpoints: where states go.
      log: metrics.jsonl.
      console: an `experiments.console.Console`.

    Returns:
      (the best epoch's state, progress).

    Raises:
      Interrupted: a signal came; the latest state is saved.
    """
    state, progress = run.state, Progress()
    run.state = None
    latest = checkpoints.latest()
    if latest is not None:
        state, stored = checkpoints.restore(state, latest)
        progress = Progress(**stored)
        console.note(f"continuing at step {latest}")
    log.rewind(latest or 0)
    steps_per_epoch = len(batches["train"])
    clock = _Clock(config.log_every)
    with _signals() as received, console.progress(run.total_steps, latest or 0) as bar:
        epoch = int(state.step) // steps_per_epoch
        while epoch < config.epochs and not _stalled(config, progress):
            started = time.perf_counter()
            step = int(state.step)
            clock.restart()
            for batch in batches["train"].epoch(epoch, start=step - epoch * steps_per_epoch):
                if received:
                    progress.seconds += time.perf_counter() - started
                    checkpoints.save(state, vars(progress))
                    raise Interrupted(received[0])
                tokens, padded = int(batch["attention_mask"].sum()), batch["input_ids"].size
                del batch["row"]
                state, values = run.step(state, sharding.shard_rows(batch, run.mesh))
                step += 1
                bar.advance()
                record = clock.count(tokens, padded, step, values)
                if record is not None:
                    log.write({"kind": "step", "step": step, "epoch": epoch + 1, **record})
                    bar.show(record)
            jax.block_until_ready(state)
            progress.seconds += time.perf_counter() - started
            _end_epoch(config, run, state, batches, corpus, checkpoints, log, console, progress)
            epoch += 1
    if progress.best_step and progress.best_step != int(state.step):
        state, _ = checkpoints.restore(state, progress.best_step)
    return state, progress


def _stalled(config, progress):
    return bool(config.patience) and progress.evaluated - progress.best_epoch >= config.patience


def _end_epoch(config, run, state, batches, corpus, checkpoints, log, console, progress):
    started = time.perf_counter()
    result, _ = evaluate(run, state, batches, corpus, "validation", config.num_classes)
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
    row = {key: result[key] for key in ("mse", "r2", "pearson", "accuracy", "f1_macro")}
    console.epoch({"epoch": progress.evaluated, "best": better, **row})
    # Only what beats the best so far is a candidate: of two equal ones the first stays best.
    checkpoints.save(
        state,
        vars(progress),
        merit=merit(config.monitor, value) if better else None,
    )


class _Clock:
    """Rates since the last record; the values stay on the device in between."""

    def __init__(self, every: int):
        self.every = every

    def restart(self):
        self.since, self.steps, self.tokens, self.padded = time.perf_counter(), 0, 0, 0

    def count(self, tokens, padded, step, values):
        self.steps += 1
        self.tokens += tokens
        self.padded += padded
        if step % self.every:
            return None
        record = {name: float(value) for name, value in jax.device_get(values).items()}
        seconds = time.perf_counter() - self.since
        record |= {
            "step_ms": 1000 * seconds / self.steps,
            "tokens_per_second": self.tokens / seconds,
            "padding_fraction": 1 - self.tokens / self.padded,
        }
        self.restart()
        return record
