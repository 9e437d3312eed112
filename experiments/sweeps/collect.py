"""From the folders of a sweep's runs to the numbers that its report shows.

`results` holds what the same seed on the same machine gives again to the last digit;
seconds and bytes, which it does not, are kept apart in `timing`.
"""

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dwa_jax import metrics, stratify
from dwa_jax.finetune import plots, predictions_file, run_folder
from dwa_jax.finetune.run_records import MetricsFile
from experiments.sweeps import archive, comparison, runner, tuning
from experiments.sweeps.plan import Run, Sweep, slug

# Names in metrics.jsonl that the report draws over steps, and those that weigh.
_CURVES = ("lambda_", "weight_", "coefficient_", "gradient_norm_", "loss_", "alpha", "beta")
_WEIGHTS = ("lambda_", "weight_", "coefficient_", "alpha", "beta")
_SHARE = "share_classification"
_POINTS = 120  # of a curve, at most: more than its panel has pixels to show
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
        # Some runs may come from an archive.
        texts=[archive.digest_of_text(text) for text in rows.texts],
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
    sweep: Sweep, folder: Path, *, command: str, papers: list[dict], tuned: Sequence[dict] = ()
) -> tuple[dict, dict]:
    """Reads every run's folder and compares each method with the baseline.

    Args:
      sweep: what was run.
      folder: of the cells.
      command: that made it, for the report.
      papers: what the papers state, see `papers.STATEMENTS`.
      tuned: what was settled first, see `tuning.tune`.

    Returns:
      (results, timing), plain JSON.
    """
    runs, times, tested = [], {}, {}
    for run in sweep.runs():
        record, time, rows = _read(run, folder / run.id)
        runs.append(record)
        if time is not None:
            times[run.id], tested[run] = time, rows
    runs += _unsettled(sweep)
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
            "papers": sweep.papers,
            "papers_rows": dict(sweep.papers_rows),
            "full": sweep.full,
            "tuning_seeds": list(sweep.tuning_seeds) if tuned else [],
        },
        "runs": runs,
        "tuned": list(tuned),
        "comparisons": _compare(sweep, tested),
        "curves": _curves(sweep, folder) if sweep.curves else {},
        "distributions": _distributions(sweep, runs, tested),
        "papers": papers,
    }
    cores = os.cpu_count()
    timing = {"runs": times, "machine": f"{platform.machine()}, {cores} cores, one core a run"}
    return run_folder.plain(results), run_folder.plain(timing)


def as_lines(results: dict) -> str:
    """Writes results or times as JSON with one run, comparison or curve a line.

    A repository can then show what changed, and no number has a line of its own.
    """

    def short(value):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    parts = []
    for key, value in results.items():
        if value and isinstance(value, list):
            text = "[\n" + ",\n".join(map(short, value)) + "\n]"
        elif value and isinstance(value, dict):
            text = "{\n" + ",\n".join(f"{short(k)}: {short(v)}" for k, v in value.items()) + "\n}"
        else:
            text = short(value)
        parts.append(f"{short(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _unsettled(sweep: Sweep) -> list[dict]:
    return [
        {
            "id": f"{slug(dataset)}/{slug(backbone)}/{slug(method)}/seed{seed}",
            "dataset": dataset,
            "backbone": backbone,
            "method": method,
            "seed": seed,
            "status": "missing",
            "error": "no candidate of it, or no end of what it follows, is known yet",
        }
        for seed in sweep.seeds
        for dataset, backbone in _cells(sweep)
        for method in sweep.methods
        if not sweep.is_settled(dataset, backbone, method)
    ]


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
        "batch_size": json.loads((folder / "config.json").read_text("utf-8"))["config"][
            "batch_size"
        ],
        "split": summary["predictions"],
        "skipped_steps": summary.get("skipped_steps", 0),
        "final": last,
        "weights": _weights(steps),
        "histograms": {
            "train": summary.get("score_histogram"),
            "true": plots.histogram(rows.score),
            "predicted": plots.histogram(np.clip(rows.predicted_score, -1, 1)),
        },
    }
    devices = {name: size for name, size in summary["memory"].items() if name != "process_bytes"}
    of = max(devices, key=lambda name: devices[name]) if devices else "process_bytes"
    time = {
        "seconds": summary["timing"]["seconds"],
        "train_seconds": summary["timing"]["train_seconds"],
        # Unlike the sum, without compilation.
        "step_ms": statistics.median(item["step_ms"] for item in steps) if steps else None,
        "peak_bytes": summary["memory"][of],
        "memory_of": of.removesuffix("_bytes"),
    }
    return record, time, rows


