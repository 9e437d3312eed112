"""The rows of a run: files by pattern, and scores that VADER gave."""

import gzip
import importlib
import json
import types

import numpy as np
import pytest

from configs import base
from dwa_jax import stratify
from dwa_jax.data import headlines, vader
from dwa_jax.finetune import card
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import expand_names, read_corpus


def test_patterns_name_files_and_a_slice_of_a_hub_data_set_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {"b": "two", "a": "one"}.items():
        (tmp_path / f"{name}.csv").write_text(f"text,score\n{text},0\n{text} more,1\n")
    (tmp_path / "z.jsonl.gz").write_bytes(gzip.compress(b'{"text": "three", "score": -1}\n'))
    (tmp_path / "t[0].csv").write_text("text,score\nfour,0\n")
    config = base.get_config()
    config.train, config.test = "[ab].csv, *.gz", "t[0].csv"
    config.stratifier = "equal_width"
    rows = read_corpus(config).rows
    texts = {text for split in ("train", "validation") for text in rows[split].texts}
    assert texts == {"one", "one more", "two", "two more", "three"}
    assert rows["test"].texts == ["four"], "a file of that name is no pattern"
    config.train = "*.parquet"
    with pytest.raises(ValueError, match=r"train='\*\.parquet' matches no file"):
        read_corpus(config)
    config.train = "hub::train[:2]"
    with pytest.raises(ValueError, match=r"^hub::train\[:2\]: a hub data set is written"):
        read_corpus(config)


def test_categories_that_narrow_scores_leave_empty_are_noted(tmp_path):
    lines = [f"text {i},{0.3 + 0.001 * (i % 40)}" for i in range(80)]
    (tmp_path / "narrow.csv").write_text("\n".join(["text,score", *lines]) + "\n")
    config = base.get_config()
    config.train, config.stratifier = str(tmp_path / "narrow.csv"), "das(spacing_penalty=0.1)"
    assert any("das leaves a category with 0 of" in note for note in read_corpus(config).notes)
    config.stratifier = "das(spacing_penalty=0.0)"
    assert not any("das leaves" in note for note in read_corpus(config).notes)


@pytest.fixture
def config(tmp_path):
    """Texts without a score column, beside a test file of which people scored two of three."""
    pytest.importorskip("vaderSentiment")
    words = ["good", "bad", "great", "awful", "so-so", "a fine", "a sad", "no"]
    texts = [f"{word} day {i}" for i in range(10) for word in words]
    (tmp_path / "unscored.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in texts)
    )
    (tmp_path / "people.csv").write_text("text,score\nwell done,0.5\nterrible,-1\nlovely,\n")
    config = base.get_config()
    config.train, config.test = f"{tmp_path}/unscored.jsonl", f"{tmp_path}/people.csv"
    config.label_with, config.stratifier = "vader", "equal_frequency"
    return config


def test_a_run_learns_from_texts_that_nobody_scored_and_says_so(config):
    Config.of(config)
    corpus = read_corpus(config)
    package = importlib.import_module("vaderSentiment.vaderSentiment")
    analyzer = package.SentimentIntensityAnalyzer()
    for split in ("train", "validation"):
        rows = corpus.rows[split]
        expected = [analyzer.polarity_scores(text)["compound"] for text in rows.texts]
        assert rows.scores.tolist() == expected and min(expected) < -0.4 < 0.4 < max(expected)
    lovely = analyzer.polarity_scores("lovely")["compound"]
    assert corpus.rows["test"].scores.tolist() == [0.5, -1.0, lovely]
    np.testing.assert_array_equal(
        corpus.thresholds, stratify.fit("equal_frequency", corpus.rows["train"].scores, 5)
    )
    sizes = {split: len(corpus.rows[split]) for split in ("train", "validation")}
    assert corpus.machine_scored == {**sizes, "test": 1}
    by = f"VADER's (vaderSentiment {vader.version()})"
    # The model card says it as well.
    run = types.SimpleNamespace(
        config=config, summary={"machine_scored": corpus.machine_scored, "left_out": {}}
    )
    assert f"* scores that VADER gave, not people: train: {sizes['train']}," in card._data(run)[-1]
    train, test, held_out = corpus.notes
    assert train == f"train: {sizes['train']} of {sizes['train']} scores are {by}"
    assert test.startswith(f"test: 1 of 3 scores are {by}: its metrics tell agreement with VADER")
    assert held_out.startswith(f"validation: {sizes['validation']} of {sizes['validation']} scores")


def test_without_the_option_such_rows_and_files_stay_errors(config, monkeypatch, tmp_path):
    config.label_with = ""
    with pytest.raises(ValueError, match=r"unscored\.jsonl: no column 'score'; there: 'text'"):
        read_corpus(config)
    config.train = config.test
    with pytest.raises(ValueError, match=r"row 4: no label: empty 'score'"):
        read_corpus(config)
    config.label_with = "textblob"
    with pytest.raises(ValueError, match="label_with='textblob' is not one of '', vader"):
        Config.of(config)
    config.label_with = "vader"
    monkeypatch.setattr(vader, "PACKAGE", "a-package-that-is-not-there")
    with pytest.raises(ValueError, match=r"extra 'vader' \(pip install 'dwa_jax\[vader\]'\)"):
        read_corpus(config)


