"""Every configuration: valid, and its docstring is its command."""

import importlib
import re
from pathlib import Path

import pytest

from dwa_jax import stratify
from dwa_jax.finetune import choices
from dwa_jax.finetune.setup import make_tasks, make_weighting

ROOT = Path(__file__).parents[2]
NAMES = sorted(
    path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in ("__init__", "base")
)
# Facts of the papers: backbone, LoRA rank, weighting, tasks.
BOTH = ("regression", "classification")
TWITTER = "cardiffnlp/twitter-roberta-large-2022-154m"
TINYLLAMA = "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
PAPERS = {
    "roberta_large": ("FacebookAI/roberta-large", 0, "single_task", ("regression",)),
    "twitter_roberta_large": (TWITTER, 0, "single_task", ("regression",)),
    "twitter_roberta_large_constant": (TWITTER, 0, "constant", BOTH),
    "twitter_roberta_large_dwa": (TWITTER, 0, "dwa", BOTH),
    "twitter_roberta_large_dwa_lora": (TWITTER, 128, "dwa", BOTH),
    "tinyllama_dwa": (TINYLLAMA, 0, "dwa", BOTH),
    "tinyllama": (TINYLLAMA, 128, "dwa", BOTH),
    "qwen_dwa": ("Qwen/Qwen2-0.5B", 0, "dwa", BOTH),
    "qwen": ("Qwen/Qwen2-0.5B", 128, "dwa", BOTH),
    "dao": (TWITTER, 128, "dwa", BOTH),
}


def test_there_are_the_papers_configurations_and_three_small_ones():
    assert set(NAMES) == set(PAPERS) | {"demo", "minilm", "smollm2"}


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_is_valid_and_states_its_command(name):
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config()
    assert re.search(
        rf"^python -m experiments.main --config=configs/{name}.py$", module.__doc__, re.M
    )
    tasks = make_tasks(config)
    make_weighting(config, len(tasks))
    assert choices.parse(config.stratifier, "stratifier")[0] in stratify.names()
    assert config.is_locked
    if name in PAPERS:
        backbone, rank, weighting, chosen = PAPERS[name]
        assert config.backbone == backbone
        assert config.lora_rank == rank
        assert choices.parse(config.weighting, "weighting")[0] == weighting
        assert tuple(config.tasks) == chosen
        assert config.normalize_tweets == (backbone == TWITTER)
        assert (config.num_classes, config.max_length, config.seed) == (5, 512, 42)


def test_the_presets_fill_in_what_a_choice_leaves_open():
    config = importlib.import_module("configs.demo").get_config()
    loss = make_tasks(config)[1].loss
    assert loss.penalty({"alpha": 2.0, "beta": 2.0}) == 0
    config.preset = "stable"
    loss = make_tasks(config)[1].loss
    assert loss.penalty({"alpha": 2.0, "beta": 2.0}) > 0
    config.classification_loss = "imbalance(mode='bounded')"
    loss = make_tasks(config)[1].loss
    assert loss.penalty({"alpha": 2.0, "beta": 2.0}) == 0
    config.preset = "papers"
    with pytest.raises(ValueError, match="preset='papers' is not one of paper, stable"):
        make_weighting(config, 2)
