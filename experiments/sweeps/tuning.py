"""Keys of a sweep that its own runs settle before the rest of it runs.

Every method with candidates is run with each of them on the tuning seeds, and goes on with the
one of the smallest mean error on the validation split, without a look at a test split. Candidates
may come in rounds, one key after the other: each goes on from what the one before it chose. A
method that follows another one holds constant the coefficients that the other had, on average, in
its last epoch.
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

    When they have run there may be more, of the next round; where nothing waits there are none.
    """
    found = []
    for dataset in sweep.datasets:
        for backbone in sweep.backbones:
            for method in dict.fromkeys([*sweep.candidates, *sweep.ends_of.values()]):
                graded, _ = _rounds(sweep, folder, dataset, backbone, method)
                for keys in [one["keys"] for one in graded if one["waits"]]:
                    for seed in sweep.tuning_seeds:
                        run = _with(sweep, dataset, backbone, method, seed, keys)
                        if runner.state_of(folder / run.id) not in ("finished", "failed"):
                            found.append(run)
    return sorted(found, key=lambda run: sweep.tuning_seeds.index(run.seed))


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
            here = {}
            for method in sweep.candidates:
                graded, here[method] = _rounds(sweep, folder, dataset, backbone, method)
                told.append(_told(dataset, backbone, method, graded, here[method]))
            for method, other in sweep.ends_of.items():
                keys = here.get(other, {})
                here[method] = None
                if keys is not None:
                    there = [
                        _with(sweep, dataset, backbone, other, seed, keys)
                        for seed in sweep.tuning_seeds
                    ]
                    here[method] = _end(folder, there)
                told.append(_told(dataset, backbone, method, [], here[method]))
            chosen |= {(dataset, backbone, m): keys for m, keys in here.items() if keys is not None}
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


def _rounds(sweep, folder, dataset, backbone, method):
    # Every candidate of the rounds that can be graded so far, and the choice, or None.
    graded: list[dict] = []
    chosen: dict = {}
    for choices in sweep.candidates.get(method, [[{}]]):
        this = [{**chosen, **keys} for keys in choices]
        # The choice so far is a candidate of the next round, and has run.
        graded += [
            {"keys": keys} | _grade(sweep, folder, dataset, backbone, method, keys)
            for keys in this
            if keys not in [one["keys"] for one in graded]
        ]
        here = [one for one in graded if one["keys"] in this]
        # A candidate that diverged is out; one that has not run yet may be the best.
        known = [one for one in here if one["error"] is not None]
        if not known or any(one["waits"] for one in here):
            return graded, None
        chosen = min(known, key=lambda one: one["error"])["keys"]
    return graded, chosen


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