def test_a_run_whose_rows_all_have_scores_says_that_nothing_was_done(config):
    config.train = config.test = ""
    config.generated_rows = 60
    corpus = read_corpus(config)
    assert corpus.machine_scored == {}
    assert corpus.notes == ["label_with='vader' gave no score: every row has one"]


def table_of(tmp_path, count=40):
    """Tweets of which every fourth is the one before it with another link."""
    lines = ["text,score,part,day"]
    for i in range(count):
        text = f"@user{i} tweet {i - (i % 4 == 3)} http://x.y/{i}"
        part = ("train", "train", "dev", "test")[i % 4]
        lines.append(f"{text},{(i % 9) / 4 - 1},{part},2024-01-{1 + i % 28:02d}")
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    return Config(train=f"{tmp_path}/a.csv", stratifier="equal_width")


def test_a_column_may_say_what_is_held_out(tmp_path):
    config = table_of(tmp_path)
    found = read_corpus(Config.of(config, split_column="part"))
    assert {name: len(rows) for name, rows in found.rows.items()} == {
        "train": 20,
        "test": 10,
        "validation": 10,
    }
    tweets = Config.of(config, split_column="part", normalize_tweets=True)
    found = read_corpus(tweets)
    # The test's tweets are those of dev with another link: said, and left alone.
    assert "validation: 10 rows have a text of the test split, and stay" in found.notes
    with pytest.raises(ValueError, match="both say what is held out"):
        read_corpus(Config.of(tweets, test=config.train))
    (tmp_path / "b.csv").write_text("text,score,part\na,0,train\nb,0,train\n")
    with pytest.raises(ValueError, match="says train alone; train and validation or test are"):
        read_corpus(Config.of(tweets, train=f"{tmp_path}/b.csv"))


def test_given_files_are_checked_for_what_a_model_reads_alike(tmp_path):
    config = Config.of(table_of(tmp_path), normalize_tweets=True)
    (tmp_path / "test.csv").write_text("text,score\n@me tweet 2 http://other,0\nnew,1\n")
    found = read_corpus(Config.of(config, test=f"{tmp_path}/test.csv"))
    # Rows 2 and 3 are one tweet.
    assert "train: 2 rows left out, whose text a held-out file has too" in found.notes


def test_the_past_is_trained_on(tmp_path):
    found = read_corpus(Config.of(table_of(tmp_path), time_column="day"))
    assert found.rows["train"].times.max() <= found.rows["test"].times.min()
    assert "split by 'day': what is trained on came first" in found.notes
    rows = {"train": found.rows["train"]}
    with pytest.raises(ValueError, match="time_column='day' names a column of files"):
        read_corpus(Config(time_column="day", train="memory:"), rows)


def test_several_names_come_as_a_list_and_labels_as_a_mapping():
    config = Config(train=["a, b.csv", "c.csv"], labels={"neg": -1, "pos": 1})
    assert expand_names(config.train, "train") == ["a, b.csv", "c.csv"]
    assert config.labels == '{"neg": -1, "pos": 1}'
    assert Config.of(config.to_dict()) == config


def test_files_beside_texts_in_memory_have_columns_of_their_own(tmp_path):
    (tmp_path / "more.csv").write_text("body;mark\nup a lot;0,5\ndown;-0,5\n")
    rows = headlines.generate(60, 0)
    keys = {"text_column": "body", "score_column": "mark", "decimal_comma": True}
    config = Config.of(train="memory:", stratifier="equal_width", **keys)
    with pytest.raises(ValueError, match="text_column is a key for files, and texts are given"):
        read_corpus(config, {"train": rows})
    more = str(tmp_path / "more.csv")
    corpus = read_corpus(Config.of(config, also_test=more), {"train": rows})
    assert corpus.rows[more].texts == ["up a lot", "down"]
    assert corpus.rows[more].scores.tolist() == [0.5, -0.5]


def test_the_papers_protocol_leaves_nothing_to_test_on_and_says_so():
    config = Config(protocol="paper", generated_rows=60, stratifier="equal_width")
    found = read_corpus(config)
    assert [len(found.rows[split]) for split in ("train", "validation", "test")] == [54, 6, 0]
    (note,) = found.notes
    assert note.startswith("protocol=paper: 100 epochs and no test split; the numbers are of the ")


def test_a_category_that_no_row_trains_is_noted(tmp_path):
    lines = [f"text {i},{2 * (i % 2)}" for i in range(30)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *lines]))
    config = Config(
        train=str(tmp_path / "a.csv"),
        score_column="",
        category_column="label",
        num_classes=3,
        tasks=("classification",),
    )
    told = "category 1 has no training row, and is not learned"
    assert told in read_corpus(config).notes
