"""What the README says: its first example runs as it stands, its tables and links are true."""

import importlib
import re
from pathlib import Path

import pytest

from dwa_jax.finetune.config import Config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]

TWITTER = "cardiffnlp/twitter-roberta-large-2022-154m"
TINYLLAMA = "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"
# Table 1 of the DWA paper: its name of a model -> ours, trunk, tasks, weighting, whether LoRA.
BENCHMARKS = {
    "B1": ("roberta_large", "FacebookAI/roberta-large", 1, "single_task", False),
    "B2": ("twitter_roberta_large", TWITTER, 1, "single_task", False),
    "B3": ("twitter_roberta_large_constant", TWITTER, 2, "constant", False),
    "B4": ("twitter_roberta_large_dwa", TWITTER, 2, "dwa", False),
    "B5": ("tinyllama_dwa", TINYLLAMA, 2, "dwa", False),
    "B6": ("qwen_dwa", "Qwen/Qwen2-0.5B", 2, "dwa", False),
    "B7": ("twitter_roberta_large_dwa_lora", TWITTER, 2, "dwa", True),
    "B8": ("tinyllama", TINYLLAMA, 2, "dwa", True),
    "B9": ("qwen", "Qwen/Qwen2-0.5B", 2, "dwa", True),
}


def test_the_first_example_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first = re.search(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[1]
    lines = [line for line in first.splitlines() if line.strip()]
    assert len(lines) <= 6 and lines[0] == "import dwa_jax"
    names = {}
    exec(compile(first, "README.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()[-1]
    assert "score=" in printed and "probabilities=" in printed
    assert names["model"].summary["test"]["r2"] > 0.3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("label", BENCHMARKS)
def test_a_label_of_the_papers_names_what_it_names_there(label):
    name, trunk, tasks, weighting, lora = BENCHMARKS[label]
    module = importlib.import_module(f"configs.{name}")
    assert module.__doc__.startswith(f"{label}: ")
    config = Config.of(module.get_config())
    assert config.backbone == trunk and len(config.tasks) == tasks
    assert config.tasks[0] == "regression"
    assert config.weighting.partition("(")[0] == weighting
    assert (config.lora_rank > 0) == lora


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tables_of_pages_give_the_labels_to_the_same_configurations(page):
    found = {}
    for line in page.read_text("utf-8").splitlines():
        labels = re.findall(r"\bB[1-9]\b", line)
        names = re.findall(r"`(?:configs/)?(\w+)(?:\.py)?`", line)
        if labels and line.startswith("|"):
            assert len(labels) == len(names), line
            found |= dict(zip(labels, names, strict=True))
    expected = {label: facts[0] for label, facts in BENCHMARKS.items()}
    assert found.items() <= expected.items()
    if page.name == "README.md":
        assert found == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_within_the_project_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    inside = [target for target in targets if "://" not in target]
    for target in inside:
        path, _, heading = target.partition("#")
        there = (page.parent / path) if path else page
        assert there.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", there.read_text("utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in slugs, target


def test_other_names_of_the_project_that_pages_give_are_there():
    for page in [*PAGES, ROOT / "docs" / "index.md"]:
        text = page.read_text("utf-8")
        for path in re.findall(r"`((?:tests|dwa_jax|experiments|configs|docs)/[\w/]+\.\w+)`", text):
            assert (ROOT / path).exists(), f"{page.name}: {path}"
        for module in re.findall(r"\bfrom ((?:dwa_jax|experiments|configs)[\w.]*) import", text):
            importlib.import_module(module)
