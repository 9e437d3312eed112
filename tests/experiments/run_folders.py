"""Folders of runs, written as the main program writes them, without training."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from configs import base
from dwa_jax import metrics, stratify
from dwa_jax.finetune import predictions_file, run_folder
from dwa_jax.finetune.run_records import MetricsFile

THRESHOLDS = (-0.6, -0.2, 0.2, 0.6)
TASKS = ("regression", "classification")


def rows(count: int = 60, seed: int = 0) -> SimpleNamespace:
    """Texts with scores; every ninth has none."""
    scores = np.random.default_rng(seed).uniform(-1, 1, count).round(4)
    scores[::9] = np.nan
    return SimpleNamespace(texts=[f"text {i} of {seed}" for i in range(count)], scores=scores)


def make(
    folder: Path,
    given: SimpleNamespace | None = None,
    *,
    thresholds=THRESHOLDS,
    split="test",
    finished=True,
    quantities=("lambda_regression", "lambda_classification", "alpha", "beta"),
    steps=30,
    seed=1,
    far=(),
    **changes,
) -> Path:
    """Makes a run's folder.

    Args:
      folder: to be made.
      given: the rows that the run predicts; `rows()` if None.
      thresholds: (K-1,) between its categories.
      split: that its predictions are of.
      finished: false leaves out summary.json and predictions.csv.
      quantities: that its step records have besides the losses.
      steps: of them.
      seed: of what it predicted and logged.
      far: places of rows whose predicted score has the wrong sign.
      **changes: of the configuration.
    """
    given, draw = given or rows(), np.random.default_rng(seed)
    config = base.get_config()
    config.update({"num_classes": len(thresholds) + 1, "epochs": 2} | changes)
    folder.mkdir(parents=True)
    versions = {"python": "3.11.7", "jax": "0.10.2"}
    run_folder.write_json(
        folder / "config.json", {"config": config.to_dict(), "data": "0", "versions": versions}
    )
    result, predictions = predict(given, thresholds, config.tasks, draw, far)
    log = MetricsFile(folder / "metrics.jsonl")
    for step in range(1, steps + 1):
        record = {"kind": "step", "step": 10 * step, "epoch": 1 + step // 20, "skipped": 0.0}
        record |= {f"loss_{task}": float(draw.uniform()) for task in config.tasks}
        log.write(record | {name: float(draw.uniform()) for name in quantities})
        if step % 15 == 0:
            log.write({"kind": "evaluation", "step": 10 * step, "epoch": step // 15} | result)
    if not finished:
        return folder
    found = predictions_file.SplitPredictions(
        given.texts,
        given.scores,
        predictions["score"],
        predictions["categories"],
        predictions["category"],
        predictions["probabilities"],
    )
    predictions_file.write_predictions(folder / "predictions.csv", found)
    summary = {
        "validation": result,
        "test": result if split == "test" else None,
        "also_tested": {},
        "predictions": split,
        "thresholds": thresholds,
        "best_epoch": 2,
        "epochs": 2,
        "skipped_steps": 0,
        "monitor": "mse",
        "parameters": {"trained": {"trunk": 1000, "heads": 234, "weighting": 0}, "total": 5678},
        "timing": {"train_seconds": 1.0, "seconds": 2.5, "setup_seconds": 0.5},
        "memory": {"process_bytes": 2**30},
        "left_out": {"count": 3, "by_file": {}, "rows": [], "not_listed": 0},
        "notes": [],
    }
    run_folder.write_json(folder / "summary.json", summary)
    return folder


def predict(given, thresholds, tasks, draw, far) -> tuple[dict, dict]:
    """Makes up predictions of rows, and grades them as a run does."""
    known = ~np.isnan(given.scores)
    cuts = np.array(thresholds)
    true = np.where(known, stratify.categorize(np.where(known, given.scores, 0), cuts), -1)
    count, size = len(known), len(cuts) + 1
    score = np.where(known, given.scores, 0) + draw.normal(0, 0.3, count)
    score[list(far)] *= -1
    odds = draw.dirichlet(np.ones(size), count)
    category = odds.argmax(axis=1)
    if "classification" not in tasks:
        odds, category = None, np.asarray(stratify.categorize(np.clip(score, -1, 1), cuts))
    if "regression" not in tasks:
        score = np.full(count, np.nan)
    result = metrics.evaluate(
        np.where(known, given.scores, 0),
        score,
        np.maximum(true, 0),
        category,
        size,
        known if "regression" in tasks else np.zeros(count, bool),
        true >= 0,
    )
    predictions = {"score": score, "category": category, "probabilities": odds, "categories": true}
    return result, predictions


def log_again(folder: Path, change) -> None:
    """Rewrites metrics.jsonl with each record as `change(record)` returns it."""
    log = MetricsFile(folder / "metrics.jsonl")
    records = [change(record) for record in log.read()]
    log.path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
