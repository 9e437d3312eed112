"""Splits: nothing lost, nothing on two sides, the same every time."""

import dataclasses
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwa_jax.data import (
    DataError,
    Rows,
    check_disjoint,
    count_shared,
    fold_of,
    normalize_text,
    normalize_tweet,
    read,
    split,
    splits,
)

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
REPRODUCIBLE = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def make_rows(texts):
    count = len(texts)
    return Rows(
        texts=list(texts),
        scores=np.linspace(-1, 1, count),
        categories=np.arange(count, dtype=np.int32) % 5,
        origin=[("a.csv", row) for row in range(2, count + 2)],
    )


@REPRODUCIBLE
@given(
    texts=st.lists(st.text("aAbB é12 \t", min_size=1, max_size=3), min_size=1, max_size=60),
    folds=st.integers(2, 12),
    stratify=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_every_row_is_in_one_fold_and_every_text_and_group_too(texts, folds, stratify, seed):
    groups = [None if i % 3 else f"{i % 5}" for i in range(len(texts))]
    rows = dataclasses.replace(make_rows(texts), groups=groups)
    try:
        found = fold_of(rows, folds=folds, seed=seed, stratify=stratify)
    except DataError as error:
        assert f"too few for {folds} folds" in str(error)
        return
    assert found.shape == (len(texts),) and set(found) == set(range(folds))
    for keys in (list(map(normalize_text, texts)), groups):
        where = {}
        for key, fold in zip(keys, found, strict=True):
            assert key is None or where.setdefault(key, fold) == fold


@pytest.mark.parametrize("seed", range(5))
def test_folds_are_of_one_size_and_have_each_category_and_score(seed):
    rng = np.random.default_rng(seed)
    count, folds = 203, 10
    categories = rng.permutation(np.repeat([0, 1, 2], [10, 30, 163])).astype(np.int32)
    scores = np.round(rng.uniform(-1, 1, count), 3)
    rows = Rows(
        [f"t{i}" for i in range(count)], scores, categories, [("a", i) for i in range(count)]
    )
    found = fold_of(rows, folds=folds, seed=seed)
    sizes = np.bincount(found, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    for category, wanted in ((0, 1), (1, 3), (2, 16)):
        inside = np.bincount(found[categories == category], minlength=folds)
        assert abs(inside - wanted).max() <= 1 and inside.min() >= 1
    means = [scores[(found == fold) & (categories == 2)].mean() for fold in range(folds)]
    assert np.ptp(means) < 0.35  # without strata about .5
    np.testing.assert_array_equal(found, fold_of(rows, folds=folds, seed=seed))
    assert (found != fold_of(rows, folds=folds, seed=seed + 1)).any()


@REPRODUCIBLE
@given(
    texts=st.lists(st.text("aAbB é12 \t", min_size=1, max_size=3), min_size=1, max_size=60),
    fractions=st.sampled_from([(0.8, 0.1, 0.1), (0.9, 0.1, 0.0), (0.5, 0.25, 0.25), (1, 0, 0)]),
    seed=st.integers(0, 2**32),
)
def test_every_row_is_on_one_side_and_every_text_too(texts, fractions, seed):
    rows = make_rows(texts)
    try:
        sides = split(rows, fractions=fractions, seed=seed)
    except DataError as error:
        assert "is empty" in str(error)
        return
    assert sorted(o for side in sides.values() for o in side.origin) == sorted(rows.origin)
    seen = [{" ".join(t.casefold().split()) for t in side.texts} for side in sides.values()]
    assert sum(map(len, seen)) == len(set().union(*seen))
    for name, fraction in zip(("train", "validation", "test"), fractions, strict=True):
        assert (len(sides[name]) > 0) == (fraction > 0)
        # The label columns travel with their text.
        at = [row - 2 for _, row in sides[name].origin]
        assert sides[name].texts == [texts[i] for i in at]
        np.testing.assert_array_equal(sides[name].scores, rows.scores[at])
        np.testing.assert_array_equal(sides[name].categories, rows.categories[at])
    again = split(rows, fractions=fractions, seed=seed)
    assert all(again[name].origin == side.origin for name, side in sides.items())


@pytest.mark.parametrize(
    ("count", "fractions", "sizes"),
    [
        (939, (0.8, 0.1, 0.1), (751, 94, 94)),
        (939, (0.9, 0.1, 0.0), (845, 94, 0)),
        (10, (0.8, 0.1, 0.1), (8, 1, 1)),
        (3, (1 / 3, 1 / 3, 1 / 3), (1, 1, 1)),
    ],
)
def test_sizes_are_the_fractions_where_no_text_repeats(count, fractions, sizes):
    sides = split(make_rows([f"text {i}" for i in range(count)]), fractions=fractions, seed=42)
    assert tuple(len(side) for side in sides.values()) == sizes


def test_repeated_texts_move_sizes_by_less_than_one_text():
    texts = [f"text {i}" for i in range(100) for _ in range(1 + i % 4)]
    sides = split(make_rows(texts), seed=1)
    for fraction, side in zip((0.8, 0.1, 0.1), sides.values(), strict=True):
        assert abs(len(side) - fraction * len(texts)) < 4


def test_another_seed_is_another_split_and_rows_keep_their_order():
    rows = make_rows([f"text {i}" for i in range(100)])
    first, second = split(rows, seed=0)["test"], split(rows, seed=1)["test"]
    assert first.origin != second.origin
    assert first.origin == sorted(first.origin)


def test_each_row_is_as_likely_as_any_other_to_be_tested():
    rows = make_rows([f"text {i}" for i in range(20)])
    counts = Counter(o for seed in range(400) for o in split(rows, seed=seed)["test"].origin)
    # Binomial(400, 1/10): mean 40, standard deviation 6.
    assert len(counts) == 20 and all(10 < count < 70 for count in counts.values())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("EUR/USD Rallies", "eur/usd   rallies\n", True),
        ("Straße", "STRASSE", True),
        ("caf\u00e9", "cafe\u0301", True),
        ("up\u00a05%", "up 5%", True),
        ("near 1.0850", "near 1.0851", False),
        ("rallies!", "rallies", False),
    ],
)
def test_what_counts_as_the_same_text(one, other, same):
    assert (normalize_text(one) == normalize_text(other)) is same


