"""The writers beside metrics.jsonl: what they hold after a restart, and what harm they may do."""

import json
import os
import subprocess
import sys
import types

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from configs import base
from dwa_jax.finetune import writers
from dwa_jax.finetune.writers import protocol
from tests import runs


def step(number, loss, **more):
    return {"kind": "step", "step": number, "epoch": 1, "loss_regression": loss, **more}


def evaluation(number, mse, by_class=(0.5, None)):
    return {
        "kind": "evaluation",
        "step": number,
        "epoch": number // 20,
        "mse": mse,
        "mse_by_class": list(by_class),
        "confusion": [[1, 2], [3, 4]],
    }


SKIPPED = {"kind": "skipped", "step": 15, "epoch": 1, "in_a_row": 2, "reason": "not finite: x"}
SUMMARY = {
    "validation": {"mse": 0.25, "accuracy": 0.5},
    "test": {"mse": 0.5, "accuracy": float("nan")},
    "also_tested": {"other.csv": {"mse": 0.75}},
}


def opened(folder, names, said=None, rewound=(0, 0)):
    log = writers.Log(
        folder,
        {"seed": 1},
        writers.choose_writers(names),
        [].append if said is None else said.append,
    )
    log.rewind(*rewound)
    return log


def broken_off(folder, names):
    """A run killed past its checkpoint at step 20, which an evaluation was to follow."""
    log = opened(folder, names)
    for record in (step(10, 1.0), SKIPPED, step(20, 0.5), evaluation(20, 0.3), step(30, 9.0)):
        log.write(record)
    return log


def continued(folder, names, said=None):
    """The same run, begun again at that checkpoint."""
    log = opened(folder, names, said, rewound=(20, 0))
    for record in (evaluation(20, 0.25, (0.5, 0.125)), step(30, 0.25), step(40, float("nan"))):
        log.write(record)
    log.conclude(SUMMARY, 20)
    log.close()


WHOLE = {
    "train/loss_regression": [(10, 1.0), (20, 0.5), (30, 0.25)],
    "train/epoch": [(10, 1), (20, 1), (30, 1), (40, 1)],
    "skipped/epoch": [(15, 1)],
    "skipped/in_a_row": [(15, 2)],
    "validation/epoch": [(20, 1)],
    "validation/mse": [(20, 0.25)],
    "validation/mse_by_class/0": [(20, 0.5)],
    "validation/mse_by_class/1": [(20, 0.125)],
    "best/mse": [(20, 0.25)],
    "best/accuracy": [(20, 0.5)],
    "test/mse": [(20, 0.5)],
    "also_tested/other.csv/mse": [(20, 0.75)],
}


def curves(folder):
    """What TensorBoard shows of a run: tag -> [(step, value)]."""
    read = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(point.step, point.value) for point in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }


def test_tensorboard_has_every_number_of_a_continued_run_once(tmp_path):
    killed = broken_off(tmp_path, "tensorboard")
    assert curves(tmp_path)["train/loss_regression"] == [(10, 1.0), (20, 0.5), (30, 9.0)]
    said = []
    continued(tmp_path, "tensorboard", said)
    assert curves(tmp_path) == WHOLE
    # Nor does a reader that knows nothing of restarts find a step twice.
    found = [
        (value.tag, event.step)
        for path in (tmp_path / "tensorboard").iterdir()
        for event in LegacyEventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]
    # One is the configuration.
    assert len(found) == len(set(found)) == 1 + sum(map(len, WHOLE.values()))
    assert said == [f"TensorBoard: tensorboard --logdir={tmp_path / 'tensorboard'}"]
    killed.close()


def test_tensorboard_shows_the_configuration_as_a_text(tmp_path):
    log = opened(tmp_path, "tensorboard")
    log.close()
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    about = read.SummaryMetadata("config")
    (text,) = read.Tensors("config")
    assert about.plugin_data.plugin_name == "text" and text.step == 0
    assert text.tensor_proto.string_val[0].decode().splitlines()[2:] == ["| seed | `1` |"]


def test_each_record_is_on_the_disk_when_it_is_written(tmp_path):
    log = opened(tmp_path, "tensorboard")
    for number in (1, 2):
        log.write(step(number, 0.5))
        assert curves(tmp_path)["train/loss_regression"][-1] == (number, 0.5)
    log.close()


class Server:
    """What of W&B the writer touches; it keeps runs, as the service does."""

    def __init__(self):
        self.runs, self.settings = {}, []

    def module(self, offline=False):
        class Run:
            def __init__(run, id):
                run.rows = self.runs.setdefault(id, {})
                run.step = 0 if offline else max(run.rows, default=-1) + 1
                run.offline, run.url, run.summary, run.ended = offline, f"of {id}", {}, []
                run.settings = types.SimpleNamespace(sync_dir="offline-run")
                if offline:
                    run.rows.clear()

            def define_metric(run, name, step_metric):
                assert name.endswith("/*") and step_metric == "step"

            def log(run, values, step):
                # The service drops what is not ahead; so must nothing be handed to it.
                assert step > max(run.rows, default=-1)
                run.rows[step] = values

            def finish(run, exit_code):
                run.ended.append(exit_code)

        def init(**options):
            self.settings.append(options)
            self.run = Run(options["id"])
            return self.run

        found = types.ModuleType("wandb")
        found.__spec__ = types.SimpleNamespace(origin="wandb/__init__.py")
        found.init, found.Settings = init, lambda **options: options
        return found


