"""Length buckets and batches: each row once an epoch, few shapes, little padding."""

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwa_jax.data import Batches, bucket_lengths, encode, headlines, read

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
REPRODUCIBLE = settings(max_examples=100, deadline=None, derandomize=True, database=None)
PAD = 1

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=40)


def make_batches(lengths, batch_size=4, max_buckets=3, seed=0, **replaced):
    """Rows whose every token tells row and position; every third label is missing."""
    count = len(lengths)
    scores = np.where(np.arange(count) % 3 == 0, math.nan, np.linspace(-1, 1, count))
    arguments = {
        "ids": [1000 * (i + 1) + np.arange(length) for i, length in enumerate(lengths)],
        "scores": scores,
        "categories": np.where(np.arange(count) % 3 == 1, -1, np.arange(count) % 5),
        "batch_size": batch_size,
        "buckets": bucket_lengths(lengths, max_buckets),
        "seed": seed,
        "pad_id": PAD,
    } | replaced
    return Batches(**arguments)


def assert_same(batches, others):
    batches, others = list(batches), list(others)
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


def check_contents(batches, lengths, batch_size):
    """Every row is there once and whole, and all else is padding."""
    rows = []
    for batch in batches:
        for place, row in enumerate(batch["row"]):
            ids, mask = batch["input_ids"][place], batch["attention_mask"][place]
            if row == -1:
                assert np.all(ids == PAD) and mask.tolist() == [1] + [0] * (len(mask) - 1)
                assert batch["score_mask"][place] == batch["category_mask"][place] == 0
                assert batch["score"][place] == batch["category"][place] == 0
                continue
            rows.append(row)
            real = np.arange(len(ids)) < lengths[row]
            np.testing.assert_array_equal(mask, real)
            np.testing.assert_array_equal(ids[real], 1000 * (row + 1) + np.arange(lengths[row]))
            assert np.all(ids[~real] == PAD)
            has_score, has_category = row % 3 != 0, row % 3 != 1
            assert batch["score_mask"][place] == has_score
            assert batch["category_mask"][place] == has_category
            score = np.linspace(-1, 1, len(lengths))[row] if has_score else 0
            assert batch["score"][place] == np.float32(score)
            assert batch["category"][place] == (row % 5 if has_category else 0)
    assert sorted(rows) == list(range(len(lengths)))
    fillers = [np.sum(batch["row"] == -1) for batch in batches]
    assert len(batches) == math.ceil(len(lengths) / batch_size)
    assert np.count_nonzero(fillers) <= 1 and sum(fillers) < batch_size


# Bucket lengths


@REPRODUCIBLE
@given(lengths=LENGTHS, max_buckets=st.integers(1, 5), multiple=st.sampled_from([1, 3, 4]))
def test_no_choice_of_buckets_pads_less(lengths, max_buckets, multiple):
    def padded(buckets):
        return sum(min(b for b in buckets if b >= length) for length in lengths)

    longest = math.ceil(max(lengths) / multiple) * multiple
    shorter = range(multiple, longest, multiple)
    best = min(
        padded((*chosen, longest))
        for size in range(max_buckets)
        for chosen in combinations(shorter, size)
    )
    buckets = bucket_lengths(lengths, max_buckets, multiple)
    assert padded(buckets) == best
    assert len(buckets) <= max_buckets and buckets[-1] == longest
    assert list(buckets) == sorted(set(buckets)) and all(b % multiple == 0 for b in buckets)


def test_buckets_of_a_known_histogram():
    # 10 rows of 4 tokens, one of 5, 10 of 9: the lone row is cheaper at 9 (4 more) than
    # the ten are at 5 (10 more).
    lengths = [4] * 10 + [5] + [9] * 10
    assert bucket_lengths(lengths, 1) == (9,)
    assert bucket_lengths(lengths, 2) == (4, 9)
    assert bucket_lengths(lengths, 8) == (4, 5, 9)
    assert bucket_lengths(lengths, 8, multiple=8) == (8, 16)
    assert all(isinstance(length, int) for length in bucket_lengths(lengths, 2))


@pytest.mark.parametrize("arguments", [([], 2), ([0, 3], 2), ([3], 0), ([3], 2, 0)])
def test_bucket_arguments_are_at_least_one(arguments):
    with pytest.raises(ValueError, match="at least 1"):
        bucket_lengths(*arguments)


# Epochs