@pytest.mark.parametrize(
    "fractions",
    [(0.9, 0.1), (0.8, 0.1, 0.2), (1.1, -0.1, 0.0), (0.0, 0.5, 0.5), (math.nan, 0.5, 0.5)],
)
def test_fractions_are_three_shares_of_one(fractions):
    with pytest.raises(ValueError, match="sum to 1"):
        split(make_rows(["a", "b", "c"]), fractions=fractions, seed=0)


def test_too_few_texts_are_an_error_that_counts_them():
    with pytest.raises(DataError, match="validation is empty: 4 rows with 1 different texts"):
        split(make_rows(["same", "Same", "same ", "SAME"]), fractions=(0.5, 0.5, 0.0), seed=0)


def test_given_splits_lose_the_train_rows_that_are_held_out():
    train = make_rows(["One", "two", "three", "TWO ", "four"])
    cleaned, dropped = check_disjoint(train, make_rows(["two"]), make_rows(["three"]))
    assert cleaned.texts == ["One", "four"] and dropped == 3
    assert cleaned.origin == [("a.csv", 2), ("a.csv", 6)]
    untouched, dropped = check_disjoint(train, make_rows(["five"]))
    assert untouched.texts == train.texts and dropped == 0
    with pytest.raises(DataError, match="same file"):
        check_disjoint(train, train)


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="'scores': 1"):
        Rows(["a", "b"], np.zeros(1), np.zeros(2, np.int32), [("f", 1), ("f", 2)])


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the evaluation data in ../shared/data")
def test_repeated_tweets_do_not_leak():
    rows, _ = read(SHARED / "vader_tweets.csv")
    sides = split(rows, seed=42)
    texts = {name: {normalize_text(t) for t in side.texts} for name, side in sides.items()}
    assert not texts["train"] & (texts["validation"] | texts["test"])
    assert not texts["validation"] & texts["test"]
    assert sum(len(side) for side in sides.values()) == len(rows) == 4200
    assert len(set().union(*texts.values())) < 4200, "the data does hold repeated texts"


# What the model reads alike


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("up http://a.b/c", "up https://t.co/xyz"),
        ("@somebody so good", "@SomebodyElse So  Good"),
        ("caf\u00e9", "cafe"),  # as uncased BERT reads it
        ("zero\u200bwidth", "zerowidth"),
    ],
)
def test_texts_that_a_model_reads_alike_are_one(one, other):
    texts = [one, other] + [f"text {i}" for i in range(30)]
    for seed in range(10):
        sides = split(make_rows(texts), seed=seed, normalize=normalize_tweet)
        assert sum(one in side.texts for side in sides.values()) == 1
        assert any({one, other} <= set(side.texts) for side in sides.values())
    cleaned, dropped = check_disjoint(
        make_rows(texts[:1] + texts[2:]), make_rows([other]), normalize=normalize_tweet
    )
    assert dropped == 1 and one not in cleaned.texts
    assert count_shared(make_rows([one]), make_rows([other]), normalize=normalize_tweet) == 1


def test_what_remembers_texts_learns_nothing_of_random_scores():
    # Tweets of which each is there five times, with another link and another user.
    rng = np.random.default_rng(0)
    texts = [f"@user{i} tweet {i % 200} http://t.co/{i}" for i in range(1000)]
    scores = rng.uniform(-1, 1, 200)[np.arange(1000) % 200]
    rows = Rows(texts, scores, np.full(1000, -1, np.int32), [("a.csv", i) for i in range(1000)])

    def r2(normalize):
        sides = split(rows, seed=3, normalize=normalize)
        known = {}
        for text, score in zip(sides["train"].texts, sides["train"].scores, strict=True):
            known[normalize_tweet(text)] = score
        middle = sides["train"].scores.mean()
        test = sides["test"]
        found = [known.get(normalize_tweet(text), middle) for text in test.texts]
        return 1 - np.mean((test.scores - found) ** 2) / np.var(test.scores)

    assert r2(normalize_tweet) <= 0.05
    assert r2(None) > 0.9, "the texts as written leak, so the test can fail"


