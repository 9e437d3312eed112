"""Programs that follow each other in one process."""

import json
import signal
import subprocess
import sys

import pytest

from experiments.sweeps import in_turn, runner
from experiments.sweeps.plan import Run

PROGRAMS = {
    "fine": "import sys; print('said', *sys.argv[1:]); print('told', file=sys.stderr)",
    "wrong": "import sys; sys.exit(3)",
    "raising": "raise ValueError('a mistake')",
    "worded": "import sys; sys.exit('words')",
    "ending": "import os; print('last', flush=True); os._exit(5)",
    "reading": "import sys; print(repr(sys.stdin.read()))",
}


@pytest.fixture
def process(tmp_path, monkeypatch):
    for name, text in PROGRAMS.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    with subprocess.Popen(
        [sys.executable, "-m", in_turn.__name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as found:
        yield found
        found.kill()


def answer(process, folder, name, *arguments):
    request = {"module": name, "arguments": arguments, "log": str(folder / f"{name}.log")}
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    return process.stdout.readline()


def test_each_is_answered_with_its_status_and_has_a_log_of_its_own(process, tmp_path):
    assert answer(process, tmp_path, "fine", "a", "b c") == "0\n"
    assert answer(process, tmp_path, "wrong") == "3\n"
    assert answer(process, tmp_path, "raising") == "1\n"
    assert answer(process, tmp_path, "worded") == "1\n"
    assert answer(process, tmp_path, "reading") == "0\n"
    assert answer(process, tmp_path, "fine") == "0\n"
    logs = {path.stem: path.read_text() for path in tmp_path.glob("*.log")}
    assert logs["fine"] == "said a b c\ntold\nsaid\ntold\n"
    assert logs["raising"].endswith("ValueError: a mistake\n")
    assert logs["worded"] == "words\n" and logs["reading"] == "''\n"
    process.stdin.close()
    assert process.wait(10) == 0


def test_one_that_ends_the_process_ends_it_with_its_status(process, tmp_path):
    assert answer(process, tmp_path, "ending") == ""
    assert process.wait(10) == 5 and (tmp_path / "ending.log").read_text() == "last\n"


def test_between_two_a_signal_ends_it(process, tmp_path):
    assert answer(process, tmp_path, "fine") == "0\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 128 + signal.SIGINT


def test_every_run_is_run_once_and_seeds_of_one_follow_each_other(tmp_path, monkeypatch):
    began = []

    class AtOnce(runner._Slot):
        def start(self, run, arguments, folder):
            began.append((run.keys["rate"], run.seed))
            folder.mkdir(parents=True)
            (folder / runner.SUMMARY).write_text("{}")
            self.run, self.last = run, run.program

    monkeypatch.setattr(runner, "_Slot", AtOnce)
    monkeypatch.setattr(
        runner, "_ended", lambda slots: [(slot, 0) for slot in slots if slot.run is not None]
    )
    # Candidates of one method have one name.
    runs = [
        Run("fx", "scratch", "dwa", seed, {"rate": rate}, "configs/base.py")
        for seed in (0, 1)
        for rate in (1, 2, 3)
    ]
    states = runner.run_all(runs, {}, tmp_path, workers=2, say=lambda line: None)
    assert set(states.values()) == {"finished"} and len(states) == 6
    assert began == [(1, 0), (2, 0), (1, 1), (2, 1), (3, 0), (3, 1)]
