"""Two processes with two CPU devices each train one run: as one does, to its end or a signal's."""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import dwa_jax
from dwa_jax import processes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
KEYS = {
    "generated_rows": 60,
    "epochs": 4,
    "log_every": 1,
    "batch_size": 7,
    "eval_batch_size": 8,
    "max_buckets": 1,
    "scratch.width": 64,
    "keep_checkpoints": True,
}
# Of what does not compare numbers.
SMALL = {"scratch.width": 16, "scratch.layers": 1}

STARTED = []


@pytest.fixture(autouse=True)
def none_is_left_behind():
    """Ends what a test that failed has started."""
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.wait()
        process.stdout.close()


def start(folder, devices, *flags, environment=None, on=(), **keys):
    """Starts the program on so many CPU devices; `on` are commands that it begins with."""
    flags_of_xla = os.environ.get("XLA_FLAGS", "")
    settings = [f"--config.{key}={value}" for key, value in {**KEYS, **keys}.items()]
    process = subprocess.Popen(
        [*on, sys.executable, "-m", "experiments.main", "--config=configs/demo.py"]
        + [f"--workdir={folder}", *settings, *flags],
        cwd=ROOT,
        env=os.environ
        | {
            "XLA_FLAGS": f"{flags_of_xla} --xla_force_host_platform_device_count={devices}",
            "JAX_PLATFORMS": "cpu",
        }
        | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    STARTED.append(process)
    return process


def start_two(folder, **keys):
    """Starts two processes with two devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    named = f"--coordinator=localhost:{port}", "--processes=2"
    return [start(folder, 2, *named, f"--process_id={i}", **keys) for i in range(2)]


def start_tasks(folder, **keys):
    """Starts the same as the two tasks of a step of SLURM's."""
    for job in range(os.getpid(), os.getpid() + 4096):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("localhost", job % 4096 + 61440))  # as JAX chooses it
            break
    step = {"SLURM_JOB_ID": str(job), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    tasks = [step | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]
    return [start(folder, 2, environment=task, **keys) for task in tasks]


def ended(process, timeout=240):
    """Returns its status and what it said."""
    try:
        said, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, said


def steps(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [one for one in map(json.loads, lines) if one["kind"] == "step"]


def wait_for_step(folder, step, processes):
    ends = time.monotonic() + 240
    while not (folder / "metrics.jsonl").exists() or len(steps(folder)) < step:
        assert all(one.poll() is None for one in processes), [ended(one) for one in processes]
        assert time.monotonic() < ends
        time.sleep(0.05)


def assert_same_steps(found, expected):
    assert [one["step"] for one in found] == [one["step"] for one in expected]
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("loss_regression", "loss_imbalance", "lambda_regression", "alpha", "beta"):
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5, err_msg=name)


def predicted(folder):
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return np.array([float(row["predicted_score"]) for row in csv.DictReader(file)])


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run by one process with one device, to its end."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    status, said = ended(start(folder, 1))
    assert status == 0, said
    return folder


def test_a_signal_to_one_saves_both_and_other_devices_go_on(alone, tmp_path):
    folder = tmp_path / "run"
    both = start_two(folder, mesh="data=2,fsdp=2")
    wait_for_step(folder, 1, both)
    both[1].send_signal(signal.SIGTERM)
    (status, said), (other, _) = map(ended, both)
    assert (status, other) == (143, 143), said
    assert "stopped by SIGTERM; saved." in said
    [saved] = [name for name in os.listdir(folder / "checkpoints") if name.isdecimal()]
    assert 1 <= int(saved) < len(steps(alone))
    assert int(saved) == steps(folder)[-1]["step"]
    # One process with one device has the whole state, and a number of rows that none made up.
    status, said = ended(start(folder, 1))
    assert status == 0, said
    assert f"continuing at step {saved}" in said
    assert_same_steps(steps(folder), steps(alone))
    np.testing.assert_allclose(predicted(folder), predicted(alone), atol=1e-4)


def test_two_processes_train_as_one_and_one_reads_what_they_wrote(alone, tmp_path):
    folder = tmp_path / "run"
    both = start_tasks(folder, mesh="fsdp=4")
    (status, said), (other, quiet) = map(ended, both)
    assert (status, other) == (0, 0), said + quiet
    # One of them tells.
    assert "results" in said and "results" not in quiet
    assert_same_steps(steps(folder), steps(alone))
    np.testing.assert_allclose(predicted(folder), predicted(alone), atol=1e-4)
    model = dwa_jax.load(folder)
    texts = ["EUR/USD jumps after ECB", "Yen slides"]
    expected = dwa_jax.load(alone).predict(texts).score
    np.testing.assert_allclose(model.predict(texts).score, expected, atol=1e-4)


def test_one_that_is_killed_ends_the_other_which_names_it(tmp_path):
    folder = tmp_path / "run"
    both = start_two(folder, epochs=500, **SMALL)
    wait_for_step(folder, 1, both)
    both[1].kill()
    began = time.monotonic()
    status, said = ended(both[0], timeout=60)
    both[1].communicate()
    assert status == 4, said
    assert re.search(rf"error: process 1 of 2 \(.*, pid {both[1].pid}\) is lost", said)
    assert time.monotonic() - began < 30


@pytest.fixture
def two_hosts(tmp_path):
    """(0 or 1, where its name leads) -> commands that run another on that one of two machines."""
    names = [f"dwa{os.getpid()}{side}" for side in "ab"]

    def run(*command):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no namespaces can be made here: {done.stderr.strip()}")

    if not all(map(shutil.which, ("ip", "unshare", "mount"))):
        pytest.skip("no namespaces can be made here: ip, unshare or mount is missing")
    try:
        for name in names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        peer = ("type", "veth", "peer", "name", "eth0", "netns", names[1])
        run("ip", "link", "add", "eth0", "netns", names[0], *peer)
        for i, name in enumerate(names):
            run("ip", "-n", name, "addr", "add", f"10.77.0.{i + 1}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")

        def on(i, address):
            hosts = tmp_path / f"hosts{i}"
            hosts.write_text(f"127.0.0.1 localhost\n{address} host{i}\n")
            own = 'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"'
            apart = ("unshare", "--mount", "--uts", "sh", "-c", own, "sh", f"host{i}", str(hosts))
            return ("ip", "netns", "exec", names[i], *apart)

        run(*on(0, "10.77.0.1"), "true")
        yield on
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_two_hosts_train_as_one_and_one_that_others_would_not_find_says_so(two_hosts, tmp_path):
    named = "--coordinator=10.77.0.1:7777", "--processes=2"
    keys = {"epochs": 1, **SMALL}

    def both(folder, *addresses):
        started = [
            start(folder, 1, *named, f"--process_id={i}", on=two_hosts(i, address), **keys)
            for i, address in enumerate(addresses)
        ]
        return list(map(ended, started))

    (status, said), (other, _) = both(tmp_path / "found", "10.77.0.1", "10.77.0.2")
    assert (status, other) == (0, 0), said
    assert len(predicted(tmp_path / "found")) and "2 x cpu" in said
    (first, heard), (status, said) = both(tmp_path / "lost", "10.77.0.1", "127.0.1.1")
    assert (first, status) == (4, 4)
    assert "error: process 1 of 2 (host1, pid " in heard
    assert "error: process 1: host1, this machine's name, leads to 127.0.1.1" in said
    assert "Traceback" not in said and not (tmp_path / "lost" / "metrics.jsonl").exists()


def test_who_lives_but_hangs_is_named_and_ends_all():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    program = """if True:
        import os, sys, time
        from dwa_jax import processes

        def give_up(line):
            print(line, flush=True)
            os._exit(4)

        index, last = int(sys.argv[2]), [8, 3][int(sys.argv[2])]
        processes.join(sys.argv[1], 2, index, give_up=give_up, hanging=4)
        for batch in range(last):
            processes.come_to_a_batch()
            time.sleep(1)
        time.sleep(60)
    """
    for index in range(2):
        arguments = [f"localhost:{port}", str(index)]
        STARTED.append(
            subprocess.Popen(
                [sys.executable, "-c", program, *arguments],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for status, said in map(ended, list(STARTED)):
        line = r"process 1 of 2 \(.+, pid \d+\) hangs: at batch 3 for 4 s, where others wait at \d"
        assert status == 4 and re.search(line, said), said


def test_a_missing_peer_is_one_line(tmp_path):
    folder = tmp_path / "run"
    named = "--coordinator=localhost:9", "--processes=2", "--start_timeout=2"
    one = start(folder, 1, *named, "--process_id=1")
    status, said = ended(one)
    assert status == 4
    assert "error: process 1 reached no process 0 at localhost:9 within 2 s" in said
    assert "Traceback" not in said and not folder.exists()


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (("host:1", 0, 0), "belong together; --processes is missing"),
        (("host", 2, 0), "must be HOST:PORT"),
        (("host:1", 2, 2), "--process_id=2 must be one of 0 to 1, of --processes=2"),
    ],
)
def test_a_wrong_place_among_processes_is_one_line(named, words):
    with pytest.raises(ValueError, match=words):
        processes.join(*named, give_up=pytest.fail)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        # The script of a job, outside of srun.
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"}, False),
        # A service of its own, and a Job.
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, True),
        ({"JAX_COORDINATOR_ADDRESS": "host:1"}, True),
    ],
)
def test_the_environment_says_whether_there_are_others(environment, expected, monkeypatch):
    monkeypatch.setattr(os, "environ", environment)
    assert processes._is_one_of_several() == expected


def test_alone_nobody_is_asked(monkeypatch):
    for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "JAX_COORDINATOR_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    processes.join(give_up=pytest.fail)
    assert (processes.how_many(), processes.is_first()) == (1, True)
    assert processes.first(lambda: 3) == 3
    processes.agree("another number", 3)
    processes.end()
