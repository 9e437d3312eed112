"""Shapes that prediction pads to, beside every choice there is."""

import itertools

import numpy as np
import pytest

from dwa_jax.finetune.padded_shapes import PaddedShapes


def descending(seed, count, low, high):
    return np.sort(np.random.default_rng(seed).integers(low, high + 1, count))[::-1]


def cost(shapes, before, price):
    return sum(rows * tokens for rows, tokens in shapes) + price * len(set(shapes) - before)


def cheapest(lengths, size, before, price, longest):
    """The least cost of whole batches over every set of multiples of 4."""
    tops = [min(-(-n // 4) * 4, longest) for n in lengths[::size]]
    every = sorted({*tops, *(t for rows, t in before if rows == size)})
    found = []
    for count in range(1, len(every) + 1):
        for chosen in itertools.combinations(every, count):
            if chosen[-1] >= tops[0]:
                shapes = [(size, min(c for c in chosen if c >= top)) for top in tops]
                found.append(cost(shapes, before, price))
    return min(found)


@pytest.mark.parametrize("price", [0, 40, 300, 10**6])
@pytest.mark.parametrize("seed", range(4))
def test_whole_batches_cost_the_least(price, seed):
    size, longest = 4, 60
    shapes = PaddedShapes(longest, price)
    for call, (low, high) in enumerate([(1, 30), (5, 70), (1, 20)]):
        lengths = np.minimum(descending(10 * seed + call, 6 * size, low, high), longest)
        before = set(shapes.used)
        found = shapes.choose(lengths, size)
        assert cost(found, before, price) == cheapest(lengths, size, before, price, longest)
        assert all(tokens >= top for (_, tokens), top in zip(found, lengths[::size], strict=True))


def test_a_rest_takes_what_is_compiled_where_that_is_cheaper():
    shapes = PaddedShapes(64, price=100)
    assert shapes.choose([5] * 10, 32) == [(12, 8)]
    assert shapes.choose([6] * 11, 32) == [(12, 8)]
    # 96 tokens against 8 and a compilation; then a longer text, for which nothing is there.
    assert shapes.choose([3], 32) == [(12, 8)]
    assert shapes.choose([40], 32) == [(1, 40)]
    assert shapes.choose([64] * 3, 32) == [(3, 64)]
    assert PaddedShapes(64, 100, multiple=4).choose([5] * 9, 32) == [(12, 8)]


def test_mixed_texts_are_hardly_padded_in_few_programs():
    rng = np.random.default_rng(0)
    lengths = np.concatenate([rng.integers(6, 24, 1000), rng.lognormal(4.5, 0.6, 1000).astype(int)])
    lengths = np.sort(np.clip(lengths, 4, 256))[::-1]
    shapes = PaddedShapes(256, price=500)
    found = shapes.choose(lengths, 32)
    assert lengths.sum() / sum(rows * tokens for rows, tokens in found) >= 0.91
    assert len(set(found)) <= 20


def test_programs_are_bounded_and_every_text_fits():
    shapes = PaddedShapes(512, price=0)
    for seed in range(60):
        lengths = descending(seed, 70, 1, 512)
        found = shapes.choose(lengths, 8)
        assert [rows for rows, _ in found[:-1]] == [8] * 8
        assert all(tokens >= top for (_, tokens), top in zip(found, lengths[::8], strict=True))
    assert len(shapes.used) <= 28
    assert shapes.choose([], 8) == []


def test_fixed_shapes_are_the_only_ones_where_texts_fit():
    shapes = PaddedShapes(64, price=0)
    shapes.fix([(1, 16), (4, 16), (8, 16), (1, 64), (8, 64)])
    assert shapes.choose([5], 8) == [(1, 16)]
    assert shapes.choose([17, 3, 3], 8) == [(8, 64)]
    assert shapes.choose([5] * 8 + [5] * 2, 8) == [(8, 16), (4, 16)]
    assert len(shapes.used) == 5
    shapes.fix([(2, 16)])
    assert shapes.choose([40], 8) == [(1, 40)]
