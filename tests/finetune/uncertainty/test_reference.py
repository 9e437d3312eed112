"""What a run keeps of its rows: read back as it was, and refused where it was damaged."""

import numpy as np
import pytest

from dwa_jax import backbones
from dwa_jax.finetune.uncertainty import likeness, reference
from dwa_jax.finetune.uncertainty.reference import KeptRows, Reference


def rows(count, seed=0, width=4):
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(count, width)) + 4 * np.eye(width)[0]
    return KeptRows(
        lengths=draw.integers(3, 9, count).astype("i4"),
        unknown=np.zeros(count, "i4"),
        scores=np.where(draw.uniform(size=count) < 0.2, np.nan, 0.5).astype("f4"),
        predicted_scores=draw.uniform(-1, 1, count).astype("f4"),
        categories=draw.integers(-1, 3, count).astype("i4"),
        predicted_categories=draw.integers(0, 3, count).astype("i4"),
        representations=(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("f2"),
    )


@pytest.fixture
def kept():
    return Reference(rows(12), rows(7, seed=1))


def test_it_is_read_as_it_was_written(kept, tmp_path):
    assert reference.read(tmp_path, 4, 3) is None
    reference.write(tmp_path, kept)
    found = reference.read(tmp_path, 4, 3)
    pairs = zip((*kept.train, *kept.validation), (*found.train, *found.validation), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("train/lengths", None, "missing"),
        ("train/lengths", np.zeros(12, "i4"), "out of range"),
        ("train/representations", np.zeros((12, 5), "f2"), "shape"),
        ("train/representations", np.full((12, 4), np.inf, "f2"), "out of range"),
        ("train/scores", np.zeros(12, "f8"), "float64"),
        ("validation/categories", np.full(7, 3, "i4"), "out of range"),
        ("validation/predicted_categories", np.full(7, -1, "i4"), "out of range"),
        ("validation/lengths", np.ones(2000, "i4"), "not 1 to 1000"),
        ("validation/more", np.zeros(1), "not expected"),
    ],
)
def test_a_damaged_one_is_refused_in_one_line(kept, tmp_path, name, value, words):
    named = {
        f"{split}/{field}": column
        for split in ("train", "validation")
        for field, column in getattr(kept, split)._asdict().items()
    }
    named = {key: column for key, column in ({**named, name: value}).items() if column is not None}
    backbones.save_tensors(tmp_path / reference.FILE, named)
    with pytest.raises(ValueError, match=words) as caught:
        reference.read(tmp_path, 4, 3)
    assert str(tmp_path / reference.FILE) in str(caught.value) and "\n" not in str(caught.value)


def test_one_text_in_a_hundred_of_the_same_kind_is_unlike_and_all_of_another():
    kept = Reference(rows(300, seed=2, width=8), rows(300, seed=3, width=8))
    far = likeness.of_reference(kept)
    same = far.distances(rows(4000, seed=4, width=8).representations)
    assert 0.003 < (same > far.limit).mean() < 0.025
    other = -rows(50, seed=5, width=8).representations
    assert (far.distances(other) > far.limit).all()


def test_the_distance_is_to_the_nearest_few():
    train = np.repeat(np.eye(3, dtype="f4")[:2], 20, axis=0)
    far = likeness.Likeness(train, 0.5)
    assert far.distances(np.eye(3)) == pytest.approx([0, 0, 1])
    few = likeness.Likeness(np.eye(3, dtype="f4")[:2], 0.5)
    assert few.distances(np.eye(3)[:1]) == pytest.approx([0.5])
