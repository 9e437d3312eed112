"""Terminals, umasks and locales of all kinds: the same results, and no run that a print ends."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# Names that neither ASCII nor Latin-1 has.
NAMES = ("schlecht ё", "名前", "İyi")
# Each is a run of its own; so what has nothing to do with encodings goes with one of them.
ENVIRONMENTS = {
    "utf-8": {"PYTHONIOENCODING": "utf-8"},
    "ascii, umask": {
        "PYTHONIOENCODING": "ascii",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    },
    "latin-1, optimized": {
        "PYTHONIOENCODING": "latin-1",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONOPTIMIZE": "2",
    },
    "turkish": {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "LANGUAGE": "tr"},
}
# As a program does that asks for its user's locale: numbers have a comma, too, and I becomes
# a letter without a dot.
IN_ITS_LOCALE = """
import locale, runpy
locale.setlocale(locale.LC_ALL, "")
assert locale.str(0.5) == "0,5", locale.setlocale(locale.LC_ALL)
runpy.run_module("experiments.main", run_name="__main__", alter_sys=True)
"""
KEYS = {
    "category_column": "kind",
    "category_names": repr(NAMES),
    "num_classes": 3,
    "tasks": "('regression','classification')",
    "epochs": 1,
    "batch_size": 16,
    "eval_batch_size": 16,
    "max_buckets": 1,
    "max_length": 16,
    "dropout": False,
    "gradient_scope": "representation",
    "stratifier": "equal_width",
    "scratch.vocab_size": 300,
    "scratch.width": 8,
    "scratch.layers": 1,
    "scratch.heads": 2,
    "scratch.feed_forward": 16,
}


@pytest.fixture(scope="module")
def locales(tmp_path_factory):
    """What makes a real Turkish locale, which hardly a machine has, be found; or skips."""
    folder = tmp_path_factory.mktemp("locales")
    make = ["localedef", "-i", "tr_TR", "-f", "UTF-8", str(folder / "tr_TR.UTF-8")]
    if shutil.which("localedef") is None or subprocess.run(make, capture_output=True).returncode:
        pytest.skip("no Turkish locale can be made here: localedef or its sources are missing")
    return {"LOCPATH": str(folder)}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """environment -> (its run's folder, what it said)."""
    found = {}

    def run(kind, **more):
        if kind not in found:
            place = tmp_path_factory.mktemp("texts")
            rows = [f"text {i} é,{(i % 21) / 10 - 1},{NAMES[i % 3]}" for i in range(60)]
            file = place / "тексты é.csv"
            file.write_text("\n".join(["text,score,kind", *rows]) + "\n", "utf-8")
            folder = place / "run 名"
            options = KEYS | {"train": file}
            program = subprocess.run(
                [
                    sys.executable,
                    *(("-c", IN_ITS_LOCALE) if kind == "turkish" else ("-m", "experiments.main")),
                    *("--config=configs/base.py", f"--workdir={folder}"),
                    *(f"--config.{key}={value}" for key, value in options.items()),
                ],
                cwd=ROOT,
                env=os.environ | ENVIRONMENTS[kind] | more,
                capture_output=True,
                umask=0o077 if "umask" in kind else 0o022,
                timeout=300,
            )
            found[kind] = folder, program
        return found[kind]

    return run


@pytest.mark.parametrize("kind", ENVIRONMENTS)
def test_results_are_the_same(results, request, kind):
    more = request.getfixturevalue("locales") if kind == "turkish" else {}
    folder, program = results(kind, **more)
    assert program.returncode == 0, program.stderr.decode("utf-8", "replace")[-2000:]
    same, _ = results("utf-8")
    for name in ("predictions.csv", "backbone.json"):
        assert (folder / name).read_bytes() == (same / name).read_bytes()
    assert {p.name for p in folder.iterdir()} == {p.name for p in same.iterdir()}
    if "umask" in kind:
        assert all(p.stat().st_mode & 0o077 == 0 for p in folder.rglob("*"))
    if (encoding := kind.partition(",")[0]) in ("ascii", "latin-1"):
        program.stdout.decode(encoding)
