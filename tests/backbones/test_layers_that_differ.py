"""A trunk whose layers are of two kinds, and norms inside attention: what others take for granted.

Axes: B batch, T tokens, D width, L layers.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax import backbones
from dwa_jax.backbones import attention

pytestmark = pytest.mark.slow


def outputs(module, trunk, params=None):
    """Hidden states and the gradient of a function of those of real tokens."""
    real = trunk.mask[:, :, None].astype(np.float32)

    @jax.jit
    @jax.value_and_grad
    def total(params):
        hidden = module.apply({"params": params}, trunk.ids, trunk.mask)
        return jnp.sum(jnp.sin(hidden) * real)

    return total(trunk.params if params is None else params)


def close(left, right, atol=1e-4):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=1e-4), left, right)


@pytest.mark.parametrize("name", ["modernbert", "qwen3", "mistral"])
def test_attention_a_head_at_a_time_and_layers_computed_again(checkpoint, monkeypatch, name):
    trunk = checkpoint(name)
    expected = outputs(trunk.module, trunk)
    monkeypatch.setattr(attention, "_CACHED_BYTES", 1)
    # A module of its own, or jit would find the first one's program.
    close(outputs(backbones.build(trunk.module.config, remat=True), trunk), expected)


def test_the_lowest_layer_has_no_norm_before_its_attention(checkpoint):
    trunk = checkpoint("modernbert")
    value, gradient = outputs(trunk.module, trunk)
    scales = gradient["layers"]["attention_norm"]["scale"]
    assert np.all(scales[0] == 0) and np.all(np.abs(scales[1:]).max(axis=1) > 0)
    moved = jax.tree.map(lambda leaf: leaf, trunk.params)
    norm = moved["layers"]["attention_norm"]
    np.testing.assert_array_equal(norm["scale"][0], 1)
    norm["scale"] = norm["scale"].at[0].set(7.0)
    assert outputs(trunk.module, trunk, moved)[0] == value
    # And so nothing is written of it.
    written = backbones.to_huggingface(trunk.module.config, moved)
    assert not any("layers.0.attn_norm" in name for name in written)
    assert sum("attn_norm" in name for name in written) == 3


def test_a_token_moves_those_within_the_windows_alone(checkpoint):
    trunk = checkpoint("modernbert")
    config = trunk.module.config
    assert (config.local_attention, config.num_layers) == (4, 4)
    ids = np.random.default_rng(0).integers(3, 61, (1, 11)).astype(np.int32)
    changed = ids.copy()
    changed[0, 0] = 3 if ids[0, 0] != 3 else 4

    def reach(kinds):
        module = backbones.build(dataclasses.replace(config, global_layers=kinds))
        run = jax.jit(module.apply)
        one, other = (run({"params": trunk.params}, x, np.ones_like(x)) for x in (ids, changed))
        return np.flatnonzero(np.abs(np.asarray(one - other)).max((0, 2)) > 0).tolist()

    # Two tokens either side a layer.
    assert reach((False,) * 4) == list(range(9))
    assert reach((False, True, False, False)) == list(range(11))


def test_a_window_of_a_decoder_reaches_back_so_far(checkpoint):
    trunk = checkpoint("mistral")
    ids = np.random.default_rng(0).integers(3, 61, (1, 20)).astype(np.int32)
    changed = ids.copy()
    changed[0, 0] = 3 if ids[0, 0] != 3 else 4
    run = jax.jit(trunk.module.apply)
    one, other = (run({"params": trunk.params}, x, np.ones_like(x)) for x in (ids, changed))
    moved = np.flatnonzero(np.abs(np.asarray(one - other)).max((0, 2)) > 0)
    # A window of 5, itself included, over 3 layers: 3 x 4 tokens on.
    np.testing.assert_array_equal(moved, np.arange(13))


def test_fresh_parameters_have_the_shapes_of_loaded_ones(checkpoint):
    for name in ("modernbert", "qwen3", "distilbert"):
        trunk = checkpoint(name)
        fresh = jax.eval_shape(
            lambda key, m=trunk.module: backbones.init(key, m), jax.random.key(0)
        )
        shapes = [jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (fresh, trunk.params)]
        assert shapes[0] == shapes[1]