# Like shares of everything on each side


@pytest.mark.parametrize("count", [10, 13, 25])
def test_no_class_of_ten_rows_is_missing_from_a_split(count):
    categories = np.zeros(1000, np.int32)
    categories[:count] = 3
    texts = [f"text {i}" for i in range(1000)]
    missing = missing_by_chance = 0
    for seed in range(20):
        rows = Rows(texts, np.full(1000, np.nan), categories, [("f", i) for i in range(1000)])
        for stratify in (True, False):
            sides = split(rows, seed=seed, stratify=stratify)
            absent = sum(3 not in side.categories for side in sides.values())
            if stratify:
                missing += absent
                assert [len(side) for side in sides.values()] == [800, 100, 100]
            else:
                missing_by_chance += absent
    assert missing == 0
    assert count > 10 or missing_by_chance > 0


def test_scores_are_spread_over_the_sides_and_yet_at_random():
    scores = np.random.default_rng(0).normal(0, 0.3, 500).clip(-1, 1)
    origin = [("f", i) for i in range(500)]
    rows = Rows([f"t{i}" for i in range(500)], scores, np.full(500, -1, np.int32), origin)
    order = np.argsort(scores)
    tested = Counter()
    for seed in range(200):
        sides = split(rows, seed=seed)
        assert [len(side) for side in sides.values()] == [400, 50, 50]
        held = {row for _, row in sides["test"].origin}
        tested.update(held)
        # Of any twenty neighbours at least one is tested.
        places = np.flatnonzero([row in held for row in order])
        assert np.diff(places, prepend=-1, append=500).max() <= 20
    # Binomial(200, 1/10): mean 20, standard deviation 4.2.
    assert len(tested) == 500 and max(tested.values()) < 45


def test_groups_stay_together_by_way_of_others_too():
    rng = np.random.default_rng(1)
    count = 300
    rows = make_rows([f"text {rng.integers(250)}" for _ in range(count)])
    groups = [str(g) if g < 60 else None for g in rng.integers(0, 70, count)]
    rows = dataclasses.replace(rows, groups=groups)
    sides = split(rows, seed=0)
    seen = [
        {*side.texts, *(("group", g) for g in side.groups if g is not None)}
        for side in sides.values()
    ]
    assert sum(map(len, seen)) == len(set().union(*seen))
    assert sorted(o for side in sides.values() for o in side.origin) == sorted(rows.origin)


def test_the_past_is_trained_on_and_what_came_after_is_tested():
    times = np.random.default_rng(2).permutation(200).astype(float)
    rows = dataclasses.replace(make_rows([f"text {i}" for i in range(200)]), times=times)
    sides = split(rows, seed=0)
    assert sides["train"].times.max() < sides["validation"].times.min()
    assert sides["validation"].times.max() < sides["test"].times.min()
    assert [len(side) for side in sides.values()] == [160, 20, 20]
    # A text of both times counts by its last.
    again = dataclasses.replace(rows, texts=["same" if t in (3, 197) else f"{t}" for t in times])
    assert "same" in split(again, seed=0)["test"].texts


@REPRODUCIBLE
@given(
    blocks=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=30), min_size=1, max_size=12),
    shares=st.sampled_from([(0.8, 0.1, 0.1), (0.9, 0.1, 0.0), (0.25,) * 4, (1 / 3,) * 3]),
    alone=st.booleans(),
)
def test_blocks_are_dealt_as_one_would_by_hand(blocks, shares, alone):
    if alone:
        blocks = [[1] * len(block) for block in blocks]
    shares, total = np.array(shares), sum(map(sum, blocks))
    whole = [np.floor(shares * sum(block) + 1e-9) for block in blocks]
    open_ = splits._round_to_sum(shares, total) - sum(whole)
    owed, expected = np.zeros(len(shares)), []
    for block, lacking in zip(blocks, whole, strict=True):
        for _ in range(sum(block) - int(lacking.sum())):
            side = np.argmax(np.where(shares > 0, open_, -np.inf))
            lacking[side] += 1
            open_[side] -= 1
        owed = lacking + owed
        for size in block:
            expected.append(int(np.argmax(owed)))
            owed[expected[-1]] -= size
    sizes, lengths = np.concatenate(blocks), np.array([len(block) for block in blocks])
    assert splits._filled(sizes, lengths, shares).tolist() == expected


@pytest.mark.parametrize("groups", [None, []])
def test_no_rows_are_too_few(groups):
    rows = dataclasses.replace(make_rows([]), groups=groups)
    for stratify in (True, False):
        with pytest.raises(DataError, match="train is empty: 0 rows"):
            split(rows, seed=0, stratify=stratify)
        with pytest.raises(DataError, match="too few for 2 folds"):
            fold_of(rows, folds=2, seed=0, stratify=stratify)
