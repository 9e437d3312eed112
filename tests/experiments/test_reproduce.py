"""A sweep is a folder: what is finished stays, what failed is shown, numbers come again."""

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from experiments import reproduce
from experiments.sweeps import archive, collect, launchers, papers, runner, streams
from experiments.sweeps.plan import Sweep, slug
from experiments.terminal import command

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PLACES = {"data": "somewhere", "streams": "elsewhere"}
# Small enough for a run to be mostly imports.
TINY = {
    "generated_rows": 80,
    "epochs": 1,
    "batch_size": 16,
    "max_buckets": 1,
    "log_every": 1,
    "scratch.vocab_size": 300,
    "scratch.width": 16,
    "scratch.layers": 1,
    "scratch.heads": 2,
    "scratch.feed_forward": 32,
}


def sweep(**changes):
    fields = dict(
        title="t",
        question="q",
        methods={"constant": {"weighting": "constant"}, "dwa": {"weighting": "dwa"}},
        datasets={"fx": {}},
        backbones={"scratch": "configs/base.py"},
        seeds=(0,),
        settings=TINY,
    )
    return Sweep(**(fields | changes))


@pytest.mark.parametrize("name", [*papers.TABLES.values(), *papers.FIGURES.values()])
def test_every_table_and_figure_is_a_sweep_of_keys_that_exist(name):
    loaded = reproduce.load(ROOT / f"configs/sweeps/{name}.py")
    assert all((ROOT / file).is_file() for file in loaded.backbones.values())
    from configs import base

    known = base.get_config()
    for run in loaded.runs():
        assert set(run.keys) <= set(known)


def test_sweeps_share_the_runs_that_are_the_same():
    first = sweep().run("fx", "scratch", "dwa", 0)
    renamed = sweep(methods={"another name": {"weighting": "dwa"}, "b": {}})
    assert renamed.run("fx", "scratch", "another name", 0).id == first.id
    others = [
        sweep().run("fx", "scratch", "constant", 0),
        sweep().run("fx", "scratch", "dwa", 1),
        sweep(settings={**TINY, "epochs": 2}).run("fx", "scratch", "dwa", 0),
        sweep(backbones={"scratch": "configs/demo.py"}).run("fx", "scratch", "dwa", 0),
    ]
    assert first.id not in [run.id for run in others]


def test_all_methods_of_one_seed_come_before_the_next_seed():
    runs = sweep(seeds=(3, 1)).runs()
    assert [(run.seed, run.method) for run in runs] == [
        (3, "constant"),
        (3, "dwa"),
        (1, "constant"),
        (1, "dwa"),
    ]


def test_a_command_names_places_and_weights():
    here = sweep(datasets={"fx": {"train": "{data}/{seed}.csv"}}).run("fx", "scratch", "dwa", 7)
    command = here.command(PLACES, {"scratch": "folder"}, Path("cells"))
    assert "--config.train=somewhere/7.csv" in command
    assert "--config.backbone=folder" in command
    assert "--config.seed=7" in command
    assert f"--workdir=cells/{here.id}" in command


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": ()}, "needs seeds"),
        ({"seeds": (1, 1)}, "has one twice"),
        ({"baseline": "nobody"}, "not one of the methods: constant, dwa"),
    ],
)
def test_a_sweep_that_makes_no_sense_says_so(change, message):
    with pytest.raises(ValueError, match=message):
        sweep(**change)


