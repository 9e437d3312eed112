"""How runs were set up and how they trained: blocks of a page."""

import json
import re
from collections.abc import Sequence

import numpy as np

from dwa_jax.finetune import run_folder
from dwa_jax.finetune.config import Config, flatten_keys
from experiments.pages.document import (
    DASH,
    Block,
    Box,
    Cell,
    Figure,
    Gallery,
    Heading,
    Paragraph,
    Table,
)
from experiments.pages.formatting import duration, readable_size
from experiments.reports import pictures
from experiments.reports.folder import RunFolder, as_float

# Of a step record, what is no quantity of the training.
_LEFT_OUT = ("kind", "step", "epoch", "step_ms", "tokens_per_second", "padding_fraction", "skipped")
_TITLES = {
    "loss_regression": "loss, regression",
    "loss_classification": "loss, classification",
    "loss_imbalance": "loss, imbalance",
    "lambda": "λ, weights from gradient norms",
    "weight": "w, learned or constant weights",
    "coefficient": "coefficient of each task's gradient",
    "alpha": "α of the imbalance loss",
    "beta": "β of the imbalance loss",
    "gradient_norm_regression": "gradient norm, regression",
    "gradient_norm_classification": "gradient norm, classification",
    "gradient_norm": "gradient norm, combined",
}
# One picture for all tasks: (quantity, whether it is a share).
_BY_TASK = {"lambda": True, "weight": True, "coefficient": False}
_EVALUATED = {
    "mse": "MSE, validation",
    "balanced_mse": "balanced MSE, validation",
    "accuracy": "accuracy, validation",
}


def overview(runs: Sequence[RunFolder]) -> list:
    """Tabulates what became of each run."""
    rows = {
        "state": [_state(run) for run in runs],
        "predictions": [
            DASH if run.predictions is None else f"{run.split}, {len(run.predictions.texts)} rows"
            for run in runs
        ],
        "rows": [_rows(run) for run in runs],
        "epochs": [_epochs(run) for run in runs],
        "last logged step": [str(run.steps[-1]["step"]) if run.steps else DASH for run in runs],
        "updates left out": [str(run.skipped) for run in runs],
        "bad rows left out": [_told(run, "left_out", "count") for run in runs],
        "parameters": [_told(run, "parameters", "total") for run in runs],
        "of them trained": [
            _told({"sum": sum(found.values())} if found else {}, "sum")
            for found in [_inner(run, "parameters").get("trained") for run in runs]
        ],
        "seconds": [duration(_inner(run, "timing").get("seconds")) for run in runs],
        "peak memory": [readable_size(_inner(run, "memory").get("process_bytes")) for run in runs],
    }
    return [Heading(2, "What ran"), _across(runs, "", rows)]


def _inner(run, key):
    return (run.summary or {}).get(key) or {}


def _told(run, *keys):
    found = run.summary if isinstance(run, RunFolder) else run
    for key in keys:
        found = (found or {}).get(key)
    return f"{found:,}" if isinstance(found, int) else DASH


def _state(run):
    if run.summary:
        return "finished"
    if not run.steps:
        return "not finished: no step is logged yet"
    return f"not finished: at step {run.steps[-1]['step']} of epoch {run.steps[-1]['epoch']}"


def _epochs(run):
    if not run.summary:
        return f"{len(run.evaluations)} of {run.config.get('epochs', DASH)} evaluated"
    return f"{run.summary.get('epochs', DASH)}, best {run.summary.get('best_epoch') or DASH}"


def _rows(run):
    found = _inner(run, "rows")
    return ", ".join(f"{split} {part['count']:,}" for split, part in found.items()) or DASH


def _across(runs, head, rows, caption=""):
    """A table with a column a run."""
    cells = [
        [Cell(name), *(value if isinstance(value, Cell) else Cell(value) for value in values)]
        for name, values in rows.items()
    ]
    heads = [head, *headings(runs)]
    return Table(heads, cells, caption, text_columns=len(heads))


def headings(runs: Sequence[RunFolder]) -> list[str]:
    """Returns what columns are called, as the pictures call their curves."""
    if len(runs) == 1:
        return [runs[0].name]
    return [f"{i} {run.name}" for i, run in enumerate(runs, 1)]