def rows_to_curves(rows):
    found = {}
    for row in rows:
        for tag, value in row.items():
            if tag != "step":
                found.setdefault(tag, []).append((row["step"], value))
    return found


LOGGED = {tag: points for tag, points in WHOLE.items() if tag.startswith(("tr", "va", "sk"))}


def test_a_wandb_run_goes_on_under_its_id_with_no_row_twice(tmp_path, monkeypatch):
    server = Server()
    monkeypatch.setitem(sys.modules, "wandb", server.module())
    broken_off(tmp_path, "wandb")
    assert server.run.ended == []
    # As it is after a real kill -9: the last rows never arrived.
    rows = server.run.rows
    for number in (3, 4):
        del rows[number]
    said = []
    continued(tmp_path, "wandb", said)
    (id_, found), *others = server.runs.items()
    assert not others and id_ == (tmp_path / "wandb" / "id").read_text()
    assert list(found) == list(range(6)) and rows_to_curves(found.values()) == LOGGED
    assert server.run.summary == {
        tag: points[0][1] for tag, points in WHOLE.items() if tag.startswith(("be", "te", "al"))
    }
    assert server.run.ended == [0] and said == [f"Weights & Biases: of {id_}"]
    assert all(options["resume"] == "allow" for options in server.settings)


def test_a_wandb_folder_of_a_process_offline_holds_all_of_the_run(tmp_path, monkeypatch):
    server = Server()
    monkeypatch.setitem(sys.modules, "wandb", server.module(offline=True))
    broken_off(tmp_path, "wandb")
    continued(tmp_path, "wandb")
    assert rows_to_curves(server.run.rows.values()) == LOGGED and len(server.runs) == 1
    interrupted = opened(tmp_path, "wandb")
    interrupted.close()
    assert server.run.ended == [1]


def test_the_real_wandb_writes_a_folder_offline(tmp_path):
    """In a process of its own, for the package starts another, and changes what it imports."""
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    code = """
import sys
from pathlib import Path
from tests.finetune import test_writers
log = test_writers.opened(Path(sys.argv[1]), "wandb")
log.write(test_writers.step(10, 0.625))
log.conclude(test_writers.SUMMARY, 10)
log.close()
"""
    environment = {**os.environ, "WANDB_MODE": "offline"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True)
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    written = path.read_bytes()
    assert (tmp_path / "wandb" / "id").read_text().encode() in written
    for text in (b"train/loss_regression", b"0.625", b"best/mse", b"also_tested/other.csv/mse"):
        assert text in written, text


def test_who_cannot_begin_is_said_in_one_line_before_the_first_step(tmp_path, monkeypatch):
    module = Server().module()

    def init(**options):
        raise RuntimeError("No API key configured.\nUse `wandb login`")

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    message = "^writers: wandb cannot begin: No API key configured. Use `wandb login`$"
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, "wandb")


class Kept:
    package = extra = ""

    def __init__(self, opening):
        self.records, self.closed = list(opening.past), 0
        Kept.last = self

    def write(self, record):
        self.records.append(record)

    def close(self):
        self.closed += 1


class Broken(Kept):
    def write(self, record):
        if record["step"] == 20:
            raise OSError("No space left\non device")
        assert record["step"] < 20

    def close(self):
        raise OSError("still none")


def test_a_writer_that_fails_is_said_once_and_does_no_other_harm(tmp_path, monkeypatch):
    monkeypatch.setitem(writers.WRITERS, "broken", Broken)
    monkeypatch.setitem(writers.WRITERS, "kept", Kept)
    said = []
    log = opened(tmp_path, "broken, kept", said)
    for number in (10, 20, 30, 40):
        log.write(step(number, float("inf")))
    log.close()
    lines = list(map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()))
    assert [line["step"] for line in lines] == [10, 20, 30, 40]
    assert Kept.last.records == lines and Kept.last.closed == 1
    assert said == [
        "warning: broken is left out from here on (No space left on device); metrics.jsonl goes on"
    ]


def test_without_metrics_jsonl_nothing_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(writers.WRITERS, "kept", Kept)
    log = opened(tmp_path, "kept")
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(OSError, match="metrics.jsonl cannot be written"):
        log.write(step(1, 0.5))
    assert Kept.last.records == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensorbord", "unknown name 'tensorbord'; there are: tensorboard, wandb"),
        ("tensorboard,tensorboard", "has 'tensorboard' twice"),
        ("absent", r"needs the package no_such_package: pip install -e \"\.\[some\]\"$"),
    ],
)
def test_a_choice_that_cannot_be_had_leaves_no_folder(tmp_path, monkeypatch, text, message):
    absent = type("Absent", (Kept,), {"package": "no_such_package", "extra": "some"})
    if text == "absent":
        monkeypatch.setitem(writers.WRITERS, text, absent)
    # Such as W&B itself makes: it can be imported, and is no package.
    (tmp_path / "no_such_package").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    config = base.get_config()
    config.writers = text
    with pytest.raises(ValueError, match=message):
        runs.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_only_numbers_have_names():
    record = {**evaluation(20, None), "ready": "yes", "seconds": 2}
    assert protocol.scalars(record) == {
        "validation/epoch": 1.0,
        "validation/mse_by_class/0": 0.5,
        "validation/seconds": 2.0,
    }