def test_narrowing_keeps_the_baseline_and_refuses_unknown_names():
    assert list(sweep().narrowed(methods=["dwa"]).methods) == ["constant", "dwa"]
    assert sweep().narrowed(seeds=[5]).seeds == (5,)
    with pytest.raises(ValueError, match="--datasets: 'x' is not one of fx"):
        sweep().narrowed(datasets=["x"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of the arguments --table --figure --sweep is required"),
        (["--table=5", "--figure=3"], "not allowed with"),
        (["--table=6"], "invalid choice"),
        (
            ["--sweep=nowhere.py"],
            "nowhere.py: no such file; there are: configs/sweeps/attribution.py,",
        ),
        (["--sweep=README.md"], "README.md does not hold a sweep: a Python file ends in .py"),
        (["--table=5", "--seeds=a"], "expected integers with commas"),
        (["--table=5", "--workers=0"], "must be at least 1"),
        (["--table=5", "--backbones=nothing"], "there is no configs/nothing.py"),
        (["--table=5", "--weights=minilm"], "expected BACKBONE=FOLDER"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["reproduce", *arguments])
    with pytest.raises(SystemExit) as stopped:
        command.run(reproduce.main)
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


def test_the_report_names_the_command_without_this_machine_s_folders():
    arguments = ["--table=5", "--weights=minilm=/a/folder", "--data=/b", "--workers=2"]
    line = "python -m experiments.reproduce --table=5 --weights=minilm=FOLDER --workers=2"
    assert reproduce.command(arguments) == line


def test_a_stream_drifts_from_negative_to_positive_and_shares_no_text(tmp_path):
    source = tmp_path / "source.csv"
    scores = np.random.default_rng(0).uniform(-1, 1, 400)
    lines = [f"text number {i},{score:.4f}" for i, score in enumerate(scores)]
    source.write_text("text,score\n" + "\n".join(lines) + "\n")
    streams.write(source, tmp_path / "streams", [0, 1], max_rows=300)
    from dwa_jax import data

    read = {
        name: data.read([str(tmp_path / f"streams/0/{name}.csv")])[0]
        for name in ("train", "validation", "test")
    }
    train = read["train"].scores
    assert len(train) == 150 and train[:50].mean() < -0.3 and train[-50:].mean() > 0.3
    texts = [set(rows.texts) for rows in read.values()]
    assert len(set.union(*texts)) == sum(map(len, texts)) == 300
    other, _ = data.read([str(tmp_path / "streams/1/train.csv")])
    assert set(other.texts) != texts[0]
    # What a kill left of one is made whole, and a file of somebody's stays.
    place, whole = tmp_path / "streams" / "0", (tmp_path / "streams/0/train.csv").read_text()
    (place / "train.csv").unlink()
    streams.write(source, tmp_path / "streams", [0], max_rows=300)
    assert (place / "train.csv").read_text() == whole
    (place / "train.csv").unlink()
    (place / "train.csv").symlink_to(source)
    with pytest.raises(ValueError, match=r"train\.csv is a link"):
        streams.write(source, tmp_path / "streams", [0], max_rows=300)
    assert source.read_text().count("\n") == 401


def test_rows_of_one_origin_get_a_group(tmp_path):
    source = tmp_path / "reviews.csv"
    source.write_text('text,score,id\n"good, and cheap",0.5,12_1\nbad,-0.5,12_2\nfine,0.25,7_1\n')
    streams.write_groups(source, tmp_path / "made", "id")
    lines = (tmp_path / "made" / "reviews.csv").read_text().splitlines()
    assert lines[1:] == ['"good, and cheap",0.5,12', "bad,-0.5,12", "fine,0.25,7"]
    with pytest.raises(ValueError, match="has no column 'review'"):
        streams.write_groups(source, tmp_path / "elsewhere", "review")


# One test, because its runs are processes of their own, and take seconds each.
def test_a_sweep_shows_failures_keeps_what_is_finished_and_gives_the_same_again(tmp_path):
    methods = {
        "constant": {"weighting": "constant"},
        "broken": {"weighting": "dwa(floor=7)"},
        "dwa": {"weighting": "dwa"},
    }
    here = sweep(methods=methods, curves=True)
    folder = tmp_path / "first"
    states = runner.run_all(here.runs(), PLACES, folder, workers=2, say=lambda line: None)

    assert sorted(states.values()) == ["failed", "finished", "finished"]
    results, timing = collect.collect(here, folder, command="c", papers=[])
    by_method = {run["method"]: run for run in results["runs"]}
    assert by_method["broken"]["status"] == "failed"
    assert "floor" in by_method["broken"]["error"]
    assert len(timing["runs"]) == 2
    assert not list(folder.rglob("checkpoints"))
    assert by_method["dwa"]["final"]["alpha"] <= 0.1
    curves = results["curves"]["fx/scratch/dwa"]
    curve = curves["lambda_regression"]
    assert curve["step"] == [1, 2, 3, 4] and curve["low"] == curve["high"]
    (mean,) = curves["by_epoch"]["lambda_regression"]
    assert mean == pytest.approx(np.mean(curve["mean"]), rel=1e-4)
    weights = by_method["dwa"]["weights"]
    assert weights["start"]["lambda_regression"] == pytest.approx(curve["mean"][0], rel=1e-4)
    assert weights["end"]["lambda_regression"] == pytest.approx(mean, rel=1e-4)
    constant = by_method["constant"]["weights"]
    assert constant["end"]["share_classification"] == pytest.approx(0.25)
    assert [by_method["dwa"][key] for key in ("batch_size", "split")] == [16, "test"]
    assert all(time["memory_of"] == "process" for time in timing["runs"].values())
    differences = {item["metric"]: item for item in results["comparisons"]}
    mse = {name: by_method[name]["test"]["mse"] for name in ("constant", "dwa")}
    assert differences["mse"]["difference"] == pytest.approx(mse["dwa"] - mse["constant"])

    # What is finished is not run again.
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("summary.json")}
    said = []
    without = here.narrowed(methods=["dwa"])
    assert set(runner.run_all(without.runs(), PLACES, folder, say=said.append).values()) == {
        "finished"
    }
    assert said == []
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("summary.json")}

    # An archive holds what a report needs, and no text.
    packed = tmp_path / "cells.tar.xz"
    assert archive.pack(folder, packed) == 2 and archive.unpack(packed, tmp_path / "unpacked") == 2
    elsewhere, _ = collect.collect(without, tmp_path / "unpacked", command="c", papers=[])
    both, _ = collect.collect(without, folder, command="c", papers=[])
    assert json.dumps(elsewhere) == json.dumps(both)
    one = next(tmp_path.glob("unpacked/*/*/*/seed0/predictions.csv"))
    texts = [line.split(",")[0] for line in one.read_text().splitlines()]
    assert texts[0] == "text" and all(re.fullmatch("[0-9a-f]{16}", text) for text in texts[1:])
    assert runner.state_of(one.parent) == "finished"
    # It keeps what it had, and gives the same bytes; what is there is not replaced.
    assert archive.unpack(packed, folder) == 0
    before = packed.read_bytes()
    assert archive.pack(tmp_path / "nothing", packed) == 2 and packed.read_bytes() == before

    # Nor is one that is unpacked packed as other texts; and runs may be of both kinds.
    assert archive.pack(tmp_path / "unpacked", packed) == 2 and packed.read_bytes() == before
    shutil.copytree(
        folder / one.parent.relative_to(tmp_path / "unpacked"), one.parent, dirs_exist_ok=True
    )
    mixed, _ = collect.collect(without, tmp_path / "unpacked", command="c", papers=[])
    assert json.dumps(mixed) == json.dumps(both)

    # The same numbers come out again, also of a job, and after another seed in its process.
    again = here.narrowed(methods=["constant"])
    before = here.narrowed(methods=["constant"], seeds=["1"])
    second = tmp_path / "second"
    launchers.submit_all(
        [*before.runs(), *again.runs()],
        PLACES,
        second / "cells",
        launcher=launchers.LOCAL,
        job={},
        runs_per_job=2,
        say=said.append,
    )
    assert [line.rpartition(" (job")[0] for line in said[1:]] == [
        f"[{i + 1}/2] fx, scratch, constant, seed {seed}: finished" for i, seed in enumerate((1, 0))
    ]
    assert len(list((second / "jobs").glob("*/*_result.pkl"))) == 1
    first, _ = collect.collect(again, folder, command="c", papers=[])
    other, _ = collect.collect(again, second / "cells", command="c", papers=[])
    assert json.dumps(first) == json.dumps(other)


