"""Programs that follow each other in one process."""

import json
import signal
import subprocess
import sys

import pytest

from experiments.sweeps import in_turn

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
