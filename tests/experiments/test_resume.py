"""Killed, interrupted and continued, a run ends as if nothing had happened: real processes.

KILLS=20 pytest -n0 tests/experiments/test_resume.py -k random
"""

import functools
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from configs import base
from dwa_jax.checkpoints import Checkpoints
from dwa_jax.finetune import interrupts, run_folder
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.run_records import MetricsFile
from tests import runs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEPS_AN_EPOCH = 6
# Everything that carries state from step to step is on.
SETTINGS = {
    "generated_rows": 120,
    "epochs": 8,
    "patience": 3,
    "batch_size": 16,
    "eval_batch_size": 16,
    "max_buckets": 1,
    "max_length": 32,
    "learning_rate": 3e-2,
    "dropout": True,
    "stratifier": "equal_width",
    "proportions": "moving_average",
    "log_every": 1,
    "checkpoint_every": 2,
    "writers": "tensorboard",
    "keep_checkpoints": True,
}
SHAPE = {"vocab_size": 300, "width": 16, "layers": 1, "heads": 2, "feed_forward": 32}


def configuration(**changes):
    config = base.get_config()
    config.update(SETTINGS | changes)
    config.scratch.update(SHAPE)
    return config


def run(folder, **changes):
    return runs.run(configuration(**changes), folder)


def command(folder, **changes):
    options = SETTINGS | changes
    return [
        sys.executable,
        "-m",
        "experiments.main",
        "--config=configs/base.py",
        f"--workdir={folder}",
        *(f"--config.{key}={value}" for key, value in options.items()),
        *(f"--config.scratch.{key}={value}" for key, value in SHAPE.items()),
    ]


def start(folder, **changes):
    return subprocess.Popen(
        command(folder, **changes),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def records(folder):
    path = folder / "metrics.jsonl"
    found = path.stat() if path.exists() else None
    return _read(path, found and (found.st_mtime_ns, found.st_size))


@functools.lru_cache(maxsize=4)
def _read(path, version):
    # Asked a thousand times a second, beside the process that is waited for.
    del version
    return MetricsFile(path).read()


def last_step(folder):
    return max((record["step"] for record in records(folder)), default=0)


def saved_steps(folder):
    return [path.name for path in folder.glob("checkpoints/*") if path.name.isdecimal()]


# --- Moments: is the run whose folder this is at such a place now?


def compiling(folder):
    path = folder / "backbone.json"
    begun = path.exists() and time.time() - path.stat().st_mtime > 0.5
    return begun and not (folder / "metrics.jsonl").exists()


def in_a_step(after):
    return lambda folder: last_step(folder) >= after


def saving(after=0):
    def at(folder):
        return any(
            int(path.name.split(".")[1]) >= after
            for path in folder.glob("checkpoints/.*.partial")
            if path.name.split(".")[1].isdigit()
            and not (path.parent / path.name.split(".")[1]).exists()
        )

    return at


def evaluating(after=0):
    def at(folder):
        last = records(folder)[-1:]
        return bool(
            last
            and last[0]["kind"] == "step"
            and last[0]["step"] >= after
            and last[0]["step"] % STEPS_AN_EPOCH == 0
        )

    return at


def writing_results(folder):
    return (folder / "predictions.csv").exists() and not (folder / "summary.json").exists()


def strike(process, folder, moment, signum):
    """Sends a signal at a moment: the process is held while we look whether it is there."""
    deadline = time.time() + 300
    while time.time() < deadline:
        assert process.poll() is None, process.communicate()
        if moment(folder):
            process.send_signal(signal.SIGSTOP)
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status), "it ended before the moment came"
            there = moment(folder)
            if there:
                process.send_signal(signum)
            process.send_signal(signal.SIGCONT)
            if there:
                return
        time.sleep(0.001)
    raise AssertionError("the moment never came")