def archive_of(path, members):
    with tarfile.open(path, "w:xz") as out:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))


def test_an_archive_of_somebody_elses_leads_nowhere(tmp_path):
    path, cells = tmp_path / "cells.tar.xz", tmp_path / "cells"
    for name in (
        "../a/b/0123456789/seed0/summary.json",
        "/a/b/0123456789/seed0/summary.json",
        "a/../0123456789/seed0/summary.json",
        "a/b/0123456789/seed0/lock",
    ):
        archive_of(path, {name: b"{}"})
        with pytest.raises(ValueError, match="is not a file of a sweep's run"):
            archive.unpack(path, cells)
    with tarfile.open(path, "w:xz") as out:
        link = tarfile.TarInfo("a/b/0123456789/seed0/summary.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        out.addfile(link)
    with pytest.raises(ValueError, match="is not a file of a sweep's run"):
        archive.unpack(path, cells)
    archive_of(path, {"a/b/0123456789/seed0/summary.json": b"{}"})
    with pytest.raises(ValueError, match=r"of a/b/0123456789/seed0 it lacks config\.json"):
        archive.unpack(path, cells)
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="is not an archive of a sweep's runs"):
        archive.unpack(path, cells)
    with pytest.raises(ValueError, match="is not an archive"):
        archive.pack(cells, path)
    assert path.read_bytes() == b"no archive" and not cells.exists()


def test_an_archive_names_no_place_of_the_machine():
    config = {"config": {"backbone": "/home/me/models/minilm", "train": "../data/a.csv", "seed": 1}}
    kept = json.loads(archive._without_places(json.dumps(config).encode()))
    assert kept == {"config": {"backbone": "minilm", "train": "../data/a.csv", "seed": 1}}


def test_the_program_reports_what_is_there(tmp_path):
    arguments = ["--figure=2", f"--workdir={tmp_path}", "--report_only", "--seeds=0"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.reproduce", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "figure2" / "report.md").read_text()
    assert slug("dwa (paper)") == "dwa-paper" and "dwa (paper)" in report
    text = (tmp_path / "figure2" / "results.json").read_text()
    results = json.loads(text)
    # A line a run, and few besides.
    assert len(results["runs"]) < len(text.splitlines()) < len(results["runs"]) + 80
    assert {run["status"] for run in results["runs"]} == {"missing"}
