"""Runs of a sweep as jobs; a sweep through submitit's own jobs is in test_reproduce.py."""

import os
import re

import pytest

from experiments import reproduce
from experiments.sweeps import launchers, runner
from experiments.sweeps.plan import Sweep

# Stands for SLURM: takes a script, gives it a number, and says that it ended at once.
SBATCH = """#!/bin/sh
[ -z "$REFUSED" ] || { echo "sbatch: error: invalid partition" >&2; exit 1; }
cat "$1" > "$SUBMITTED"
echo "Submitted batch job 17"
"""
SACCT = """#!/bin/sh
echo "JobID|State|NodeList"
for task in 0 1 2 3; do echo "17_$task|OUT_OF_MEMORY|node1"; done
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in {
        "sbatch": SBATCH,
        "sacct": SACCT,
        "srun": "#!/bin/sh\n",
        "scancel": "#!/bin/sh\n",
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setenv("SUBMITTED", str(tmp_path / "script"))
    return tmp_path / "script"


def sweep():
    return Sweep(
        title="t",
        question="q",
        methods={"constant": {"weighting": "constant"}, "dwa": {"weighting": "dwa"}},
        datasets={"fx": {}},
        backbones={"scratch": "configs/base.py"},
        seeds=(0, 1, 2),
    )


def run_all(folder, **options):
    said = []
    job = launchers.read_options("slurm", options.pop("job", []))
    launchers.submit_all(
        sweep().runs(), {}, folder, launcher="slurm", job=job, say=said.append, **options
    )
    return said


def test_a_sweep_is_one_array_and_a_job_that_ends_without_a_word_is_told(slurm, tmp_path):
    folder = tmp_path / "cells"
    asked = ["timeout_min=90", "slurm_partition=gpu", "gpus_per_node=1", "mem_gb=16"]
    said = run_all(folder, runs_per_job=2, workers=3, job=asked)
    script = slurm.read_text()
    wanted = {
        "array": "0-3%3",
        "job-name": "dwa_jax",
        "partition": "gpu",
        "gpus-per-node": "1",
        "mem": "16GB",
        "time": "90",
    }
    found = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.+)$", script, re.MULTILINE))
    assert {key: found.get(key) for key in wanted} == wanted
    assert "submitit.core._submit" in script
    assert said[0] == "0 of 6 runs are finished; 6 to go, in 4 jobs"
    assert len(said) == 7 and all("failed: " in line for line in said[1:])
    for run in sweep().runs():
        assert runner.state_of(folder / run.id) == "failed"
        assert re.match(r"job 17_\d: \S", runner.error_of(folder / run.id))


def test_what_a_scheduler_refuses_ends_in_a_line(slurm, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"--job: .*slurm_partitoin"):
        run_all(tmp_path / "cells", job=["slurm_partitoin=gpu"])
    monkeypatch.setenv("REFUSED", "1")
    with pytest.raises(ValueError, match="no job was submitted: .*invalid partition"):
        run_all(tmp_path / "cells")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--launcher=slurm"], "there is no sbatch here"),
        (["--job=timeout_min=3"], "only with --launcher=local or slurm"),
        (["--launcher=local", "--job=timeout"], "expected KEY=VALUE"),
        (["--runs_per_job=0"], "must be at least 1"),
    ],
)
def test_mistakes_are_told_before_anything_runs(arguments, words, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match=words):
        reproduce.requested(["--table=5", *arguments])


def test_without_submitit_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(launchers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install dwa_jax\[jobs\]"):
        launchers.read_options("local", [])
    assert launchers.read_options("processes", []) == {}


def test_only_seeds_of_one_method_share_a_job():
    runs = sweep().runs()
    parts = launchers._parts(runs, 2)
    assert [[run.seed for run in part] for part in parts] == [[0, 1], [2], [0, 1], [2]]
    assert all(len({run.program for run in part}) == 1 for part in parts)
    assert sorted(run.id for part in parts for run in part) == sorted(run.id for run in runs)
