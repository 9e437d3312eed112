"""Scores by VADER, against its authors' rules; texts without a score."""

import math

import numpy as np
import pytest

from dwa_jax.data import Rows, read, vader

pytest.importorskip("vaderSentiment")

# Hutto and Gilbert 2014: "good" is 1.9, a booster adds 0.293, a negation multiplies by -0.74,
# and the sum x of a text becomes x / sqrt(x^2 + 15).
BY_HAND = {
    "good": 1.9,
    "very good": 1.9 + 0.293,
    "not good": 1.9 * -0.74,
    "a very good table": 1.9 + 0.293,
}


def test_scores_follow_the_rules_and_those_that_were_there_stay():
    texts = [*BY_HAND, "not good", "a table"]
    scores = np.array([math.nan] * len(BY_HAND) + [0.25, math.nan])
    none = np.full(len(texts), -1, np.int32)
    rows, filled = vader.fill_scores(Rows(texts, scores, none, [("a.csv", i) for i in none]))
    expected = [x / math.sqrt(x**2 + 15) for x in BY_HAND.values()]
    np.testing.assert_allclose(rows.scores, [*expected, 0.25, 0.0], atol=5e-5)
    assert filled.tolist() == [True] * len(BY_HAND) + [False, True]
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
