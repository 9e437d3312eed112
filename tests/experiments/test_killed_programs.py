"""Programs killed at any step, and writing to one place at once: nobody's files suffer.

WRITERS=50 pytest -n0 -s tests/experiments/test_killed_programs.py -k overlapping
KILLS=12 pytest -n0 -s tests/experiments/test_killed_programs.py -k killed_and
"""

import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from configs import base
from dwa_jax.finetune import export, plots, saved
from dwa_jax.regular_files import file_digest
from experiments import predict, report
from tests import runs
from tests.experiments.test_what_is_not_ours import look

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SECRET = "a key of somebody's"
# A program that is killed right before the step of so many at which a name in a place changes.
KILLED = """
import os, runpy, signal, sys
place, left, module = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def counted(real):
    def step(path, *args, **options):
        global left
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(place):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
        return real(path, *args, **options)
    return step
for name in ("replace", "rename", "link", "unlink", "mkdir", "rmdir"):
    setattr(os, name, counted(getattr(os, name)))
sys.argv = sys.argv[3:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def plant(folder, name):
    """Puts files, folders, links and a pipe of somebody's where `name` is written."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notes.txt").write_text(SECRET)
    (folder / "notes.txt").chmod(0o600)
    (folder / "backup").mkdir(mode=0o700)
    (folder / "backup" / "thesis").write_text(SECRET)
    (folder / "linked").symlink_to(folder / "backup")
    (folder / "dangling").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe")
    # Almost what a killed writer leaves.
    (folder / f".{name}.partial").write_text(SECRET)
    (folder / f".{name}.dwa_jax-0123456789abcdef.partial").symlink_to(folder / "notes.txt")


def check_untouched(before, folder):
    after = look(folder)
    for name, was in before.items():
        assert after.get(name) == was, name


def check_cleared(before, folder):
    left = [name for name in look(folder) if name.endswith(".partial") and name not in before]
    assert not left


def check_nothing_published(folder):
    for path in folder.rglob("*"):
        assert not path.is_symlink() and (path.is_dir() or path.is_file()), path
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def command(module, *arguments):
    return [sys.executable, "-m", f"experiments.{module}", *map(str, arguments)]


def start(arguments):
    return subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def kept(finished_run, tmp_path_factory):
    """Two models that predict differently, as folders among which files of others lie."""
    trained = saved.load(finished_run)
    moved = jax.tree.map(lambda leaf: 1.5 * leaf, trained.psi)
    folders = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "save", lambda figures, place: None)  # which takes seconds
        for name, run in (("a", trained), ("b", dataclasses.replace(trained, psi=moved))):
            folders.append(tmp_path_factory.mktemp(name) / "run")
            saved.write(run, folders[-1])
            plant(folders[-1], "model.safetensors")
    return folders


@pytest.fixture(scope="module")
def weights(kept):
    """Digests of what an export of each writes."""
    found = []
    for folder in kept:
        out = export.export(saved.load(folder), "", folder.parent / "alone", check=False)
        found.append(file_digest(out / "regression" / "model.safetensors"))
    return found


