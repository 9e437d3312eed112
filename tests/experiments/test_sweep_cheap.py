"""What a report sets beside fine-tuning, held to scikit-learn and PyTorch on the same rows.

Axes: N rows, D width.
"""

import csv
import json

import numpy as np
import pytest
import torch
import transformers
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from dwa_jax.finetune import run_folder
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import read_corpus
from experiments.sweeps import cheap
from experiments.sweeps.plan import Sweep
from tests.experiments import trained_runs

pytestmark = pytest.mark.slow

WORDS = {"great": 0.8, "good": 0.4, "plain": 0.0, "bad": -0.4, "awful": -0.8}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Keys of runs on texts whose words settle their scores, of a small random BERT."""
    folder = tmp_path_factory.mktemp("cheap")
    random = np.random.default_rng(0)
    with (folder / "texts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "score"])
        for i in range(120):
            first, second = random.choice(list(WORDS), 2)
            writer.writerow([f"{first} and {second} news {i}", (WORDS[first] + WORDS[second]) / 2])
    return {
        "train": str(folder / "texts.csv"),
        "backbone": str(trained_runs.backbone("bert", folder / "backbone")),
        "pooling": "mean",
        "fractions": (0.6, 0.1, 0.3),
        "max_buckets": 1,
        "lora_rank": 2,
        "seed": 3,
    }


def test_they_are_what_others_compute_on_the_same_rows(keys):
    config = Config.of(keys)
    found, missing = cheap.fit_and_score(config)
    assert missing == {}
    corpus = read_corpus(config)
    train, test = corpus.rows["train"], corpus.rows["test"]
    assert len(test) == 36

    def mse(predicted):
        return np.mean((np.clip(predicted, -1, 1) - test.scores) ** 2)

    mean = found["mean of the training scores"]
    assert mean["mse"] == pytest.approx(mse(train.scores.mean())) and mean["r2"] <= 0
    of_vader = SentimentIntensityAnalyzer()
    compound = np.array([of_vader.polarity_scores(text)["compound"] for text in test.texts])
    assert found["VADER"]["mse"] == pytest.approx(mse(compound))
    assert found["ridge on TF-IDF"]["r2"] > 0.9

    tokenizer = transformers.AutoTokenizer.from_pretrained(keys["backbone"])
    trunk = transformers.AutoModel.from_pretrained(keys["backbone"]).eval()

    def vectors(texts):
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            hidden = trunk(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        mask = batch["attention_mask"][:, :, None]
        return ((hidden * mask).sum(1) / mask.sum(1)).numpy()

    scaler = StandardScaler().fit(vectors(train.texts))
    ridge = RidgeCV([10.0**k for k in range(-2, 6)])
    ridge.fit(scaler.transform(vectors(train.texts)), train.scores)
    expected = mse(ridge.predict(scaler.transform(vectors(test.texts))))
    assert found["ridge on frozen vectors"]["mse"] == pytest.approx(expected, rel=1e-3)


def test_a_trunk_from_scratch_has_no_vectors_to_show(keys):
    found, missing = cheap.fit_and_score(Config.of(keys | {"backbone": "scratch", "pooling": ""}))
    assert list(missing) == ["ridge on frozen vectors"] and len(found) == 3


def test_they_are_measured_once_for_every_seed_that_has_run(keys, tmp_path, monkeypatch):
    sweep = Sweep(
        title="t",
        question="q",
        methods={"constant": {"weighting": "constant"}, "dwa": {"weighting": "dwa"}},
        datasets={"words": {"train": "{data}/words.csv"}},
        backbones={"tiny": "configs/base.py"},
        seeds=(3, 4, 5),
    )
    for seed in (3, 4):
        place = tmp_path / sweep.run("words", "tiny", "constant", seed).id
        place.mkdir(parents=True)
        (place / "summary.json").write_text("{}")
        elsewhere = Config.of(keys | {"seed": seed, "train": "words.csv", "backbone": "model"})
        run_folder.write_json(place / "config.json", {"config": elsewhere.to_dict()})
    places, weights = {"data": "/here"}, {"tiny": "/weights"}
    asked = []

    def fit_and_score(config):
        asked.append(config.seed)
        assert (config.train, config.backbone) == ("/here/words.csv", "/weights")
        if config.seed == 4:
            raise ValueError("words.csv: no such file")
        return {"VADER": {"mse": 0.5, "r2": float("nan")}}, {"ridge on TF-IDF": "not here"}

    monkeypatch.setattr(cheap, "fit_and_score", fit_and_score)
    said = []
    for _ in range(2):
        cheap.measure_missing(sweep, tmp_path, places, weights, said.append)
    nothing = "words, tiny, seed 4: nothing without fine-tuning: words.csv: no such file"
    assert said == ["words, tiny, seed 3: no ridge on TF-IDF: not here", nothing, nothing]
    assert asked == [3, 4, 4]
    (entry,) = cheap.read(sweep, tmp_path)
    assert entry == {
        **{"dataset": "words", "backbone": "tiny", "seed": 3, "name": "VADER"},
        **{"mse": 0.5, "r2": None},
    }
    json.dumps(entry)
