"""What the site tells a reader to do: its notebooks, and the commands of its pages."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

import dwa_jax
from configs import base
from experiments import export, predict

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [path for path in DOCS.rglob("*.md") if "_build" not in path.parts]
COMMAND = re.compile(r"^    (.*python -m (\w+\.\w+) .*)$", re.MULTILINE)


@pytest.fixture
def pictures(monkeypatch):
    """The lines of every picture that is shown."""
    shown = []
    matplotlib.use("Agg")

    def show():
        shown.append([line.get_ydata() for line in plt.gca().lines])
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    return shown


def execute(name, monkeypatch, tmp_path):
    """Runs a notebook's cells one after another; returns its names."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = DOCS / "notebooks" / f"{name}.ipynb"
    names = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(path.read_text("utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
    return names


def test_the_notebook_that_fine_tunes(monkeypatch, tmp_path, pictures, capsys):
    names = execute("fine_tune_on_your_csv", monkeypatch, tmp_path)
    assert names["model"].summary["test"]["r2"] > 0.7
    soars, slips, little = (found.score for found in names["model"](names["texts"]))
    assert soars > little > slips
    assert "category" in capsys.readouterr().out
    assert names["again"](names["texts"]) == names["model"](names["texts"])
    # A notebook of someone who has the package alone.
    source = (DOCS / "notebooks" / "fine_tune_on_your_csv.ipynb").read_text("utf-8")
    assert not re.search(r"import configs|import experiments|from (configs|experiments)", source)
    (lines,) = pictures
    assert len(lines[1]) == len(names["rows"]) > 30


def test_the_notebook_that_compares_weightings(monkeypatch, tmp_path, pictures, capsys):
    names = execute("compare_weightings", monkeypatch, tmp_path)
    (lines,) = pictures
    constant, uncertainty, dwa, floored = (np.asarray(line) for line in lines)
    np.testing.assert_allclose(constant, 0.75, atol=1e-6)
    assert abs(uncertainty[0] - 0.5) < 1e-6 and np.ptp(uncertainty) > 0.05
    # As the text says: from equal weights to nearly all on one, unless a floor holds them.
    assert abs(dwa[0] - 0.5) < 1e-6 and dwa[-1] > 0.98 and dwa[-1] > floored[-1]
    for name, run in names["runs"].items():
        assert np.all(run["losses"][-1] < run["losses"][0]), name
    squared, entropy = np.stack([run["losses"][-1] for run in names["runs"].values()]).T
    assert squared[2] < squared[0] and entropy[2] > entropy[0]
    assert capsys.readouterr().out.count("squared error") == 4


def test_getting_started_as_it_is_written(tmp_path):
    page = (DOCS / "getting_started.md").read_text("utf-8")
    commands = [shlex.split(match[0]) for match in COMMAND.findall(page)]
    assert [argv[2].split(".")[1] for argv in commands] == [
        *("main", "main", "predict", "export"),
    ]
    writes = re.search(r"```python\n(import csv.*?)```", page, re.DOTALL)[1]
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "svg"}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    look = next(argv for argv in commands if "--dry_run" in argv)
    # Programs leave the backend alone, or a notebook that imports one would show no pictures.
    both = "import atexit, matplotlib\natexit.register(lambda: print(matplotlib.get_backend()))\n"
    both += "import experiments.report, experiments.sweeps.report\n"
    both += f"{writes}\nimport runpy, sys\nsys.argv = {look[2:]!r}\n"
    both += f"runpy.run_module({look[2]!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", both], **options, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "480" in done.stdout and "thresholds" in done.stdout
    assert done.stdout.split()[-1] == "svg"
    assert len((tmp_path / "mine.csv").read_text("utf-8").splitlines()) == 601
    assert not (tmp_path / "runs").exists()
    for argv in commands:
        if argv[2].endswith("predict"):
            assert predict.parse(argv[3:]).input == "mine.csv"
        if argv[2].endswith("export"):
            assert export.parse(argv[3:]).format == "transformers"


def test_the_reference_has_a_page_for_each_public_name():
    pages = {path.stem: path.read_text("utf-8") for path in (DOCS / "api").glob("*.rst")}
    listed = re.findall(r"^   (\w+)$", pages.pop("index"), re.MULTILINE)
    assert sorted(listed) == sorted(pages)
    public = [name for name in dir(dwa_jax) if name in dwa_jax.__all__]
    assert len(public) == len(dwa_jax.__all__) > 15
    for name in public:
        path = re.compile(rf"^\.\. auto\w+:: dwa_jax\.{name}$", re.MULTILINE)
        assert len([page for page, text in pages.items() if path.search(text)]) == 1, name


def test_every_key_and_file_that_a_page_names_is_there():
    config = base.get_config()
    keys, files = set(), set()
    for page in PAGES:
        text = page.read_text("utf-8")
        keys |= set(re.findall(r"--config\.(\w+)", text)) - {"KEY"}
        files |= set(re.findall(r"(?:configs|docs)/[\w/]+\.(?:py|md)", text))
    assert len(keys) > 10 and keys <= set(config)
    assert len(files) > 5 and not [name for name in files if not (ROOT / name).exists()]
