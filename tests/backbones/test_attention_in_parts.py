"""Attention head by head is attention in one piece, and its gradients too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dwa_jax.backbones import attention as module

pytestmark = pytest.mark.slow


def both(monkeypatch, function, cached_bytes):
    expected = function()
    monkeypatch.setattr(module, "_CACHED_BYTES", cached_bytes)
    # A function of its own, or jit would find the first one's program.
    return expected, function()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("heads_at_a_time", "devices"), [(1, 1), (2, 1), (1, 2)])
def test_value_and_gradients_are_those_of_one_piece(monkeypatch, causal, heads_at_a_time, devices):
    rng = np.random.default_rng(0)
    query = jnp.asarray(rng.normal(size=(2, 5, 6, 8)), jnp.float32)
    key, value = (jnp.asarray(rng.normal(size=(2, 7, 2, 8)), jnp.float32) for _ in range(2))
    mask = rng.random((2, 5 if causal else 1, 7)) < 0.6
    mask[0, 0] = False  # a query that may look nowhere

    def gradients():
        def total(*parts):
            mixed = module.attention(*parts, jnp.asarray(mask), devices=devices)
            return jnp.sum(jnp.sin(mixed) * jnp.arange(mixed.size).reshape(mixed.shape)), mixed

        (_, mixed), found = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(
            query, key, value
        )
        return [mixed, *found]

    # 3 query heads share a key; their scores take 3 x 5 x 7 floats.
    expected, found = both(monkeypatch, gradients, heads_at_a_time * 3 * 5 * 7 * 4)
    assert module._heads_at_a_time(4, 3 * 5 * 7 * 4) == heads_at_a_time
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("cached_bytes", [10**6, 5 * 7 * 4])
def test_gradients_under_dropout_are_the_finite_differences(monkeypatch, cached_bytes):
    monkeypatch.setattr(module, "_CACHED_BYTES", cached_bytes)
    rng = np.random.default_rng(0)
    query = jnp.asarray(rng.normal(size=(1, 5, 4, 3)), jnp.float32)
    key, value = (jnp.asarray(rng.normal(size=(1, 7, 2, 3)), jnp.float32) for _ in range(2))
    mask = jnp.asarray(rng.random((1, 5, 7)) < 0.8)

    def total(*parts):
        mixed = module.attention(*parts, mask, dropout_rate=0.4, dropout_key=jax.random.key(1))
        return jnp.sum(jnp.sin(mixed) * jnp.arange(mixed.size).reshape(mixed.shape))

    check_grads(total, (query, key, value), order=1, modes=["rev"], atol=2e-2, rtol=2e-2)


def test_dropout_in_parts_differs_from_part_to_part(monkeypatch):
    monkeypatch.setattr(module, "_CACHED_BYTES", 1)
    query, key = jnp.zeros((1, 1, 4, 2)), jnp.zeros((1, 64, 4, 2))
    value, mask = jnp.ones((1, 64, 4, 2)), jnp.ones((1, 1, 64), bool)
    options = {"dropout_rate": 0.5, "dropout_key": jax.random.key(0)}
    mixed = module.attention(query, key, value, mask, **options)[0, 0, :, 0]
    assert len(set(np.asarray(mixed).tolist())) > 1
    np.testing.assert_allclose(mixed, np.ones(4), atol=0.5)


def test_nothing_of_all_heads_scores_is_held(monkeypatch):
    x = jax.ShapeDtypeStruct((2, 128, 8, 4), jnp.float32)
    mask = jax.ShapeDtypeStruct((2, 1, 128), bool)

    def sizes():
        def total(query, key, value, mask):
            return jnp.sum(module.attention(query, key, value, mask) ** 2)

        lowered = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(x, x, x, mask)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    whole, parts = both(monkeypatch, sizes, 128 * 128 * 4)
    assert whole > 2 * 8 * 128 * 128 * 4 > 2 * parts


def test_groups_divide_the_heads(monkeypatch):
    monkeypatch.setattr(module, "_CACHED_BYTES", 1000)
    assert module._heads_at_a_time(12, 10) == 12
    assert module._heads_at_a_time(12, 100) == 6
    assert module._heads_at_a_time(7, 300) == 1
    assert module._heads_at_a_time(4, 5000) == 1


@pytest.mark.parametrize("cached_bytes", [10**6, 5 * 8 * 4])
def test_bfloat16_gradients_are_rounded_only_after_what_cancels_has_cancelled(
    monkeypatch, cached_bytes
):
    # Queries of 0 mix all values evenly; the values and their mean, 96, are bfloat16 numbers, so
    # what a score's gradient subtracts is exact, and of a size a hundred times the difference's.
    monkeypatch.setattr(module, "_CACHED_BYTES", cached_bytes)
    rng = np.random.default_rng(0)
    offsets = np.array([-4, -3, -2, -1, 1, 2, 3, 4])
    value = 96 + np.stack([rng.permutation(offsets) for _ in range(2 * 3)]).reshape(1, 2, 3, 8)
    parts = [np.zeros((1, 5, 4, 3)), rng.normal(size=(1, 8, 2, 3)), value.transpose(0, 3, 1, 2)]
    output_bar = rng.normal(size=(1, 5, 4, 3))
    parts, output_bar = (
        jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), x) for x in (parts, output_bar)
    )

    def query_gradient(dtype):
        mixed, vjp = jax.vjp(
            lambda *parts: module.attention(*parts, jnp.ones((1, 1, 8), bool)),
            *(part.astype(dtype) for part in parts),
        )
        np.testing.assert_array_equal(mixed.astype(jnp.float32), 96)
        return np.asarray(vjp(output_bar.astype(dtype))[0].astype(jnp.float32))

    expected = query_gradient(jnp.float32)
    error = np.linalg.norm(query_gradient(jnp.bfloat16) - expected)
    assert error <= 2**-7 * np.linalg.norm(expected)
