"""A run's folder from a stranger: whatever is changed in it, each program ends well or in a line.

MUTATIONS=2000 pytest -n0 tests/experiments/test_folders_of_strangers.py -k changed
"""

import contextlib
import copy
import json
import math
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from dwa_jax.finetune import export, saved
from dwa_jax.finetune.predictor import Predictor
from experiments import report
from tests.experiments import run_folders

pytestmark = pytest.mark.slow

SECONDS, KIBIBYTES = 10, 2**20
DEEP = "[" * 5000 + "]" * 5000
VALUES = [
    *(None, True, False, 0, -1, 1, 7, 10**9, -(10**9), 10**30, 10**400, 0.5, 1e308, -1e308),
    *("", "x", "x" * 200_000, "\x1b]0;title\x07", "<script>", "\ud800", "../../etc/passwd"),
    *("nobody/nothing", "dwa(floor={[]:1})", "constant(weights=(1,) * 9)", "dwa(width=100000)"),
    *("a" * 2000 + "(", "(a|a?)+$", "das(spacing_penalty=1e999)", "imbalance(alpha=None)"),
    *([], {}, [None], [[]], [1], ["(x+x+)+y"], ["(.*)*(.*)*(.*)*(.*)*$"], {"a": {}}, [[1, 2], [3]]),
    *(math.nan, math.inf, -math.inf, [0.1] * 4, [10**9] * 5, ["a"] * 5, "scratch", "memory:"),
]


def paths(value, here=()):
    """Every place in a JSON value."""
    yield here
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from paths(inner, (*here, key))


def change(value, draw):
    """A JSON value with one place changed, and what was done."""
    value = copy.deepcopy(value)
    places = [place for place in paths(value) if place]
    place = draw.choice(places)
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    if draw.random() < 0.2:
        del inner[place[-1]]
        return value, f"without {place}"
    inner[place[-1]] = draw.choice(VALUES)
    return value, f"{place} = {str(inner[place[-1]])[:60]!r}"


