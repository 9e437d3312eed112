"""A run whose word table is cut down is the run with all of it."""

import json

import jax
import numpy as np
import pytest

import dwa_jax
from dwa_jax import backbones, data, trunk
from dwa_jax.finetune import vocabulary
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import read_corpus
from dwa_jax.finetune.model import load_model
from dwa_jax.finetune.run import prepare
from dwa_jax.finetune.setup import make_batches
from tests.experiments import trained_runs

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
WORDS = ["pound", "yen", "franc", "dollar", "rises", "falls", "jumps", "after", "the", "bank"]
TEXTS = [" ".join(RNG.choice(WORDS, RNG.integers(2, 8))) for _ in range(40)]
SCORES = RNG.uniform(-1, 1, len(TEXTS))
KEYS = {
    "epochs": 2,
    "batch_size": 8,
    "max_buckets": 1,
    "max_length": 32,
    "num_classes": 3,
    "stratifier": "equal_width",
    "learning_rate": 1e-2,
    "log_every": 1,
    "dropout": False,
    "patience": 0,
}
TIMES = ("step_ms", "tokens_per_second", "seconds")


def table_of(theta):
    return np.asarray(theta["params"]["embeddings"]["word"]["embedding"])


# Learned positions; those that are counted from the pad id; a decoder, whose pad id is its own.
@pytest.mark.parametrize(
    ("family", "mesh"), [("bert", "data=2"), ("roberta", "fsdp=2"), ("qwen2", "data=2")]
)
def test_every_number_of_the_run_is_the_same(family, mesh, tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary, "_LEAST", 1)
    backbone = trained_runs.backbone(family, tmp_path / "backbone", layers=1)
    found = {}
    for trims in (False, True):
        folder = tmp_path / f"run{trims}"
        keys = KEYS | {"trim_vocabulary": trims, "backbone": str(backbone), "mesh": mesh}
        model = dwa_jax.train(TEXTS, SCORES, folder=folder, **keys)
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found[trims] = model, records, model.predict(TEXTS).score
    (whole, expected, scores), (cut, records, others) = found.values()
    for ours, theirs in zip(records, expected, strict=True):
        for name, value in theirs.items():
            if isinstance(value, float) and name not in TIMES:
                assert ours[name] == pytest.approx(value, abs=2e-5), name
    np.testing.assert_allclose(others, scores, atol=2e-5)
    # What is read back is what was trained, with a table for every token.
    again = dwa_jax.load(tmp_path / "runTrue")
    unseen = [*TEXTS, "EUR/USD steady: little else!"]
    np.testing.assert_array_equal(again.predict(TEXTS).score, others)
    assert np.isfinite(again.predict(unseen).score).all()
    # Rows of tokens that no text has are the pre-trained ones, where decay would shrink them.
    used = np.unique(data.encode(cut.run.tokenizer, TEXTS, 32, None).ids.tokens)
    _, params = backbones.load(backbone)
    before = table_of({"params": params})
    table, other = table_of(cut.run.theta), table_of(whole.run.theta)
    assert table.shape == other.shape == before.shape
    np.testing.assert_allclose(table[used], other[used], atol=2e-5)
    untouched = (table == before).all(1)
    assert not untouched[used].any() and untouched.sum() > len(before) / 4
    np.testing.assert_allclose(other[untouched], before[untouched], rtol=1e-2)
    assert np.abs(other[untouched]).sum() < np.abs(before[untouched]).sum()


def prepared(**keys):
    config = Config.of(KEYS | keys)
    return prepare(config, read_corpus(config))


def test_the_table_stays_whole_where_it_is_small_or_does_not_train(tmp_path, monkeypatch):
    backbone = str(trained_runs.backbone("bert", tmp_path, layers=1))
    keys = {"backbone": backbone, "generated_rows": 40}
    assert prepared(**keys)[0].vocabulary is None
    monkeypatch.setattr(vocabulary, "_LEAST", 1)
    model, batches, setup, _ = prepared(**keys)
    words = model.vocabulary
    assert len(table_of(setup.state.theta)) == len(words.kept)
    assert words.left_out == (len(words.rows) - len(words.kept)) * 16
    batch = next(batches["train"].epoch(0))
    ids = batches["train"].ids[batch["row"][0]]
    np.testing.assert_array_equal(words.kept[batch["input_ids"][0, : len(ids)]], ids)
    assert words.kept[batches["train"].pad_id] == model.tokenizer.pad_token_id
    assert prepared(**keys, lora_rank=2)[0].vocabulary is None
    assert prepared(**keys, freeze=("embeddings",))[0].vocabulary is None
    assert prepared(**keys, trim_vocabulary=False)[0].vocabulary is None


def test_batches_are_for_the_model_as_it_then_is(tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary, "_LEAST", 1)
    backbone = str(trained_runs.backbone("bert", tmp_path, layers=1))
    pooled = []
    for trims in (False, True):
        config = Config.of(
            KEYS, backbone=backbone, generated_rows=40, trim_vocabulary=trims, seed=1
        )
        corpus = read_corpus(config)
        model = load_model(config, corpus, jax.random.key(0))
        batches, _ = make_batches(config, corpus, model)
        assert (model.vocabulary is not None) == trims
        theta, frozen = trunk.split_parameters(model.params)
        run = trunk.make_trunk(model.module, pooling=model.pooling)
        pooled.append(run(theta, frozen, next(batches["train"].epoch(0))))
    np.testing.assert_allclose(*pooled, atol=1e-6)
