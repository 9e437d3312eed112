"""What came of a run, on a terminal of 80 columns."""

from pathlib import Path

import numpy as np

from dwa_jax.finetune import memory
from experiments.terminal.console import Terminal

_METRICS = (
    *("mse", "mae", "r2", "pearson", "spearman", "balanced_mse"),
    *("accuracy", "f1_macro", "quadratic_weighted_kappa", "category_distance"),
    *("expected_calibration_error", "interval_coverage", "interval_width"),
)


def conclude(console: Terminal, summary: dict, folder: Path) -> None:
    """Prints what came of a run.

    Args:
      console: where to print.
      summary: as in summary.json.
      folder: the run's.
    """
    results = {"test": summary["test"], "validation": summary["validation"]}
    results |= summary["also_tested"]
    results = {split: result for split, result in results.items() if result is not None}
    found = {
        name: [result.get(name) for result in results.values()]
        for name in _METRICS
        if any(_is_there(result.get(name)) for result in results.values())
    }
    console.columns("results", list(results), found)
    folds = summary.get("folds")
    if folds:
        _over_folds(console, folds)
    timing, size = summary["timing"], summary["memory"]
    device = max((size[name] for name in size if name != "process_bytes"), default=None)
    rows = {
        "best epoch": f"{summary['best_epoch']} of {summary['epochs']}, by the "
        f"{summary['monitor']} of validation",
        "time": f"{timing['seconds']:.0f} s: {timing['setup_seconds']:.0f} to begin, "
        f"{timing['train_seconds']:.0f} in steps and their compilation",
        "peak memory": memory.readable(size["process_bytes"])
        + (f"; {memory.readable(device)} on a device" if device else ""),
        **(
            {"model": f"that of fold {folds['kept']}, best by the {folds['kept_by']}"}
            if folds
            else {}
        ),
        "numbers": folder / "summary.json",
        "predictions": folder / "predictions.csv",
        "pictures": folder / "plots",
        "kept": _kept(folder),
    }
    if summary["test"] is None:
        rows["numbers are of"] = "the validation split, on which the best epoch was chosen"
    if summary["skipped_steps"]:
        rows["updates left out"] = f"{summary['skipped_steps']}, see metrics.jsonl"
    console.table("the run", rows)


def _over_folds(console, folds):
    heads = {"mean": "mean", "deviation": "standard_deviation", "from": "low", "to": "high"}
    rows = {
        name: [numbers[key] for key in heads.values()]
        for name, numbers in folds["metrics"].items()
        if name in _METRICS and _is_there(numbers["mean"])
    }
    console.columns(f"test, over {len(folds['each'])} folds", list(heads), rows)
    console.note(f"from, to: {folds['interval']}")


def _kept(folder):
    if (folder / "checkpoints").exists():
        return "the model, and checkpoints with which epochs can be added"
    return "the model; keep_checkpoints=True keeps what more epochs take"


def _is_there(value):
    return value is not None and np.isfinite(value)
