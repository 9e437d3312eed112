"""Scores of any range meet thresholds where they should: by exact arithmetic on decimals."""

import csv
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from dwa_jax import data, stratify


def decimal(rng, size, places):
    return Fraction(int(rng.integers(-size, size)), 10 ** int(places))


def written(number, places=12):
    """A fraction as people write it."""
    return f"{float(number):.{places}f}".rstrip("0").rstrip(".")


def test_scores_on_thresholds_belong_below_them_for_a_thousand_ranges_and_grids(tmp_path):
    rng = np.random.default_rng(0)
    wrong = tried = 0
    for _ in range(1000):
        places = rng.integers(0, 4)
        low = decimal(rng, 10 ** int(rng.integers(1, 6)), places)
        # Steps of a grid that decimals can write.
        cells = int(rng.choice([2, 4, 5, 8, 10, 16, 20, 25]))
        step = abs(decimal(rng, 500, places)) + Fraction(1, 10 ** int(places))
        high = low + cells * step
        # Thresholds are typed too: the nearest float to a decimal in [-1, 1].
        grid = [-1 + Fraction(2 * i, cells) for i in range(1, cells)]
        thresholds = [float(written(tau)) for tau in grid]
        scores = [low + i * step for i in range(cells + 1)]
        beside = [low + Fraction(i + 0.5) * step for i in range(cells)]
        for score in scores + beside:
            exact = 2 * (score - low) / (high - low) - 1
            expected = sum(tau < exact for tau in grid)
            rescaled = data.rescale(float(written(score)), float(low), float(high))
            tried += 1
            wrong += int(stratify.categorize(np.array([rescaled]), thresholds)[0]) != expected
    assert tried > 20_000
    assert wrong == 0


@pytest.mark.parametrize("kind", ["csv", "float64", "float32"])
def test_a_file_of_scores_out_of_ten_falls_into_five_even_classes(tmp_path, kind):
    scores = np.tile([2, 4, 6, 8, 10, 0.2, 9.9], 5)
    path = tmp_path / ("a.csv" if kind == "csv" else "a.parquet")
    if kind == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("text", "score"), *(("x", s) for s in scores)])
    else:
        table = pa.table({"text": ["x"] * len(scores), "score": pa.array(scores, kind)})
        pyarrow.parquet.write_table(table, path)
    rows, _ = data.read(path, score_range=(0, 10))
    categories = stratify.categorize(rows.scores, [-0.6, -0.2, 0.2, 0.6])
    np.testing.assert_array_equal(np.bincount(categories), [10, 5, 5, 5, 10])


def test_single_precision_scores_equal_the_decimals_that_they_were_written_as(tmp_path):
    scores = np.array([-0.6, -0.2, 0.2, 0.6, 0.9], np.float32)
    table = pa.table({"text": ["x"] * 5, "score": pa.array(scores)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    rows, _ = data.read(tmp_path / "a.parquet", score_range=(-0.6, 0.9))
    assert rows.scores[0] == -1 and rows.scores[-1] == 1
    rows, _ = data.read(tmp_path / "a.parquet")
    np.testing.assert_array_equal(rows.scores, [-0.6, -0.2, 0.2, 0.6, 0.9])


@pytest.mark.parametrize(
    ("score", "low", "high", "expected"),
    [
        (4, 0, 10, -0.2),
        (1000.2, 1000, 1001, -0.6),
        (2.5, 1, 4, 0.0),
        (2, 1, 4, -1 / 3),
        (-1.7e308, -1.7e308, 1.7e308, -1.0),
        (5e-324, 0, 1e-323, 0.0),
    ],
)
def test_rescaling_is_exact(score, low, high, expected):
    assert data.rescale(score, low, high) == expected


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_what_users_rescale_themselves_meets_thresholds_too(dtype):
    scores = np.array([2, 4, 6, 8], dtype)
    rescaled = dtype(2) * (scores / dtype(10)) - dtype(1)
    assert dtype is np.float32 or (rescaled > [-0.6, -0.2, 0.2, 0.6]).any()
    categories = stratify.categorize(rescaled, [-0.6, -0.2, 0.2, 0.6])
    np.testing.assert_array_equal(categories, [0, 1, 2, 3])
    above = np.nextafter(rescaled + dtype(4e-7), dtype(2))
    np.testing.assert_array_equal(stratify.categorize(above, [-0.6, -0.2, 0.2, 0.6]), [1, 2, 3, 4])