def _weights(steps: Sequence[Mapping]) -> dict | None:
    """What weighed at the first record, and on average over the last epoch's."""
    if not steps:
        return None
    last = [record for record in steps if record["epoch"] == steps[-1]["epoch"]]
    first, ends = _weighing(steps[0]), [_weighing(record) for record in last]
    end = {name: statistics.fmean(one[name] for one in ends) for name in first}
    return {"start": first, "end": end}


def _weighing(record):
    found = {name: record[name] for name in record if name.startswith(_WEIGHTS)}
    share = tuning.share_of_classification(record)
    return found | ({} if share is None else {_SHARE: share})


def _cells(sweep):
    return [(d, b) for d in sweep.datasets for b in sweep.backbones]


def _compare(sweep, tested):
    found = []
    for dataset, backbone in _cells(sweep):

        def of(method, dataset=dataset, backbone=backbone):
            runs = {seed: sweep.run(dataset, backbone, method, seed) for seed in sweep.seeds}
            return {seed: tested[run] for seed, run in runs.items() if run in tested}

        by_method = {method: of(method) for method in sweep.methods}
        baseline = by_method[sweep.baseline]
        before: dict[str, dict] = {}
        for method, other in by_method.items():
            same = next((name for name, one in before.items() if _same(one, other)), None)
            before[method] = other
            if method == sweep.baseline or not set(other) & set(baseline):
                continue
            cell = {"dataset": dataset, "backbone": backbone, "method": method, "same_as": same}
            found += [{**cell, **item} for item in comparison.compare(baseline, other)]
    comparison.correct(found)
    return found


def _same(first, second):
    """Whether two methods predicted the very same on every seed: one method by two names."""
    return (
        first.keys() == second.keys()
        and bool(first)
        and all(
            np.array_equal(first[seed].predicted_score, second[seed].predicted_score, True)
            and np.array_equal(first[seed].predicted_category, second[seed].predicted_category)
            for seed in first
        )
    )


def _curves(sweep: Sweep, folder: Path) -> dict:
    curves = {}
    for dataset, backbone in _cells(sweep):
        for method in sweep.methods:
            if not sweep.is_settled(dataset, backbone, method):
                continue
            logs: list[Mapping[int, Mapping]] = []
            for seed in sweep.seeds:
                place = folder / sweep.run(dataset, backbone, method, seed).id
                if runner.state_of(place) == "finished":
                    log = MetricsFile(place / "metrics.jsonl").read()
                    logs.append({r["step"]: r for r in log if r["kind"] == "step"})
            if logs:
                found = _spread(logs) | {"by_epoch": _by_epoch(logs)}
                curves[f"{dataset}/{backbone}/{method}"] = found
    return curves


def _spread(logs: list[Mapping[int, Mapping]]) -> dict:
    # Splits of unlike seeds may differ by a batch: steps that all of them have.
    steps = sorted(set.intersection(*(set(log) for log in logs)))
    names = [n for n in logs[0][steps[0]] if n.startswith(_CURVES)] if steps else []
    kept = np.linspace(0, len(steps) - 1, min(_POINTS, len(steps))).round().astype(int)
    steps = [steps[i] for i in np.unique(kept)]
    found = {}
    for name in names:
        values = np.array([[log[step][name] for step in steps] for log in logs], float)
        found[name] = {
            "step": steps,
            "mean": _short(values.mean(axis=0)),
            "low": _short(values.min(axis=0)),
            "high": _short(values.max(axis=0)),
        }
    return found


def _by_epoch(logs: list[Mapping[int, Mapping]]) -> dict:
    """Means of what weighs over an epoch's records and the seeds: {name: one an epoch}."""
    records = [record for log in logs for record in log.values()]
    epochs = sorted({record["epoch"] for record in records})
    # None where a run was shorter than its first record.
    names = [name for name in records[0] if name.startswith(_WEIGHTS)] if records else []
    return {
        name: _short([np.mean([r[name] for r in records if r["epoch"] == e]) for e in epochs])
        for name in names
    }


def _short(values):
    # To five digits: a picture shows no more.
    return [float(f"{value:.5g}") for value in values]


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
