"""A run whose numbers go wrong: what it leaves out, when it ends, and what it says."""

import json
import re
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax.finetune.health import Diverged, Health
from tests.experiments.test_main import ROOT, command, records, run

pytestmark = pytest.mark.slow

ORIGIN = [("a.csv", 2 + i) for i in range(4)] + [("b.csv", 7)]


class Sink(list):
    write = note = list.append


def health(**options):
    log, console = Sink(), Sink()
    defaults = {"max_bad_steps": 3, "in_a_row": 0, "origin": ORIGIN, "last_saved": lambda: "step 9"}
    return Health(**(defaults | options), log=log, listener=console), log, console


def values(skipped, loss=np.nan):
    return {
        "skipped": jnp.array(skipped),
        "loss_regression": jnp.array(loss),
        "gradient_norm": jnp.array(loss),
    }


def test_bad_steps_are_written_down_with_their_rows():
    watch, log, console = health()
    rows = np.array([4, 1, 0, -1])
    for step, skipped in enumerate([0, 1, 1, 0, 1, 1], start=11):
        watch.follow(step, 2, rows, values(skipped))
    watch.settle()
    assert [(record["step"], record["in_a_row"]) for record in log] == [
        (12, 1),
        (13, 2),
        (15, 1),
        (16, 2),
    ]
    assert log[0]["rows"] == "b.csv rows 7, a.csv rows 2, 3" and log[0]["kind"] == "skipped"
    assert console[0] == ("step 12: update left out (not finite: gradient_norm, loss_regression)")


@pytest.mark.parametrize(("before", "ends_at"), [(0, 3), (2, 1)])
def test_too_many_in_a_row_end_the_run(before, ends_at):
    watch, log, _ = health(in_a_row=before)
    with pytest.raises(
        Diverged, match=f"^step {ends_at}: 3 updates in a row .* a.csv rows 4 .* checkpoint: step 9"
    ):
        for step in (1, 2, 3):
            watch.follow(step, 1, np.array([2]), values(1))
            watch.settle()
    assert len(log) == ends_at


SCORES = np.array([-0.5, 0.5, 0.1, -0.1, np.nan])


@pytest.mark.parametrize(
    ("rows", "loss", "told"),
    [
        # Their variance is .13; the first two rows alone have .25 about the mean of all.
        ([0, 1, 2, 3], 0.5, "0.5, 3.8 times the variance of the scores (0.13)"),
        ([0, 1, 2, 3], 0.38, None),
        ([2, 3, 4, -1], 0.5, "3.8 times"),
        ([0, 1, 4, -1], 0.7, None),
        ([0, 1, 4, -1], 0.8, "6.2 times"),
        ([4, -1], 0.0, None),
    ],
)
def test_a_first_loss_far_above_the_scores_variance_is_told_once(rows, loss, told):
    watch, _, console = health(scores=SCORES)
    for step in (1, 2):
        watch.follow(step, 1, np.array(rows), values(0, loss))
    watch.settle()
    assert len(console) == (told is not None)
    assert told is None or told in console[0]


def test_where_the_loss_is_no_squared_error_the_first_one_is_not_judged():
    watch, _, console = health()
    watch.follow(1, 1, np.array([0]), values(0, 9.0))
    watch.settle()
    assert console == []


def test_a_bound_that_is_passed_is_said_once():
    watch, _, console = health()
    for step, beta in enumerate([0.1, 0.0, -0.1, -0.2]):
        watch.check_bounds(step, {"alpha": 0.5, "beta": beta})
    (line,) = console
    assert "step 2: beta = -0.1 has left its bounds" in line


def test_a_run_that_diverges_ends_with_status_3_and_says_where(tmp_path):
    # The first step's update is finite, and leaves weights with which nothing else is, whatever
    # the batch.
    result = subprocess.run(
        command(
            tmp_path / "run",
            "--config.learning_rate=1e30",
            "--config.warmup_steps=1",
            "--config.max_bad_steps=4",
            "--config.max_buckets=1",
            "--config.checkpoint_every=1",
        ),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 3, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: step ")
    assert "step 5: 4 updates in a row were left out" in lines[0]
    assert lines[0].endswith(f"last good checkpoint: step 1 in {tmp_path / 'run/checkpoints'}")
    (rows,) = re.findall(r"headlines rows ([\d, ]+) \(", lines[0])
    assert len(set(rows.split(", "))) == 16
    found = records(tmp_path / "run", "skipped")
    assert [record["in_a_row"] for record in found] == [1, 2, 3, 4]
    assert "update left out" in result.stdout


def test_literal_passes_its_bounds_and_says_so(tmp_path, capsys):
    summary = run(
        tmp_path / "run",
        classification_loss="imbalance(mode='literal')",
        phi_learning_rate=0.05,
        max_buckets=1,
        epochs=1,
    )
    printed = capsys.readouterr().out
    assert "unbounded below" in printed and "alpha = -" in printed and "diverges" in printed
    last = records(tmp_path / "run", "step")[-1]
    assert last["alpha"] < -0.2
    assert summary["skipped_steps"] == 0 == len(records(tmp_path / "run", "skipped"))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["skipped_steps"] == 0
