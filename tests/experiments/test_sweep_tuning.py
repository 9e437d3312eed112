"""What a sweep settles by its own runs: by validation alone, from folders made up here."""

import json

import pytest

from experiments.sweeps import tuning
from experiments.sweeps.plan import Sweep


def sweep(**changes):
    fields = dict(
        title="t",
        question="q",
        methods={"dwa": {"weighting": "dwa"}, "rival": {"weighting": "gradnorm"}, "end": {}},
        datasets={"fx": {}},
        backbones={"scratch": "configs/base.py"},
        seeds=(0, 1, 2),
        candidates={
            name: ({"phi_learning_rate": 0.001}, {"phi_learning_rate": 0.025})
            for name in ("dwa", "rival")
        },
        tuning_seeds=(0, 1),
        ends_of={"end": "dwa"},
    )
    return Sweep(**(fields | changes))


def finish(folder, run, validation, weights=(0.5, 0.5)):
    """A run's folder; the coefficients of its second and last epoch are `weights` on average."""
    place = folder / run.id
    place.mkdir(parents=True)
    summary = {"validation": {"mse": validation}, "test": {"mse": -1.0}}
    (place / "summary.json").write_text(json.dumps(summary))
    names = ("coefficient_regression", "coefficient_classification")
    records = [
        {"kind": "step", "step": step, "epoch": epoch}
        | {name: weight + away for name, weight in zip(names, weights, strict=True)}
        for step, epoch, away in ((1, 1, 0.4), (2, 2, 0.05), (3, 2, -0.05))
    ]
    (place / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))


def test_the_smallest_validation_error_is_taken_and_the_end_of_its_runs(tmp_path):
    here = sweep()
    runs = tuning.runs(here, tmp_path)
    # Two methods, two candidates, two seeds: all of one seed first.
    assert len(runs) == 8 and [run.seed for run in runs] == [0] * 4 + [1] * 4
    assert here.runs() == []
    errors = {
        ("dwa", 0.001): 0.3,
        ("dwa", 0.025): 0.2,
        ("rival", 0.001): 0.1,
        ("rival", 0.025): 0.4,
    }
    for run in runs:
        rate = run.keys["phi_learning_rate"]
        weights = (0.7, 0.1) if rate == 0.025 else (0.2, 0.2)
        finish(tmp_path, run, errors[run.method, rate] + 0.01 * run.seed, weights)
    assert tuning.runs(here, tmp_path) == []
    settled, told = tuning.tune(here, tmp_path)
    chosen = {one["method"]: one["chosen"] for one in told}
    assert chosen["dwa"] == {"phi_learning_rate": 0.025}
    assert chosen["rival"] == {"phi_learning_rate": 0.001}
    assert chosen["end"] == {"weighting": "constant(weights=(0.7, 0.1))"}
    assert told[0]["candidates"][1]["error"] == pytest.approx(0.205)
    assert [run.method for run in settled.runs()] == ["dwa", "rival", "end"] * 3
    # The seeds that it was chosen on are not run again.
    done = {run.id for run in runs}
    assert [run.id in done for run in settled.runs()] == [True, True, False] * 2 + [False] * 3


def test_what_failed_is_out_and_what_has_not_run_is_waited_for(tmp_path):
    here = sweep(
        ends_of={}, methods={"dwa": {"weighting": "dwa"}}, candidates={"dwa": ({}, {"seed": 9})}
    )
    first, second = tuning.runs(here.narrowed(seeds=[0]), tmp_path)
    finish(tmp_path, first, 0.5)
    settled, told = tuning.tune(here.narrowed(seeds=[0]), tmp_path)
    assert told[0]["chosen"] is None and settled.runs() == []
    failed = tmp_path / second.id
    failed.parent.mkdir(parents=True)
    (failed.parent / f"{failed.name}.failed.txt").write_text("diverged")
    settled, told = tuning.tune(here.narrowed(seeds=[0]), tmp_path)
    assert told[0]["chosen"] == {} and len(settled.runs()) == 1


def test_what_all_share_is_chosen_after_that_by_all_together(tmp_path):
    rates = ({}, {"phi_learning_rate": 0.025})
    here = sweep(
        ends_of={"end": "rival"},
        candidates={"dwa": rates},
        shared=({}, {"learning_rate": 2e-3}),
        tuning_seeds=(1,),
    )
    tried = []
    while waiting := tuning.runs(here, tmp_path):
        settled, told = tuning.tune(here, tmp_path)
        assert [one["chosen"] for one in told] == [None] * 3 and settled.runs() == []
        tried.append([run.keys for run in waiting])
        for run in waiting:
            # The rival alone would take the other one.
            both = {"dwa": -3, "rival": 2}[run.method] * run.keys.get("learning_rate", 0)
            finish(tmp_path, run, 0.5 - run.keys.get("phi_learning_rate", 0) + both, (0.7, 0.1))
    shared, own = {"learning_rate": 2e-3}, {"phi_learning_rate": 0.025}
    dwa, rival = here.methods["dwa"], here.methods["rival"]
    assert tried == [[dwa, dwa | own, rival], [dwa | own | shared, rival | shared]]
    settled, told = tuning.tune(here, tmp_path)
    end = {"weighting": "constant(weights=(0.7, 0.1))"}
    assert [one["chosen"] for one in told] == [own | shared, shared, end | shared]
    assert [len(one["candidates"]) for one in told] == [3, 2, 0]
    assert settled.run("fx", "scratch", "dwa", 0).keys == dwa | own | shared


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tuning_seeds": ()}, "need tuning_seeds"),
        ({"ends_of": {"end": "nobody"}}, "'end' cannot follow 'nobody'"),
    ],
)
def test_a_choice_that_makes_no_sense_says_so(change, message):
    with pytest.raises(ValueError, match=message):
        sweep(**change)


def test_narrowing_keeps_what_a_method_follows():
    assert list(sweep().narrowed(methods=["end"]).methods) == ["dwa", "end"]
    assert list(sweep(baseline="rival").narrowed(methods=["end"]).candidates) == ["dwa", "rival"]
