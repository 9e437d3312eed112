"""Keys of a sweep that its own runs settle before the rest of it runs.

Every method with candidates is run with each of them on the tuning seeds, and goes on with the
one of the smallest mean error on the validation split, without a look at a test split. Then, of
the keys that methods share, those are taken with which all of them together err least: a choice
for each would be one among their noise, and they would be compared with it. A method that follows
another one holds constant the coefficients that the other had, on average, in its last epoch.
"""

import dataclasses
import json
import statistics
from collections.abc import Mapping
from pathlib import Path

from dwa_jax.finetune.run_records import MetricsFile
from experiments.sweeps import runner
from experiments.sweeps.plan import Run, Sweep


def runs(sweep: Sweep, folder: Path) -> list[Run]:
    """Returns the runs that can run now and that something waits for, those of a seed together.

    When they have run there may be more, with what was chosen; where nothing waits there are none.
    """
    waiting = [
        (dataset, backbone, method, one["keys"])
        for dataset in sweep.datasets
        for backbone in sweep.backbones
        for method, (graded, _) in _settle(sweep, folder, dataset, backbone)[0].items()
        for one in graded
        if one["waits"]
    ]
    found = [
        _with(sweep, dataset, backbone, method, seed, keys)
        for seed in sweep.tuning_seeds
        for dataset, backbone, method, keys in waiting
    ]
    return [run for run in found if runner.state_of(folder / run.id) not in ("finished", "failed")]


def tune(sweep: Sweep, folder: Path) -> tuple[Sweep, list[dict]]:
    """Chooses what can be chosen from the runs that are finished.

    Args:
      sweep: the plan.
      folder: of the cells.

    Returns:
      (the sweep with its choices; one dict a choice: dataset, backbone, method, candidates (each
      with its keys, its mean validation error or None, and the number of runs) and chosen, the
      keys, or None where a run that it needs is not finished).
    """
    told: list[dict] = []
    chosen: dict[tuple[str, str, str], dict] = {}
    for dataset in sweep.datasets:
        for backbone in sweep.backbones:
            settled, shared = _settle(sweep, folder, dataset, backbone)
            for method, other in sweep.ends_of.items():
                keys, end = settled[other][1], None
                if keys is not None:
                    there = [
                        _with(sweep, dataset, backbone, other, seed, keys)
                        for seed in sweep.tuning_seeds
                    ]
                    end = _end(folder, there)
                settled[method] = [], None if end is None else {**end, **shared}
            for method, (graded, keys) in settled.items():
                told.append(_told(dataset, backbone, method, graded, keys))
                if keys is not None:
                    chosen[dataset, backbone, method] = keys
    return dataclasses.replace(sweep, chosen=chosen), told


def share_of_classification(record: Mapping) -> float | None:
    """Returns the classification's coefficient over the sum of both, of a step's record."""
    if not {"coefficient_regression", "coefficient_classification"} <= set(record):
        return None
    regression, classification = (
        record[f"coefficient_{task}"] for task in ("regression", "classification")
    )
    total = regression + classification
    return classification / total if total else None


def _told(dataset, backbone, method, graded, chosen):
    for one in graded:
        del one["waits"]
    cell = {"dataset": dataset, "backbone": backbone, "method": method}
    return cell | {"candidates": graded, "chosen": chosen}


def _settle(sweep, folder, dataset, backbone):
    # ({method: (its candidates, as far as they can be graded, and the choice, or None)}, the keys
    # of the choice that all share). First each for itself.
    methods = sweep.methods if sweep.shared else [*sweep.candidates, *sweep.ends_of.values()]
    found = {}
    for method in dict.fromkeys(methods):
        if method in sweep.ends_of:
            continue
        graded = [
            {"keys": dict(keys)} | _grade(sweep, folder, dataset, backbone, method, keys)
            for keys in sweep.candidates.get(method, [{}])
        ]
        # A candidate that diverged is out; one that has not run yet may be the best.
        known = [one for one in graded if one["error"] is not None]
        waits = any(one["waits"] for one in graded)
        best = min(known, key=lambda one: one["error"]) if known and not waits else None
        found[method] = graded, None if best is None else best["keys"]
    own = {method: keys for method, (_, keys) in found.items() if keys is not None}
    if not sweep.shared or any(one["waits"] for graded, _ in found.values() for one in graded):
        return found, {}
    errors = []
    for keys in sweep.shared:
        here = []
        for method, chosen in own.items():
            graded, both = found[method][0], {**chosen, **keys}
            one = next((one for one in graded if one["keys"] == both), None)
            if one is None:
                one = {"keys": both} | _grade(sweep, folder, dataset, backbone, method, both)
                graded.append(one)
            here.append(one)
        each = [one["error"] for one in here]
        errors.append(None if None in each or not each else statistics.fmean(each))
    known = [error for error in errors if error is not None]
    if not known or any(one["waits"] for graded, _ in found.values() for one in graded):
        return {method: (graded, None) for method, (graded, _) in found.items()}, {}
    best = sweep.shared[errors.index(min(known))]
    settled = {
        method: (graded, None if chosen is None else {**chosen, **best})
        for method, (graded, chosen) in found.items()
    }
    return settled, dict(best)


def _with(sweep, dataset, backbone, method, seed, keys):
    run = sweep.run(dataset, backbone, method, seed)
    return dataclasses.replace(run, keys={**run.keys, **keys})


def _grade(sweep, folder, dataset, backbone, method, keys):
    places = [
        folder / _with(sweep, dataset, backbone, method, seed, keys).id
        for seed in sweep.tuning_seeds
    ]
    states = [runner.state_of(place) for place in places]
    error = None
    if all(state == "finished" for state in states):
        summaries = [json.loads((place / runner.SUMMARY).read_text("utf-8")) for place in places]
        errors = [summary["validation"]["mse"] for summary in summaries]
        # None where predictions were not finite: out, as what failed is.
        error = None if None in errors else statistics.fmean(errors)
    waits = not all(state in ("finished", "failed") for state in states)
    return {"error": error, "runs": len(places), "waits": waits}


def _end(folder, there):
    # The mean coefficients of the last epoch, over seeds.
    means = []
    for run in there:
        place = folder / run.id
        if runner.state_of(place) != "finished":
            return None
        steps = [r for r in MetricsFile(place / "metrics.jsonl").read() if r["kind"] == "step"]
        if not steps:
            return None
        last = [record for record in steps if record["epoch"] == steps[-1]["epoch"]]
        names = ("coefficient_regression", "coefficient_classification")
        means.append([statistics.fmean(record[name] for record in last) for name in names])
    weights = ", ".join(f"{statistics.fmean(values):.3g}" for values in zip(*means, strict=True))
    return {"weighting": f"constant(weights=({weights}))"}
