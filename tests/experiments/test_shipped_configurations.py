"""Every shipped configuration trains on small weights; its default export opens outside.

Its backbone's name is exchanged for a small random model of the same family; what else changes
is how long and how wide it trains.
"""

import functools
import importlib

import numpy as np
import pytest

import dwa_jax
from dwa_jax.finetune import listener
from dwa_jax.finetune.config import Config
from tests.experiments import trained_runs
from tests.experiments.test_configs import NAMES, SMOLLM2, TINYLLAMA, TWITTER

pytestmark = pytest.mark.slow

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

FAMILY = {
    "FacebookAI/roberta-large": "roberta",
    TWITTER: "roberta",
    TINYLLAMA: "llama",
    SMOLLM2: "llama",
    "Qwen/Qwen2-0.5B": "qwen2",
    "sentence-transformers/all-MiniLM-L6-v2": "bert",
}
TEXTS = ["@who EUR/USD jumps", "the dollar falls against the yen, see http://x.y", "pound"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A hub id -> folder of a small model of its family."""

    @functools.cache
    def get(name):
        family = FAMILY[name]
        # One layer traces and compiles in half the time; exports of two are in test_export.py.
        return trained_runs.backbone(family, tmp_path_factory.mktemp(family), layers=1)

    return get


def opened(folder, form, texts):
    """What the library that the form is for makes of the texts."""
    if form == "sentence_transformers":
        library = pytest.importorskip("sentence_transformers")
        return library.SentenceTransformer(str(folder), device="cpu").encode(texts)
    assert form == "transformers"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits.numpy()


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_and_its_default_export_gives_its_scores(name, small, tmp_path):
    config = Config.of(importlib.import_module(f"configs.{name}").get_config())
    changes = {"epochs": 1, "generated_rows": 40, "batch_size": 16, "eval_batch_size": 8}
    changes |= {
        "max_length": 32,
        "max_buckets": 1,
        "unroll": 1,
        "lora_rank": min(config.lora_rank, 2),
    }
    if config.backbone == "scratch":
        changes["scratch"] = {"vocab_size": 300, "width": 16, "layers": 1, "heads": 2}
    else:
        changes["backbone"] = str(small(config.backbone))
    model = dwa_jax.train(config=Config.of(config, **changes), listener=listener.Listener())
    model.export(tmp_path / "out")
    form = "sentence_transformers" if name == "minilm" else "transformers"
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"Opened with {form.replace('_', '-')}" in card
    # The export was compared with the run in float32; here the run computes in its own.
    tolerance = 1e-4 if config.dtype == "float32" else 2e-2
    # Outside nothing clips scores to the range.
    model.clip_scores = False
    ours = model.predict(TEXTS)
    texts = [t.replace("@who", "@user").replace("http://x.y", "http") for t in TEXTS]
    given = texts if config.normalize_tweets else TEXTS
    score = opened(tmp_path / "out" / "regression", form, given)
    np.testing.assert_allclose(score[:, 0], ours.score, atol=tolerance)
    if "classification" in config.tasks:
        odds = np.exp(opened(tmp_path / "out" / "classification", form, given))
        odds /= odds.sum(1, keepdims=True)
        np.testing.assert_allclose(odds, ours.probabilities, atol=tolerance)