def test_overlapping_exports_and_predictions_with_kills(kept, weights, tmp_path):
    count = int(os.environ.get("WRITERS", "3"))
    draw = random.Random(count)
    place = tmp_path / "place"
    plant(place, "out")
    (place / "in.csv").write_text("text\n" + "".join(f"text {i} slips\n" for i in range(200)))
    before = [look(folder) for folder in (*kept, place)]
    planted = {path.name for path in place.iterdir()}

    def predicting(number, *more):
        model = kept[number % 2]
        return [f"--workdir={model}", f"--input={place / 'in.csv'}", *more]

    tables = []
    for number in (0, 1):
        out = tmp_path / f"{number}.csv"
        predict.predict(predict.parse(predicting(number, f"--output={out}")))
        tables.append(out.read_bytes())
    assert tables[0] != tables[1]

    def begin(number):
        if number % 2:
            overwrite = ["--overwrite"] * (number % 8 != 3)
            writer = number // 2
            return start(
                command("predict", *predicting(writer, f"--output={place / 'out.csv'}", *overwrite))
            )
        model = kept[number // 2 % 2]
        options = [f"--output={place / 'out'}", f"--license=writer-{number}", "--no-check"]
        return start(command("export", f"--workdir={model}", *options))

    ended = {"well": 0, "refused": 0, "killed": 0}
    seconds = 5.0
    for first in range(0, count, 4):
        begun, killed = time.monotonic(), None
        alive = [begin(number) for number in range(first, min(first + 4, count))]
        victim = draw.choice(alive)
        # At any moment, or where one of them is at work on what takes its place.
        moment = begun + draw.uniform(0.2, 1.1) * seconds
        waits = draw.random() < 0.5
        while any(process.poll() is None for process in alive):
            at_work = {path.name for path in place.glob(".out*.partial")} - planted
            if killed is None and (at_work if waits else time.monotonic() > moment):
                time.sleep(draw.uniform(0, 0.05))
                # Whoever is still there.
                left = [process for process in alive if process.poll() is None]
                killed = victim if victim in left or not left else draw.choice(left)
                killed.kill()
            if (place / "out.csv").exists():
                assert (place / "out.csv").read_bytes() in tables
            time.sleep(0.01)
        seconds = time.monotonic() - begun
        for process in alive:
            said = process.communicate()[1]
            lines = [line for line in said.splitlines() if line.startswith("error: ")]
            if process.returncode == -signal.SIGKILL:
                assert process is killed
                ended["killed"] += 1
            else:
                assert process.returncode in (0, 2) and "Traceback" not in said, said
                assert len(lines) == (process.returncode == 2), said
                ended["refused" if lines else "well"] += 1
        if (place / "out").exists():
            check_export(place / "out", kept, weights)
    print(ended)
    assert ended["well"] and sum(ended.values()) == count
    # The next ones clear what killed ones left.
    export.export(saved.load(kept[0]), "", place / "out", check=False, license="writer-0")
    predict.predict(predict.parse(predicting(0, f"--output={place / 'out.csv'}", "--overwrite")))
    check_export(place / "out", kept, weights)
    for folder, was in zip((*kept, place), before, strict=True):
        check_untouched(was, folder)
    assert {path.name for path in place.iterdir()} == planted | {"out", "out.csv"}


def check_export(out, kept, weights):
    listed = json.loads((out / export.MARKER).read_text())["files"]
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert there == {*listed, export.MARKER}
    assert all(file_digest(out / name) == digest for name, digest in listed.items())
    check_nothing_published(out)
    card = (out / "README.md").read_text()
    (number,) = re.findall(r"^license: \"?writer-(\d+)", card, re.MULTILINE)
    # The card's writer wrote the rest too.
    writer = int(number) // 2 % 2
    assert str(kept[writer]) in card
    assert file_digest(out / "regression" / "model.safetensors") == weights[writer]


TRAINING = {
    **{"generated_rows": 120, "epochs": 2, "batch_size": 16, "eval_batch_size": 16},
    **{"max_buckets": 1, "max_length": 32, "gradient_scope": "representation"},
    **{"dropout": False, "stratifier": "equal_width", "checkpoint_every": 2},
    **{"writers": "tensorboard"},
}
SHAPE = {"vocab_size": 300, "width": 16, "layers": 1, "heads": 2, "feed_forward": 32}


def killed_at(step, place, module, options):
    """Runs a program until so many names in the place are to change; says whether that came."""
    killer = [sys.executable, "-c", KILLED, str(place), str(step), f"experiments.{module}"]
    process = start([*killer, *map(str, options)])
    said = process.communicate()[1]
    assert process.returncode in (0, -signal.SIGKILL), said
    return process.returncode != 0


def test_a_run_killed_and_continued_among_files_of_others(tmp_path):
    place, folder = tmp_path / "place", tmp_path / "place" / "run"
    plant(place, "run")
    before = look(tmp_path)
    options = [
        *("--config=configs/base.py", f"--workdir={folder}"),
        *(f"--config.{key}={value}" for key, value in TRAINING.items()),
        *(f"--config.scratch.{key}={value}" for key, value in SHAPE.items()),
    ]
    process = start(command("main", *options))
    while not (folder / "checkpoints" / "saved.json").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.communicate() and process.returncode == -signal.SIGKILL
    check_untouched(before, tmp_path)
    # What a run that has begun has beside its own, and so may not take for its own.
    ours = look(tmp_path)
    plant(folder / "checkpoints", "saved.json")
    shutil.copytree(folder / "tokenizer", folder / "checkpoints" / "100")
    (folder / "checkpoints" / "7").symlink_to(place / "backup")
    (folder / "tensorboard" / "events.out.tfevents.1.mine").write_text(SECRET)
    (folder / "notes.txt").write_text(SECRET)
    (folder / "plots.old").symlink_to(place / "backup")
    os.mkfifo(folder / "pipe")
    before |= {name: was for name, was in look(tmp_path).items() if name not in ours}
    draw = random.Random(0)
    for _ in range(int(os.environ.get("KILLS", "0"))):
        if not killed_at(step := draw.randint(1, 150), place, "main", options):
            break
        print("killed at step", step)
        check_untouched(before, tmp_path)
    config = base.get_config()
    config.update(TRAINING)
    config.scratch.update(SHAPE)
    runs.run(config, folder)
    check_untouched(before, tmp_path)
    check_cleared(before, tmp_path)
    # And nothing of it is published.
    run = saved.load(folder)
    check_nothing_published(export.export(run, "", tmp_path / "out", check=False))
    check_nothing_published(saved.write(run, tmp_path / "saved").folder)
    assert SECRET not in report.write([folder], tmp_path / "page.html").read_text()
    check_untouched(before, tmp_path)


def asked_for(kept, place):
    """program -> its options; what it writes is in the place."""
    return {
        "predict": [
            *(f"--workdir={kept[0]}", f"--input={place / 'in.csv'}"),
            f"--output={place / 'out.csv'}",
        ],
        "export": [f"--workdir={kept[0]}", f"--output={place / 'out'}", "--no-check"],
        "report": [f"--workdir={kept[0]}", kept[1], f"--output={place / 'out.html'}"],
        "reproduce": ["--figure=2", f"--workdir={place}", "--report_only", "--seeds=0"],
        "endurance": ["--steps=20", f"--output={place / 'out.json'}"],
        "benchmark": [
            *("--suite=step", "--only=minilm", "--rounds=1", "--peers=none"),
            f"--output={place / 'out.json'}",
        ],
    }


PROGRAMS = ("report", "predict", "export", "reproduce", "endurance", "benchmark")


@pytest.mark.parametrize("program", PROGRAMS if "KILLS" in os.environ else PROGRAMS[:1])
def test_a_program_killed_and_run_again_among_files_of_others(program, kept, tmp_path):
    place = tmp_path / "place"
    plant(place, "out.csv")
    plant(place / "figure2", "report.md")
    (place / "in.csv").write_text("text\nEUR/USD slips\n")
    before = look(tmp_path)
    options = asked_for(kept, place)[program]
    step = 0
    while step < int(os.environ.get("KILLS", "1")):
        step += 1
        if not killed_at(step, place, program, options):
            break
        check_untouched(before, tmp_path)
        # Killed right after its output took its name, it left one that is whole.
        if "--overwrite" not in options:
            options.append("--overwrite")
    else:
        done = start(command(program, *options))
        said = done.communicate()[1]
        assert done.returncode == 0, said
        step += 1
    print(program, "killed", step - 1, "times")
    assert step > 1
    check_untouched(before, tmp_path)
    check_cleared(before, tmp_path)