@REPRODUCIBLE
@given(
    lengths=LENGTHS,
    batch_size=st.integers(1, 9),
    max_buckets=st.integers(1, 5),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 1000),
)
def test_an_epoch_holds_every_row_once_in_few_shapes(lengths, batch_size, max_buckets, seed, epoch):
    batches = make_batches(lengths, batch_size, max_buckets, seed)
    served = list(batches.epoch(epoch))
    check_contents(served, lengths, batch_size)
    assert len(served) == len(batches)
    assert {batch["input_ids"].shape for batch in served} <= set(batches.shapes)
    assert len(batches.shapes) <= max_buckets
    # A full batch is never longer than its longest row needs.
    for batch in served:
        longest = max(lengths[row] for row in batch["row"] if row >= 0)
        needed = min(length for _, length in batches.shapes if length >= longest)
        assert batch["input_ids"].shape[1] == needed
    computed = sum(batch["input_ids"].size for batch in served)
    assert batches.token_counts(epoch) == (sum(lengths), computed)
    assert batches.padding_fraction(epoch) == pytest.approx(1 - sum(lengths) / computed)
    # A pure function of seed and epoch; any tail of it can be had alone.
    again = make_batches(lengths, batch_size, max_buckets, seed)
    for start in {0, 1, len(served) // 2, len(served)}:
        assert_same(served[start:], again.epoch(epoch, start=start))


def test_dtypes():
    batch = next(make_batches([3, 5, 7]).epoch(0))
    assert {name: (column.dtype.name, column.ndim) for name, column in batch.items()} == {
        "input_ids": ("int32", 2),
        "attention_mask": ("int32", 2),
        "score": ("float32", 1),
        "score_mask": ("float32", 1),
        "category": ("int32", 1),
        "category_mask": ("float32", 1),
        "row": ("int32", 1),
    }


def test_epochs_and_seeds_differ_in_order_and_in_company():
    lengths = np.random.default_rng(0).integers(3, 30, size=200)

    def company(seed, epoch):
        served = make_batches(lengths, seed=seed).epoch(epoch)
        return [frozenset(batch["row"].tolist()) for batch in served]

    first = company(0, 0)
    for other in (company(0, 1), company(1, 0)):
        assert first != other
        assert len(set(first) & set(other)) < len(first) / 4
    assert company(0, 1) != company(1, 0)


def test_batches_are_not_sorted_by_length():
    lengths = np.random.default_rng(0).integers(3, 30, size=400)
    shapes = [b["input_ids"].shape[1] for b in make_batches(lengths, max_buckets=8).epoch(0)]
    correlation = np.corrcoef(shapes, np.arange(len(shapes)))[0, 1]
    assert abs(correlation) < 0.4


def test_leftovers_move_to_longer_buckets_and_only_the_last_batch_is_filled_up():
    # Batch 4; buckets 2, 5, 9 hold 5, 6 and 2 rows: 1 row moves up to 5, of which 3 move up to 9.
    lengths = [2] * 5 + [5] * 6 + [9] * 2
    batches = make_batches(lengths, batch_size=4, buckets=(2, 5, 9))
    shapes = sorted(batch["input_ids"].shape[1] for batch in batches.epoch(0))
    assert shapes == [2, 5, 9, 9]
    # Rows that are all short stay short when they make the last batch.
    short = make_batches([2] * 5, batch_size=4, buckets=(2, 5, 9))
    assert [batch["input_ids"].shape for batch in short.epoch(0)] == [(4, 2), (4, 2)]


# Evaluation


@REPRODUCIBLE
@given(lengths=LENGTHS, batch_size=st.integers(1, 9), max_buckets=st.integers(1, 5))
def test_sequential_holds_every_row_once_longest_first(lengths, batch_size, max_buckets):
    batches = make_batches(lengths, batch_size, max_buckets)
    served = list(batches.sequential())
    check_contents(served, lengths, batch_size)
    assert {batch["input_ids"].shape for batch in served} <= set(batches.shapes)
    widths = [batch["input_ids"].shape[1] for batch in served]
    assert widths == sorted(widths, reverse=True)
    assert_same(served, batches.sequential())


def test_row_restores_the_order():
    lengths = [5, 2, 9, 2, 7]
    first_tokens = np.zeros(5, int)
    for batch in make_batches(lengths, batch_size=2).sequential():
        real = batch["row"] >= 0
        first_tokens[batch["row"][real]] = batch["input_ids"][real, 0]
    assert first_tokens.tolist() == [1000, 2000, 3000, 4000, 5000]


# Refusals


@pytest.mark.parametrize(
    ("replaced", "problem"),
    [
        ({"buckets": (2, 4)}, "row 1 has 5 tokens, more than the longest bucket, 4"),
        ({"buckets": (5, 5)}, r"ascending lengths, got \(5, 5\)"),
        ({"buckets": ()}, "ascending lengths"),
        ({"ids": [[1], [], [2]]}, "row 1 has no token"),
        ({"scores": np.zeros(2)}, "got 3, 2, 3"),
        ({"categories": np.array([0, -2, 1])}, "row 1 has category -2"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"seed": -1}, "seed >= 0"),
        ({"pad_id": None}, "pad_id >= 0"),
        ({"ids": [], "scores": [], "categories": []}, "at least one row"),
    ],
)
def test_wrong_arguments_are_named(replaced, problem):
    with pytest.raises(ValueError, match=problem):
        make_batches([3, 5, 4], **replaced)


def test_epoch_and_start_are_checked_at_the_call():
    batches = make_batches([3, 5, 4], batch_size=2)
    with pytest.raises(ValueError, match=r"start is in \[0, 2\], got 3"):
        batches.epoch(0, start=3)
    with pytest.raises(ValueError, match="epoch is at least 0, got -1"):
        batches.epoch(-1)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the evaluation data in ../shared/data")
def test_nine_tenths_of_the_tokens_computed_for_real_headlines_are_real():
    rows, _ = read(SHARED / "semeval_headlines.csv")
    # A tokenizer of few entries gives longer and more varied rows than a large one.
    for vocab_size in (800, 8000):
        tokenizer = headlines.tokenizer(rows.texts, vocab_size)
        ids = encode(tokenizer, rows.texts).ids
        lengths = [len(row) for row in ids]
        batches = Batches(
            ids,
            rows.scores,
            rows.categories,
            batch_size=8,
            buckets=bucket_lengths(lengths, max_buckets=8),
            seed=42,
            pad_id=tokenizer.pad_token_id,
        )
        for epoch in range(5):
            assert batches.padding_fraction(epoch) <= 0.10
