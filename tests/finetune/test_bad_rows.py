"""What a run tells of the rows it left out, against files whose bad rows are known."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from configs import base
from dwa_jax import data, stratify
from dwa_jax.finetune import bad_rows
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import read_corpus
from dwa_jax.finetune.setup import make_batches


@pytest.fixture
def config(tmp_path):
    good = "".join(f"text {i},{i / 100 - 0.5}\n" for i in range(100))
    (tmp_path / "a.csv").write_text(f"text,score\n{good}x,high\ny,nan\n,0.5\n")
    (tmp_path / "b.csv").write_text(f"text,score\n{good.replace('text', 'word')}z,7\nx,0,0\n")
    (tmp_path / "test.jsonl").write_text('{"text": "t", "score": 0.1}\nnull\n')
    config = base.get_config()
    config.train = f"{tmp_path / 'a.csv'},{tmp_path / 'b.csv'}"
    config.test = str(tmp_path / "test.jsonl")
    config.on_bad_row = "skip"
    config.stratifier = "equal_width"
    config.trim_vocabulary = False  # of models without parameters
    return config


def test_left_out_rows_are_counted_by_file_and_listed(config, tmp_path):
    corpus = read_corpus(config)
    assert sum(len(rows) for rows in corpus.rows.values()) == 201
    a, b, test = (str(tmp_path / name) for name in ("a.csv", "b.csv", "test.jsonl"))
    summary = json.loads(json.dumps(bad_rows.summarize(corpus.left_out)))
    assert summary["count"] == 6 and summary["not_listed"] == 0
    assert summary["by_file"] == {a: 3, b: 2, test: 1}
    assert [(row["file"], row["row"]) for row in summary["rows"]] == (
        [(a, 102), (a, 103), (a, 104), (b, 102), (b, 103), (test, 2)]
    )
    assert summary["rows"][0]["problem"] == "score 'high' is not a number (see labels)"
    train, held_out = corpus.notes[:2]
    assert train.startswith(f"train: 5 bad rows left out ({a}: 3, {b}: 2): {a}, row 102: score")
    assert train.endswith("row 104: the text is empty; and 2 more") and "\n" not in train
    assert held_out.startswith(f"test: 1 bad rows left out ({test}: 1): {test}, row 2: a NoneType")


def test_rows_without_a_token_are_left_out_before_thresholds_are_fitted(config, tmp_path):
    lines = [f"word {i},{i / 50 - 1}" for i in range(100)] + ["\ufffd,0.999", "\u200b,-0.5"]
    (tmp_path / "d.csv").write_text("\n".join(["text,score", *lines]), "utf-8")
    config.train, config.test, config.stratifier = str(tmp_path / "d.csv"), "", "equal_frequency"
    vocabulary = {"<pad>": 0, "<s>": 1, "word": 2}
    backend = Tokenizer(models.BPE({**vocabulary, **{str(i): 3 + i for i in range(10)}}, []))
    backend.normalizer = normalizers.BertNormalizer()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>")
    shape = SimpleNamespace(max_positions=64, vocab_size=20, family="roberta")
    model = SimpleNamespace(
        tokenizer=tokenizer,
        module=SimpleNamespace(config=shape),
        pooling="first",
        vocabulary=None,
    )
    for seed in range(8):  # on whatever side it comes
        config.seed = seed
        corpus = read_corpus(config)
        batches, _ = make_batches(Config.of(config), corpus, model)
        assert [row.row for row in corpus.left_out] == [103, 102]
        assert sum(map(len, corpus.rows.values())) == 100
        assert {split: len(of.lengths) for split, of in batches.items()} == {
            split: len(rows) for split, rows in corpus.rows.items()
        }
        fitted = stratify.fit("equal_frequency", corpus.rows["train"].scores, 5)
        np.testing.assert_array_equal(corpus.thresholds, fitted)
    config.on_bad_row = "error"
    lines[-1] = "word,0"
    (tmp_path / "d.csv").write_text("\n".join(["text,score", *lines]), "utf-8")
    with pytest.raises(data.DataError, match=r"d\.csv, row 102: the text .* has no token"):
        make_batches(Config.of(config), read_corpus(config), model)


def test_padding_that_ends_every_text_is_refused_where_the_last_token_is_pooled(config):
    vocabulary = {"</s>": 0, "word": 1, "<unk>": 2}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 0)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="</s>", unk_token="<unk>"
    )
    shape = SimpleNamespace(max_positions=64, vocab_size=20, family="llama")
    model = SimpleNamespace(
        tokenizer=tokenizer,
        module=SimpleNamespace(config=shape),
        pooling="last",
        vocabulary=None,
    )
    corpus = read_corpus(config)
    with pytest.raises(ValueError, match="pads with '</s>', which its texts end with") as caught:
        make_batches(Config.of(config), corpus, model)
    assert "\n" not in str(caught.value) and "pad_token" in str(caught.value)
    model.pooling = "mean"
    _, notes = make_batches(Config.of(config), corpus, model)
    texts = corpus.rows["train"].texts
    count = sum(word != "word" for text in texts for word in text.split())
    told = f"train: {count} tokens in {len(texts)} texts (100.0%) are unknown to the tokenizer"
    assert told in notes


def test_a_thousand_are_listed_and_the_rest_counted():
    rows = [data.LeftOut("a.csv", i, "no label") for i in range(1234)]
    summary = bad_rows.summarize(rows)
    assert (summary["count"], len(summary["rows"]), summary["not_listed"]) == (1234, 1000, 234)
    assert summary["by_file"] == {"a.csv": 1234}
    assert bad_rows.summarize([]) == {"count": 0, "by_file": {}, "rows": [], "not_listed": 0}


def test_a_category_too_high_is_a_bad_row_as_any_other(config, tmp_path):
    text = "text,score,label\n" + "".join(f"t{i},0.{i},{i % 5}\n" for i in range(1, 60)) + "x,0,5\n"
    (tmp_path / "c.csv").write_text(text)
    with config.unlocked():
        config.update(ConfigDict({"train": str(tmp_path / "c.csv"), "category_column": "label"}))
    config.test = ""
    (row,) = read_corpus(config).left_out
    assert (row.row, row.problem) == (61, "category 5 is not below num_classes=5")
    config.on_bad_row = "error"
    with pytest.raises(ValueError, match=r"c\.csv, row 61: category 5 is not below num_classes=5"):
        read_corpus(config)