def configurations(runs: Sequence[RunFolder]) -> list:
    """Tabulates what the runs' configurations differ in, or one's from the defaults."""
    flat = [flatten_keys(run.config) for run in runs]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    defaults = flatten_keys(run_folder.plain(Config().to_dict()))
    missing = object()
    changed = [
        key
        for key in keys
        if any(one.get(key, missing) != defaults.get(key, missing) for one in flat)
    ]
    differ = [key for key in keys if len({_value(one, key) for one in flat}) > 1]
    versions = {
        package: [str(run.versions.get(package, DASH)) for run in runs]
        for package in dict.fromkeys(name for run in runs for name in run.versions)
    }

    def table(names, caption=""):
        rows = {key: [_value(one, key) for one in flat] for key in names}
        return _across(runs, "key", rows, caption)

    blocks: list[Block] = [Heading(2, "Configuration")]
    if len(runs) == 1:
        if changed:
            caption = "Keys that are not at their default."
            blocks.append(table(changed, caption))
        else:
            blocks.append(Paragraph("Every key is at its default."))
    else:
        if differ:
            blocks.append(table(differ, "Keys in which the runs differ."))
        else:
            blocks.append(Paragraph("The configurations are the same."))
        shared = [key for key in changed if key not in differ]
        if shared:
            title = "What the runs share that is not at its default"
            blocks.append(Box(title, [table(shared)], folded=True))
    blocks.append(Box("Every key", [table(keys)], folded=True))
    unlike = {name: row for name, row in versions.items() if len(set(row)) > 1}
    if unlike:
        blocks.append(_across(runs, "package", unlike, "Versions that differ."))
    blocks.append(Box("Versions", [_across(runs, "package", versions)], folded=True))
    return blocks


def _value(config, key):
    if key not in config:
        return DASH
    value = config[key]
    plain = isinstance(value, str) and value
    return value if plain else json.dumps(value, ensure_ascii=False)


def curves(runs: Sequence[RunFolder]) -> list:
    """Draws every quantity that the runs logged, all runs in one picture."""
    looks = pictures.looks([run.name for run in runs])
    figures = []
    for key, names in _quantities(runs).items():
        series = _series([(run.steps, look) for run, look in zip(runs, looks, strict=True)], names)
        lines = [name.removeprefix(f"{key}_") for name in names] if key in _BY_TASK else []
        title = _TITLES.get(key, key.replace("_", " "))
        share = _BY_TASK.get(key, False)
        figures += _figure(runs, f"curve-{key}", title, series, lines, share)
    for key, title in _EVALUATED.items():
        series = _series(
            [(run.evaluations, look) for run, look in zip(runs, looks, strict=True)], [key]
        )
        figures += _figure(runs, f"validation-{key}", title, series, [], False)
    blocks = [Heading(2, "Training")]
    if not figures:
        return [*blocks, Paragraph("Nothing is logged yet.")]
    text = "What the runs logged over their steps."
    if any(len(run.steps) > pictures.POINTS for run in runs):
        text += (
            f" Of a run with more than {pictures.POINTS} records, each point is the mean of "
            "consecutive ones, and the band reaches from the smallest to the largest."
        )
    return [*blocks, Paragraph(text), Gallery(figures)]


def _quantities(runs):
    """Quantity -> the names in step records that belong to it, in the order of the page."""
    names = dict.fromkeys(
        name for run in runs for record in run.steps for name in record if name not in _LEFT_OUT
    )
    found: dict[str, list[str]] = {key: [] for key in _TITLES}
    for name in names:
        task = re.fullmatch(rf"({'|'.join(_BY_TASK)})_(.*)", name)
        found.setdefault(task[1] if task else name, []).append(name)
    # The first task's line is the solid one.
    return {key: sorted(inside, reverse=True) for key, inside in found.items() if inside}


def _series(logs, names):
    found = []
    for records, look in logs:
        for line, name in enumerate(names):
            points = [(record["step"], as_float(record.get(name))) for record in records]
            steps, values = np.array(points, float).reshape(-1, 2).T
            if np.isfinite(values).any():
                values[~np.isfinite(values)] = np.nan
                found.append(pictures.Series(look, steps, values, line))
    return found


def _figure(runs, name, title, series, lines, share):
    if not series:
        return []
    svg = pictures.draw_curves(name, title, series, lines=lines, share=share, alone=len(runs) == 1)
    drawn = dict.fromkeys(one.look.label for one in series)
    alt = f"{title}, over steps: {', '.join(drawn)}"
    absent = [look.label for look in pictures.looks([run.name for run in runs])]
    absent = [label for label in absent if label not in drawn]
    caption = f"Not logged by {', '.join(absent)}." if absent else ""
    return [Figure(name, svg, alt, caption)]