def kill(folder, moment, **changes):
    process = start(folder, **changes)
    strike(process, folder, moment, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def interrupt(folder, moment, signum):
    """Sends SIGINT or SIGTERM; returns the seconds until the process has ended."""
    process = start(folder)
    strike(process, folder, moment, signum)
    sent = time.perf_counter()
    output, errors = process.communicate()
    seconds = time.perf_counter() - sent
    assert process.returncode == 128 + signum, errors
    # From outside the last moment before training looks as its first compilation does.
    if moment is compiling and not (folder / "checkpoints").exists():
        assert errors.splitlines()[-1].startswith(f"stopped by {signum.name}")
        return seconds
    assert f"stopped by {signum.name}" in output and "The same command continues" in output
    assert "Traceback" not in errors
    # At the step it had come to, not at the last one saved before.
    assert Checkpoints(folder / "checkpoints").latest() == (last_step(folder), [])
    return seconds


def arrays(folder):
    step, notes = Checkpoints(folder / "checkpoints").latest()
    assert notes == []
    with ocp.StandardCheckpointer() as orbax:
        target = orbax.metadata(folder / f"checkpoints/{step}/state").item_metadata
        target = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), dict(target))
        return step, orbax.restore(folder / f"checkpoints/{step}/state", target)


def assert_same_run(whole, broken):
    """Every number but those that measure time."""
    timings = {"step_ms", "tokens_per_second", "seconds"}
    one, other = (
        [{k: v for k, v in record.items() if k not in timings} for record in records(folder)]
        for folder in (whole, broken)
    )
    assert one == other
    steps = [record["step"] for record in other if record["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1))
    assert (whole / "predictions.csv").read_bytes() == (broken / "predictions.csv").read_bytes()
    (step, one), (last, other) = arrays(whole), arrays(broken)
    assert step == last and jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()
    one, other = (
        json.loads((folder / "summary.json").read_text("utf-8")) for folder in (whole, broken)
    )
    for name in ("timing", "memory"):
        del one[name], other[name]
    assert one == other
    # Nor does TensorBoard show a step twice, or another than metrics.jsonl has.
    read = EventAccumulator(str(broken / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    losses = [(point.step, point.value) for point in read.Scalars("train/loss_regression")]
    assert losses == [
        (record["step"], np.float32(record["loss_regression"]))
        for record in records(broken)
        if record["kind"] == "step"
    ]
    evaluations = [record for record in records(broken) if record["kind"] == "evaluation"]
    assert len(read.Scalars("validation/mse")) == len(evaluations)


class _Compilations(logging.Handler):
    """Counts what jax compiles, by name."""

    def __init__(self):
        super().__init__()
        self.names = []

    def emit(self, record):
        found = re.match(r"Finished XLA compilation of (\S+) in", record.getMessage())
        self.names += found.groups() if found else ()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    handler, logger = _Compilations(), logging.getLogger("jax")
    jax.config.update("jax_log_compiles", True)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        summary = run(folder)
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
        jax.config.update("jax_log_compiles", False)
    # It stops early, and its best epoch is not its last: both have to survive.
    assert summary["best_epoch"] < summary["epochs"] < SETTINGS["epochs"]
    # Compiled on a thread, ahead of the call that finds it there: once, for the one shape.
    assert handler.names.count("jit(step)") == 1
    return folder


def test_whatever_ends_it_and_wherever_the_run_goes_on_bit_for_bit(whole, tmp_path):
    folder = tmp_path / "broken"
    assert interrupt(folder, compiling, signal.SIGTERM) < 10
    kill(folder, saving(after=3))
    kill(folder, in_a_step(after=5))
    assert interrupt(folder, evaluating(), signal.SIGINT) < 10
    assert interrupt(folder, saving(), signal.SIGTERM) < 10
    kill(folder, writing_results)
    run(folder)
    assert_same_run(whole, folder)


def test_random_kills(tmp_path):
    kills = int(os.environ.get("KILLS", 0))
    if not kills:
        pytest.skip("slow: KILLS=20 asks for it")
    rng = np.random.default_rng(int(os.environ.get("SEED", 0)))
    changes = {"epochs": 4 + kills, "patience": 0}
    run(tmp_path / "whole", **changes)
    folder, counts = tmp_path / "broken", {}
    for _ in range(kills):
        done = max(map(int, saved_steps(folder)), default=0)
        after = done + int(rng.integers(1, 7))
        moments = {
            "a step": in_a_step(after),
            "an evaluation": evaluating(after),
            "a save": saving(after),
        }
        name = str(rng.choice(list(moments)))
        moment, left = moments[name], 0.02 * rng.random()

        def later(folder, moment=moment, left=left):
            # A random while after the moment has come, if it lasts.
            return moment(folder) and (time.sleep(left) or moment(folder))

        kill(folder, moment if name == "an evaluation" else later, **changes)
        counts[name] = counts.get(name, 0) + 1
        print(name, "after step", after, "- saved:", saved_steps(folder))
    run(folder, **changes)
    assert_same_run(tmp_path / "whole", folder)
    print(counts)


def copied(whole, folder):
    """A copy of a finished run as it was before its results were written."""
    shutil.copytree(whole, folder)
    (folder / "summary.json").unlink()
    return folder


def test_a_damaged_latest_checkpoint_is_said_and_costs_only_time(whole, tmp_path, capsys):
    folder = copied(whole, tmp_path / "run")
    newest = max(map(int, saved_steps(folder)))
    path = max(folder.glob(f"checkpoints/{newest}/state/**/d/*"), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    run(folder)
    output = capsys.readouterr().out
    assert re.search(
        rf"note: the checkpoint of step {newest} in .* is damaged: .*{path.name}", output
    )
    assert "continuing at step" in output
    assert_same_run(whole, folder)


def test_without_a_usable_checkpoint_it_does_not_start_again(whole, tmp_path):
    folder = copied(whole, tmp_path / "run")
    for path in folder.glob("checkpoints/*/checkpoint.json"):
        path.unlink()
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"no checkpoint in .* is usable"):
        run(folder)
    assert (folder / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_classes": 3}, "num_classes: 5 there, 3 now"),
        ({"lora_rank": 2}, "lora_rank: 0 there, 2 now"),
        ({"backbone": "some/folder"}, "backbone: 'scratch' there, 'some/folder' now"),
    ],
)
def test_another_rank_backbone_or_number_of_classes_is_refused(whole, tmp_path, change, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        run(copied(whole, tmp_path / "run"), **change)


def test_other_versions_are_said(whole, tmp_path):
    folder = copied(whole, tmp_path / "run")
    path = folder / "config.json"
    stored = json.loads(path.read_text())
    stored["versions"] |= {"jax": "0.4.1", "dwa_jax": "9.0"}
    del stored["config"]["proportions"]
    path.write_text(json.dumps(stored))
    notes = ["the run began with dwa_jax 9.0; this is", "the run began with jax 0.4.1; this is"]
    # A difference's reason may be the version: a key that it did not have is at its default.
    with pytest.raises(
        ValueError, match="proportions: 'batch' there, 'moving_average' now"
    ) as error:
        run(folder)
    assert all(note in str(error.value) for note in notes)
    stored["config"]["proportions"] = "moving_average"
    path.write_text(json.dumps(stored))
    found = run_folder.open_folder(folder, Config.of(configuration()))
    assert len(found) == 2 and all(a.startswith(b) for a, b in zip(found, notes, strict=True))
    # One that there is no longer matters where the run did otherwise than every run does now.
    stored["config"]["gramian_every"] = 1
    path.write_text(json.dumps(stored))
    assert run_folder.open_folder(folder, Config.of(configuration())) == found
    stored["config"]["gramian_every"] = 10
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="gramian_every: 10 there, nothing now"):
        run_folder.open_folder(folder, Config.of(configuration()))


HOLD = """
import sys, time
from pathlib import Path
from dwa_jax.finetune import run_folder
with run_folder.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_refuses_until_the_first_is_gone(whole, tmp_path):
    folder = copied(whole, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "lock"}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        refused = subprocess.run(command(folder), cwd=ROOT, capture_output=True, text=True)
        assert refused.returncode == 2 and f"(pid {holder.pid} on " in refused.stderr
        assert "is in use by another process" in refused.stderr
        assert before == {
            path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "lock"
        }
    finally:
        holder.kill()
        holder.communicate()
    with run_folder.lock(folder):
        assert f"pid {os.getpid()} " in (folder / "lock").read_text()


def begun(folder):
    """Makes a folder look as if an epoch had ended in it."""
    MetricsFile(folder / "metrics.jsonl").write({"kind": "evaluation", "step": 6, "epoch": 1})


def test_a_folder_of_a_process_killed_before_it_wrote_anything_can_be_used(tmp_path):
    config = Config.of(configuration())
    with run_folder.lock(tmp_path):
        (tmp_path / ".config.json.dwa_jax-0123456789abcdef.partial").write_text("{")
    (tmp_path / ".DS_Store").write_bytes(b"Bud1")
    assert run_folder.open_folder(tmp_path, config, data="rows") == []
    # Nothing was computed yet, so that a mended command is welcome.
    mended = Config.of(config, lora_rank=2, epochs=3)
    (note,) = run_folder.open_folder(tmp_path, mended, data="other rows")
    assert "nothing was computed yet" in note
    assert run_folder.open_folder(tmp_path, mended, data="other rows") == []
    begun(tmp_path)
    with pytest.raises(ValueError, match="a run on other rows"):
        run_folder.open_folder(tmp_path, mended, data="rows")
    with pytest.raises(ValueError, match="lora_rank: 2 there, 0 now"):
        run_folder.open_folder(tmp_path, config, data="other rows")


def test_a_key_younger_than_a_run_counts_as_its_default(tmp_path):
    config = Config.of(configuration())
    run_folder.open_folder(tmp_path, config, data="rows")
    begun(tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    del stored["config"]["sketch_columns"], stored["config"]["scratch"]["max_positions"]
    path.write_text(json.dumps(stored))
    assert run_folder.open_folder(tmp_path, config, data="rows") == []
    with pytest.raises(ValueError, match="sketch_columns: 16 there, 1 now"):
        run_folder.open_folder(tmp_path, Config.of(config, sketch_columns=1))
    with pytest.raises(ValueError, match=r"scratch\.max_positions: 64 there, 32 now"):
        run_folder.open_folder(tmp_path, Config.of(config, scratch=SHAPE | {"max_positions": 32}))
    # One that is no longer there has no default.
    stored["config"]["gone"] = 2
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="gone: 2 there, nothing now"):
        run_folder.open_folder(tmp_path, config)


def test_a_finished_run_is_left_as_it_is(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    again = subprocess.run(command(whole), cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0 and "finished" in again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*")}


def test_a_line_of_the_log_that_a_crash_did_not_leave_is_not_dropped_in_silence(tmp_path):
    log = MetricsFile(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.write({"kind": "step", "step": step, "epoch": 1})
    log.write({"kind": "evaluation", "step": 3, "epoch": 1})
    with log.path.open("a") as file:
        file.write('{"kind": "st')
    assert len(log.read()) == 4
    log.rewind(3, 0)
    assert log.read() == [{"kind": "step", "step": step, "epoch": 1} for step in (1, 2, 3)]
    log.path.write_text(log.path.read_text().replace('"step": 2', '"step": 2}'))
    with pytest.raises(ValueError, match=r"line 2 of .*metrics.jsonl is damaged"):
        log.read()


LISTEN = """
import sys, time
from dwa_jax.finetune import interrupts
from experiments.terminal import ending

if sys.argv[1] == "at once":
    ending.end_at_once()
    print("ready", flush=True)
    time.sleep(60)
with interrupts.listen() as stop:
    print("ready", flush=True)
    while stop.signum is None:
        time.sleep(0.01)
    print("heard", flush=True)
    time.sleep(60)
"""


def listener(how):
    process = subprocess.Popen(
        [sys.executable, "-c", LISTEN, how],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_outside_of_training_a_signal_ends_it_at_once_with_one_line(signum):
    process = listener("at once")
    process.send_signal(signum)
    _, errors = process.communicate(timeout=5)
    assert process.returncode == 128 + signum
    assert errors.startswith(f"stopped by {signum.name}") and errors.count("\n") == 1


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(second):
    process = listener("after a save")
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "heard\n"
    process.send_signal(second)
    process.communicate(timeout=5)
    assert process.returncode == -second


def test_a_signal_is_heard_while_something_long_runs_elsewhere():
    started = time.perf_counter()
    with interrupts.listen() as stop, pytest.raises(interrupts.Interrupted, match="SIGTERM"):
        # To this thread while a compilation, say, holds another one.
        stop.wait_for(lambda: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(30))
    assert time.perf_counter() - started < 5
    with interrupts.listen() as stop:
        assert stop.wait_for(lambda: 7) == 7
        with pytest.raises(TimeoutError, match="of its own"):
            stop.wait_for(lambda: (_ for _ in ()).throw(TimeoutError("of its own")))
