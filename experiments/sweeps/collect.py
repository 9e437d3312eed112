"""From the folders of a sweep's runs to the numbers that its report shows.

`results` holds what the same seed on the same machine gives again to the last digit;
seconds and bytes, which it does not, are kept apart in `timing`.
"""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dwa_jax import data, metrics, stratify
from dwa_jax.finetune import predictions_file, run_folder
from dwa_jax.finetune.run_records import MetricsFile
from experiments.sweeps import comparison, runner
from experiments.sweeps.plan import Run, Sweep

# Names in metrics.jsonl that the report draws over steps.
_CURVES = ("lambda_", "weight_", "coefficient_", "gradient_norm_", "loss_", "alpha", "beta")
_TIMES = ("step_ms", "tokens_per_second", "padding_fraction")


def predictions(path: Path) -> comparison.SeedPredictions:
    """Reads a run's predictions.csv.

    Args:
      path: of the file.

    Returns:
      Its rows, with categories under the common labelling too.
    """
    rows = predictions_file.read_predictions(path)
    return comparison.SeedPredictions(
        texts=[data.normalize_text(text) for text in rows.texts],
        score=rows.scores,
        predicted_score=rows.predicted_scores,
        category=rows.categories,
        predicted_category=rows.predicted_categories,
        common_category=_common(rows.scores),
        common_predicted=_common(rows.predicted_scores),
    )


def _common(scores):
    known = ~np.isnan(scores)
    inside = np.clip(np.where(known, scores, 0.0), -1, 1)
    found = np.asarray(stratify.categorize(inside, np.array(comparison.COMMON_THRESHOLDS)))
    return np.where(known, found, -1)


def _common_metrics(rows: comparison.SeedPredictions):
    usable = (rows.common_category >= 0) & (rows.common_predicted >= 0)
    if not usable.any():
        return None
    found = metrics.evaluate(
        rows.score[usable],
        rows.predicted_score[usable],
        rows.common_category[usable],
        rows.common_predicted[usable],
        len(comparison.COMMON_THRESHOLDS) + 1,
    )
    return {key: found[key] for key in ("accuracy", "f1_macro", "balanced_mse", "mse_by_class")}


def collect(
    sweep: Sweep, folder: Path, *, command: str, papers: list[dict], resamples: int = 10_000
) -> tuple[dict, dict]:
    """Reads every run's folder and compares each method with the baseline.

    Args:
      sweep: what was run.
      folder: of the cells.
      command: that made it, for the report.
      papers: what the papers state, see `papers.STATEMENTS`.
      resamples: of the bootstrap.

    Returns:
      (results, timing), plain JSON.
    """
    runs, times, tested = [], {}, {}
    for run in sweep.runs():
        record, time, rows = _read(run, folder / run.id)
        runs.append(record)
        if time is not None:
            times[run.id], tested[run] = time, rows
    results = {
        "title": sweep.title,
        "question": sweep.question,
        "command": command,
        "versions": run_folder.versions(),
        "commit": _commit(),
        "sweep": {
            "baseline": sweep.baseline,
            "methods": list(sweep.methods),
            "datasets": list(sweep.datasets),
            "backbones": list(sweep.backbones),
            "seeds": list(sweep.seeds),
            "axis": sweep.axis and {"label": sweep.axis[0], "of": dict(sweep.axis[1])},
            "settings": dict(sweep.settings),
        },
        "runs": runs,
        "comparisons": _compare(sweep, tested, resamples),
        "curves": _curves(sweep, folder) if sweep.curves else {},
        "distributions": _distributions(sweep, runs, tested),
        "papers": papers,
    }
    cores = os.cpu_count()
    timing = {"runs": times, "machine": f"{platform.machine()}, {cores} cores, one core a run"}
    return run_folder.plain(results), run_folder.plain(timing)


