"""Scores by VADER, against what its authors publish; texts without a score."""

import math

import numpy as np
import pytest

from dwa_jax.data import Rows, read, vader

pytest.importorskip("vaderSentiment")

# Of the examples in the README of github.com/cjhutto/vaderSentiment, with the compound score
# printed there.
PUBLISHED = {
    "VADER is smart, handsome, and funny.": 0.8316,
    "VADER is VERY SMART, handsome, and FUNNY!!!": 0.9342,
    "VADER is not smart, handsome, nor funny.": -0.7424,
    "The book was only kind of good.": 0.3832,
    "Today SUX!": -0.5461,
    "Make sure you :) or :D today!": 0.8633,
    "Not bad at all": 0.431,
}


def test_published_examples_and_scores_that_were_there():
    texts = [*PUBLISHED, "Today SUX!", "a table"]
    scores = np.array([math.nan] * len(PUBLISHED) + [0.25, math.nan])
    none = np.full(len(texts), -1, np.int32)
    rows, filled = vader.fill_scores(Rows(texts, scores, none, [("a.csv", i) for i in none]))
    assert rows.scores.tolist() == [*PUBLISHED.values(), 0.25, 0.0]
    assert filled.tolist() == [True] * len(PUBLISHED) + [False, True]
    assert np.isnan(scores[0]), "the rows given are left as they were"


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_score_column_may_be_absent_or_empty_where_that_is_asked_for(tmp_path, suffix):
    import pyarrow as pa
    import pyarrow.parquet

    absent, empty = tmp_path / f"absent.{suffix}", tmp_path / f"empty.{suffix}"
    if suffix == "csv":
        absent.write_text("id,text\n1,a\n2,b\n")
        empty.write_text("text,score\na,\nb,0.5\n")
    elif suffix == "jsonl":
        absent.write_text('{"text": "a"}\n{"text": "b", "id": 2}\n')
        empty.write_text('{"text": "a"}\n{"text": "b", "score": 0.5}\n')
    else:
        pyarrow.parquet.write_table(pa.table({"id": [1, 2], "text": ["a", "b"]}), absent)
        pyarrow.parquet.write_table(pa.table({"text": ["a", "b"], "score": [None, 0.5]}), empty)
    rows, _ = read([absent, empty], unscored=True)
    assert rows.texts == ["a", "b", "a", "b"]
    np.testing.assert_array_equal(rows.scores, [math.nan] * 3 + [0.5])
    for path in (absent, empty):
        with pytest.raises(ValueError, match=r"no column 'score'|no label"):
            read(path)