def damage(path, draw):
    """Puts something else in the place of a file."""
    kind = draw.choice(["pipe", "device", "cut", "bits", "empty", "sparse", "deep", "link", "gone"])
    content = path.read_bytes()
    if kind in ("cut", "bits", "empty"):
        content = bytearray(content)
        if kind == "bits":
            for _ in range(1 + len(content) // 500):
                content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content[: {"cut": len(content) // 2, "empty": 0}.get(kind)])
        return kind
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link":
        path.symlink_to(__file__)
    elif kind == "deep":
        path.write_text(DEEP)
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 20 * 2**30)
    return kind


def mutate(folder, draw):
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    path = draw.choice(files)
    where = path.relative_to(folder).as_posix()
    likely = draw.random()
    if likely < 0.75:
        path = folder / draw.choice(
            ["config.json"] * 4 + ["summary.json"] * 4 + ["backbone.json", "metrics.jsonl"]
        )
        path = path if path.exists() else files[0]
        where = path.name
    if likely < 0.9 and path.suffix in (".json", ".jsonl") and path.exists():
        lines = path.read_text("utf-8").splitlines() if path.suffix == ".jsonl" else None
        at = draw.randrange(len(lines)) if lines else 0
        value = json.loads(lines[at] if lines else path.read_text("utf-8"))
        if not isinstance(value, dict | list) or not value:
            return f"{where}: nothing"
        value, done = change(value, draw)
        text = json.dumps(value)
        if lines:
            lines[at] = text
            text = "\n".join(lines) + "\n"
        path.write_text(text, "utf-8")
        return f"{where}: {done}"
    return f"{where}: {damage(path, draw)}"


@contextlib.contextmanager
def bounded():
    """No more than 10 s of computing and 1 GiB; and it ends, however busy the machine is."""

    def ring(signum, frame):
        raise AssertionError("it does not end")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    earlier = signal.signal(signal.SIGALRM, ring)
    signal.alarm(12 * SECONDS)
    begun = time.process_time()
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)
    assert time.process_time() - begun < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KIBIBYTES


def attempt(action):
    """What was wrong, in a line; "" where nothing was."""
    try:
        action()
    except (ValueError, OSError) as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def received(finished_run, tmp_path_factory):
    """A whole folder, with checkpoints; and one that `save` wrote."""
    saved_folder = tmp_path_factory.mktemp("saved") / "run"
    saved.write(saved.load(finished_run), saved_folder)
    return [finished_run, saved_folder]


@pytest.mark.filterwarnings("ignore")
def test_a_changed_folder_ends_well_or_in_a_line(received, tmp_path):
    count = int(os.environ.get("MUTATIONS", "40"))
    seed = int(os.environ.get("SEED", "0"))
    every = max(1, count // 50)
    found = {"well": 0, "refused": 0}
    for number in range(count):
        draw = random.Random(1000 * seed + number)
        folder = tmp_path / "run"
        shutil.copytree(draw.choice(received), folder)
        done = mutate(folder, draw)

        def predict(number=number):
            model = Predictor(saved.load(tmp_path / "run"))
            assert repr(model) and model._repr_html_()
            if number % every == 0:
                model.predict(["EUR/USD jumps"])
                export.export(model.run, "", tmp_path / "out", check=False)

        try:
            for action in (predict, lambda: report.write([tmp_path / "run"], tmp_path / "page")):
                with bounded():
                    said = attempt(action)
                assert "Traceback" not in said, said
                found["refused" if said else "well"] += 1
        except BaseException as error:
            error.add_note(f"mutation {number}: {done}")
            raise
        for left in (tmp_path / "out", folder):
            shutil.rmtree(left, ignore_errors=True)
        (tmp_path / "page").unlink(missing_ok=True)
    print(found)
    assert found["refused"] > count / 4 and found["well"] > 0


REFUSED = [
    ("num_classes", 10**9, "num_classes=1000000000 must be a number of at most"),
    ("lora_rank", 10**9, "lora_rank=1000000000 must be a number of at most"),
    ("lora_rank", 3, "lora_rank=3, but what trained is of rank 2"),
    ("backbone", "nobody/nothing", "backbone=nobody/nothing, which is no folder here"),
    ("lora_adapter", "/nowhere", "lora_adapter=/nowhere, which is not there: copy the adapter"),
    ("lora_targets", ["(x+x+)+y"], "the pattern"),
    ("lora_targets", [3], "lora_targets: 3 must be a text"),
    ("weighting", "dwa(floor={[]:1})", "the value of floor is not a literal"),
    ("category_names", ["a"], "category_names has 1 names, and num_classes is 5"),
    ("scratch", {"width": 4_000_000, "heads": 1}, "scratch.width=4000000"),
]


@pytest.mark.parametrize(("key", "value", "words"), REFUSED, ids=lambda value: str(value)[:30])
def test_a_line_names_the_file_and_the_field(received, tmp_path, key, value, words):
    folder = tmp_path / "run"
    shutil.copytree(received[0], folder)
    content = json.loads((folder / "config.json").read_text())
    content["config"][key] = value
    (folder / "config.json").write_text(json.dumps(content))
    with bounded(), pytest.raises(ValueError) as caught:
        saved.load(folder)
    said = str(caught.value)
    assert words in said and "\n" not in said and len(said) < 700


@pytest.mark.parametrize("name", ["config.json", "summary.json", "metrics.jsonl", "backbone.json"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_pipes_and_links_are_not_opened(received, tmp_path, name, make):
    folder = tmp_path / "run"
    shutil.copytree(received[1], folder)
    (folder / name).unlink()
    make(folder / name)
    with bounded(), pytest.raises(ValueError, match=rf"{name} is a (pipe|link), where"):
        saved.load(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "vocab.txt"])
def test_a_tokenizer_of_gigabytes_is_not_read(received, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(received[1], folder)
    (folder / "tokenizer" / name).touch()
    os.truncate(folder / "tokenizer" / name, 20 * 2**30)
    with bounded(), pytest.raises(ValueError, match=rf"{name} has more than [\d,]+ bytes"):
        saved.load(folder)


@pytest.mark.parametrize("key", ["vocab", "merges", "init_inputs"])
def test_a_tokenizer_opens_no_file_that_its_configuration_names(received, tmp_path, key):
    folder = tmp_path / "run"
    shutil.copytree(received[1], folder)
    os.mkfifo(tmp_path / "pipe")
    # Without its tokenizer.json the class that is named reads a vocabulary.
    (folder / "tokenizer" / "tokenizer.json").unlink()
    name = str(tmp_path / "pipe")
    about = {"tokenizer_class": "BertTokenizer", key: [name] if key == "init_inputs" else name}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(about))
    with bounded(), pytest.raises(ValueError, match=rf"config\.json: {key} names a file"):
        saved.load(folder)


@pytest.mark.parametrize(
    "value",
    [{"predictions": "train"}, {"thresholds": [1]}, {"best_epoch": "x"}, {"rows": []}, {"test": 3}],
)
def test_a_report_of_a_stranger_s_run_says_which_field(tmp_path, value):
    folder = run_folders.make(tmp_path / "run")
    path = Path(folder / "summary.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | value))
    with pytest.raises(ValueError, match=rf"summary\.json is damaged: {next(iter(value))}"):
        report.write([folder], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
