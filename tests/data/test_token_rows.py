"""Rows of token ids in one array."""

import numpy as np
import pytest

from dwa_jax.data import TokenRows

LISTS = [[3, 1, 2], [], [7], [1, 1, 9, 1]]


@pytest.fixture(params=["lists", "arrays"])
def rows(request):
    made = LISTS if request.param == "lists" else [np.array(row, np.int64) for row in LISTS]
    return TokenRows.of(made)


def test_they_are_a_sequence_of_what_they_were_made_of(rows):
    assert [row.tolist() for row in rows] == LISTS and len(rows) == 4
    assert rows[-1].tolist() == LISTS[3] and rows[1].shape == (0,)
    assert [row.tolist() for row in rows[1:3]] == LISTS[1:3]
    assert rows.lengths.tolist() == [3, 0, 1, 4] and rows.tokens.dtype == np.int32
    for wrong in (4, -5):
        with pytest.raises(IndexError):
            rows[wrong]


def test_some_are_taken_in_any_order(rows):
    for places in ([3, 0], [1], [], [2, 2, 3], [0, 1, 2, 3]):
        taken = rows.take(np.array(places, int))
        assert [row.tolist() for row in taken] == [LISTS[place] for place in places]


def test_parts_are_joined(rows):
    whole = TokenRows.joined([rows, TokenRows.of([]), rows])
    assert [row.tolist() for row in whole] == LISTS * 2
    assert len(TokenRows.joined([])) == 0


def test_an_id_is_counted_in_each_row(rows):
    assert rows.counts(1).tolist() == [1, 0, 0, 3] and rows.counts(-1).tolist() == [0] * 4


def test_a_million_of_them_are_two_arrays():
    made = TokenRows(np.zeros(5_000_000, np.int32), np.arange(0, 5_000_001, 5))
    assert len(made) == 1_000_000 and made.take(np.arange(10)).tokens.shape == (50,)