def _read(run: Run, folder: Path):
    state = runner.state_of(folder)
    record = {
        "id": run.id,
        "dataset": run.dataset,
        "backbone": run.backbone,
        "method": run.method,
        "seed": run.seed,
        "status": state if state in ("finished", "failed") else "missing",
        "error": runner.error_of(folder),
    }
    if state != "finished":
        return record, None, None
    summary = json.loads((folder / runner.SUMMARY).read_text("utf-8"))
    log = MetricsFile(folder / "metrics.jsonl").read()
    steps = [item for item in log if item["kind"] == "step"]
    hidden = ("kind", "step", "epoch", *_TIMES)
    last = {key: value for key, value in steps[-1].items() if key not in hidden} if steps else {}
    rows = predictions(folder / "predictions.csv")
    record |= {
        "test": summary["test"] or summary["validation"],
        "common": _common_metrics(rows),
        "also_tested": {
            Path(name).stem: found for name, found in summary.get("also_tested", {}).items()
        },
        "thresholds": summary["thresholds"],
        "best_epoch": summary["best_epoch"],
        "epochs": summary["epochs"],
        "skipped_steps": summary.get("skipped_steps", 0),
        "final": last,
    }
    time = {
        "seconds": summary["timing"]["seconds"],
        "train_seconds": summary["timing"]["train_seconds"],
        "peak_bytes": summary["memory"]["process_bytes"],
    }
    return record, time, rows


def _cells(sweep):
    return [(d, b) for d in sweep.datasets for b in sweep.backbones]


def _compare(sweep, tested, resamples):
    found = []
    for dataset, backbone in _cells(sweep):

        def of(method, dataset=dataset, backbone=backbone):
            runs = {seed: sweep.run(dataset, backbone, method, seed) for seed in sweep.seeds}
            return {seed: tested[run] for seed, run in runs.items() if run in tested}

        baseline, here = of(sweep.baseline), []
        for method in sweep.methods:
            other = of(method)
            if method == sweep.baseline or not set(other) & set(baseline):
                continue
            for item in comparison.compare(baseline, other, resamples=resamples):
                here.append({"dataset": dataset, "backbone": backbone, "method": method, **item})
        # One family of hypotheses a metric: every method against the baseline.
        for metric in {item["metric"]: None for item in here}:
            family = [item for item in here if item["metric"] == metric]
            for item, p in zip(family, comparison.holm([i["p"] for i in family]), strict=True):
                item["p_holm"] = p
        found += here
    return found


def _curves(sweep: Sweep, folder: Path) -> dict:
    curves = {}
    for dataset, backbone in _cells(sweep):
        for method in sweep.methods:
            logs: list[Mapping[int, Mapping]] = []
            for seed in sweep.seeds:
                place = folder / sweep.run(dataset, backbone, method, seed).id
                if runner.state_of(place) == "finished":
                    log = MetricsFile(place / "metrics.jsonl").read()
                    logs.append({r["step"]: r for r in log if r["kind"] == "step"})
            if logs:
                curves[f"{dataset}/{backbone}/{method}"] = _spread(logs)
    return curves


def _spread(logs: list[Mapping[int, Mapping]]) -> dict:
    # Splits of unlike seeds may differ by a batch: steps that all of them have.
    steps = sorted(set.intersection(*(set(log) for log in logs)))
    names = [n for n in logs[0][steps[0]] if n.startswith(_CURVES)] if steps else []
    found = {}
    for name in names:
        values = np.array([[log[step][name] for step in steps] for log in logs], float)
        found[name] = {
            "step": steps,
            "mean": values.mean(axis=0).tolist(),
            "low": values.min(axis=0).tolist(),
            "high": values.max(axis=0).tolist(),
        }
    return found


def _distributions(sweep, runs, tested):
    # Of the first seed: how scores spread, and where each method's thresholds lie.
    found = {}
    edges = np.linspace(-1, 1, 41)
    for dataset in sweep.datasets:
        rows = [r for r in runs if r["dataset"] == dataset and r["seed"] == sweep.seeds[0]]
        thresholds = {r["method"]: r["thresholds"] for r in rows if r.get("thresholds")}
        scores = [p.score for run, p in tested.items() if run.dataset == dataset]
        unlike = {tuple(value) for value in thresholds.values()}
        if len(unlike) > 1:
            counts = np.histogram(scores[0][~np.isnan(scores[0])], edges)[0]
            found[dataset] = {"edges": edges, "counts": counts, "thresholds": thresholds}
    return found


def _commit() -> str | None:
    # With "-dirty" behind it where files differ from the commit's.
    line = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(line, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
