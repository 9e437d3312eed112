"""What is guessed of a file, and what is asked instead: a wrong guess is worse than a question."""

import csv
import io
import json

import numpy as np
import pytest

from dwa_jax.data import DataError, headlines, labels
from dwa_jax.data.guess import guess

COUNT = 30
ROWS = headlines.generate(COUNT, 5)
TEXTS = ROWS.texts
SCORES = [round(score, 3) for score in ROWS.scores]
FLAGS = [str(i % 2 == 0) for i in range(COUNT)]
PAIR = [1 + i % 2 for i in range(COUNT)]
STARS = [1.0 + i % 5 for i in range(COUNT)]
MOODS = [("happy", "sad")[i % 3 > 0] for i in range(COUNT)]
LENGTHS = [len(text.split()) for text in TEXTS]


def table(header=True, **columns):
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    if header:
        writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return out.getvalue()


@pytest.fixture
def found(tmp_path):
    def look(content, name="a.csv", **given):
        path = tmp_path / name
        path.write_text(content, "utf-8")
        result = guess(str(path), given)
        return result.keys, " ".join(result.reasons)

    return look


@pytest.mark.parametrize("header", [True, False])
def test_one_and_two_are_two_sides(found, header):
    keys, _ = found(table(header, label=PAIR, text=TEXTS))
    assert keys["score_range"] == (1, 2) and keys["num_classes"] == 2
    assert keys["score_column"] == "label"
    assert keys.get("columns") == (None if header else ("label", "text"))


@pytest.mark.parametrize(
    ("occur", "expected"),
    [
        ((1, 2), (1, 2)),
        ((0, 4), (0, 4)),
        ((-1, 1), None),
        ((0, 1), (0, 1)),
        ((1, 2, 3), (1, 3)),
        ((1.2, 4.8, 3), (1, 5)),
        ((1, 4, 7), (1, 7)),
        ((1.99, 5, 8.56), (1, 9)),
        ((1, 5, 10), (1, 10)),
        ((0, 2, 4), (0, 4)),
        ((0, 5.5, 9.1), (0, 10)),
        ((12, 50, 98), (0, 100)),
        ((2, 5, 13), (2, 13)),
    ],
)
def test_a_scale_is_known_by_what_occurs(occur, expected):
    assert labels.propose_range(occur) == expected


def test_flags_count_and_unknown_words_do_not_outrank_a_column_named_like_one(found):
    reviews = [
        {"overall": stars, "verified": flag == "True", "reviewText": text, "summary": "short"}
        for stars, flag, text in zip(STARS, FLAGS, TEXTS, strict=True)
    ]
    keys, _ = found("\n".join(map(json.dumps, reviews)), "a.jsonl")
    assert keys == {"text_column": "reviewText", "score_column": "overall", "score_range": (1, 5)}
    keys, reasons = found(table(text=TEXTS, favorited=FLAGS, sentiment_label=MOODS))
    assert keys["category_column"] == "sentiment_label" and keys["score_column"] == ""
    assert set(keys["category_names"]) == {"happy", "sad"}
    assert "have no known order" in reasons and "labels='" in reasons


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (
            {"Words": LENGTHS},
            "no column looks like .* 'Words', say so: --config.score_column=Words",
        ),
        ({"verified": FLAGS}, "no column looks like .* if it is 'verified', say so"),
        ({"device": MOODS}, "no column looks like scores or labels by its name or words"),
        ({"n": range(COUNT)}, "no column looks like scores .*; there: 'text', 'n'$"),
        (
            {
                name: [int(i % 3 == k) for i in range(COUNT)]
                for k, name in enumerate(["pos", "neg"])
            },
            "columns 'pos', 'neg' share the label between them; write",
        ),
        ({"score": [0.5] * COUNT}, r"a.csv: column 'score': all labels are the same \(0.5\)"),
    ],
)
def test_what_no_name_explains_is_asked_for(found, columns, told):
    with pytest.raises(DataError, match=told) as caught:
        found(table(text=TEXTS, **columns))
    assert "\n" not in str(caught.value)


def test_a_column_that_is_named_is_looked_at_all_the_same(found):
    keys, _ = found(table(text=TEXTS, Words=LENGTHS), score_column="Words")
    assert keys["score_range"] == (min(LENGTHS), max(LENGTHS))
    with pytest.raises(DataError, match="give each a score, --config.labels='happy=...,sad=...'"):
        found(table(text=TEXTS, mood=MOODS), score_column="mood")
    assert not found(table(text=TEXTS, Words=LENGTHS), score_column="other")[0]


def test_labels_that_are_given_find_their_column(found):
    given = {"labels": "happy=1,sad=-1"}
    keys, _ = found(table(text=TEXTS, favorited=FLAGS, mood=MOODS), **given)
    assert keys == {"score_column": "mood", "num_classes": 2}
    with pytest.raises(DataError, match=r"no column holds the words of labels=.*'favorited'"):
        found(table(text=TEXTS, favorited=FLAGS), **given)


@pytest.mark.parametrize("missing", ["N/A", "NULL", "None", "nan", "-"])
def test_marks_of_missing_scores_hide_no_column(found, missing):
    keys, reasons = found(table(text=TEXTS, score=[missing, *SCORES[1:]]))
    assert keys == {"on_bad_row": "skip"}
    assert f"1 cells of 'score' are {missing!r} or the like" in reasons
    words = ["positive", "negative", missing] * (COUNT // 3)
    keys, _ = found(table(text=TEXTS, label=words))
    known = missing in ("None", "-")  # which are labels, too
    assert ("on_bad_row" in keys) != known and keys["num_classes"] == 2 + (missing == "None")
    # What is a slip is left for the line that names its row.
    assert "on_bad_row" not in found(table(text=TEXTS, score=["x", *SCORES[1:]]))[0]


@pytest.mark.parametrize(
    ("content", "given", "told"),
    [
        ("text,score\nup, and down,1\n", {}, "no row can be read; row 2: 3 cells where the header"),
        ("a\t0.5\nb\t1\n", {"columns": ("text", "score", "x")}, "row 1: 2 cells where there are 3"),
        ("text,score\n", {}, "holds no rows"),
    ],
)
def test_a_file_whose_rows_cannot_be_read_is_not_called_empty(found, content, given, told):
    with pytest.raises(DataError, match=told):
        found(content, "a.tsv" if "\t" in content else "a.csv", **given)


def test_names_without_quotes_are_names(found):
    content = "".join(f"{text}\t{score}\n" for text, score in zip(TEXTS, SCORES, strict=True))
    keys, _ = found(content, "a.tsv", columns=("text,score",))
    assert keys == {}


def test_the_first_rows_of_an_array_are_told_apart(tmp_path):
    from dwa_jax.finetune.config import Config
    from dwa_jax.finetune.corpus import read_corpus
    from experiments.terminal.preview import as_understood

    records = [{"text": t, "score": s} for t, s in zip(TEXTS, SCORES, strict=True)]
    for indent in (None, 1):
        (tmp_path / "a.json").write_text(json.dumps(records, indent=indent))
        config = Config(train=str(tmp_path / "a.json"), stratifier="equal_width")
        shown = as_understood(read_corpus(config), config)
        assert list(shown) == [f"a.json, row {row}" for row in (1, 2, 3)]
        for words, text, score in zip(shown.values(), TEXTS, SCORES, strict=False):
            assert text[:40] in words and f"score {np.float64(score):g}" in words
