"""Each operation against torch, and in float64.

Axes: B batch, T tokens, D width, H heads, K key/value heads, E width of one head.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.activations import ACT2FN
from transformers.models.llama import modeling_llama

from dwa_jax.backbones import config as configs
from dwa_jax.backbones import layers

pytestmark = pytest.mark.slow

# One table for every operation: absolute, on inputs of unit scale.
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-13}


def normal(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request):
    with jax.enable_x64(request.param is np.float64):
        yield request.param


def close(ours, expected, dtype):
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, expected.numpy(), atol=TOLERANCE[dtype], rtol=0)


def test_layer_norm(dtype):
    x, scale, bias = normal(2, 5, 16, dtype=dtype), normal(16, dtype=dtype), normal(16, dtype=dtype)
    expected = torch.nn.functional.layer_norm(
        torch.tensor(x), (16,), torch.tensor(scale), torch.tensor(bias), 1e-5
    )
    close(layers.layer_norm(jnp.asarray(x), scale, bias, 1e-5), expected, dtype)


def test_rms_norm(dtype):
    x, scale = normal(2, 5, 16, dtype=dtype), normal(16, dtype=dtype)
    expected = torch.nn.functional.rms_norm(torch.tensor(x), (16,), torch.tensor(scale), 1e-5)
    close(layers.rms_norm(jnp.asarray(x), scale, 1e-5), expected, dtype)


def test_norms_in_bfloat16_take_their_moments_in_float32():
    # 1 + 2^-8 rounds to 1 in bfloat16: a mean taken there would lose the offset.
    x = jnp.asarray(100 + normal(4, 256), jnp.bfloat16)
    one, zero = jnp.ones(256), jnp.zeros(256)
    wide = x.astype(jnp.float32)
    for ours, reference in (
        (layers.layer_norm(x, one, zero, 1e-5), layers.layer_norm(wide, one, zero, 1e-5)),
        (layers.rms_norm(x, one, 1e-5), layers.rms_norm(wide, one, 1e-5)),
    ):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(ours, np.float32), reference, rtol=2**-8)


def test_rotary_positions():
    config = modeling_llama.LlamaConfig(
        hidden_size=24,
        num_attention_heads=3,
        rope_parameters={"rope_type": "default", "rope_theta": 700.0},
    )
    x = normal(2, 9, 3, 8)
    rotary = modeling_llama.LlamaRotaryEmbedding(config)
    cos, sin = rotary(torch.tensor(x), torch.arange(9)[None])
    heads_first = torch.tensor(x).transpose(1, 2)
    expected, _ = modeling_llama.apply_rotary_pos_emb(heads_first, heads_first, cos, sin)
    ours = layers.rotate(jnp.asarray(x), *layers.rotary_angles(9, 8, 700.0))
    close(ours, expected.transpose(1, 2), np.float32)


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_attention_with_grouped_heads(dtype, kv_heads):
    query = normal(2, 5, 6, 8, dtype=dtype)
    key, value = (normal(2, 7, kv_heads, 8, seed=s, dtype=dtype) for s in (1, 2))
    mask = np.random.default_rng(4).random((2, 5, 7)) < 0.6
    mask[:, :, 0] = True
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(torch.tensor(a).transpose(1, 2) for a in (query, key, value)),
        attn_mask=torch.tensor(mask)[:, None],
        enable_gqa=True,
    ).transpose(1, 2)
    ours = layers.attention(*map(jnp.asarray, (query, key, value, mask)))
    close(ours, expected, dtype)


def test_attention_that_may_look_nowhere_is_finite_and_so_is_its_gradient():
    query, key, value = (jnp.asarray(normal(1, 3, 2, 4, seed=s)) for s in range(3))
    mask = jnp.zeros((1, 1, 3), bool)

    def total(query, key, value):
        return jnp.sum(layers.attention(query, key, value, mask))

    np.testing.assert_allclose(total(query, key, value), 3 * value.sum() / 3, rtol=1e-5)
    for gradient in jax.grad(total, argnums=(0, 1, 2))(query, key, value):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", configs.ACTIVATIONS)
def test_activation(name):
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    close(layers.activation(name)(jnp.asarray(x)), ACT2FN[name](torch.tensor(x)), np.float32)


def test_gated_mlp(checkpoint):
    trunk = checkpoint("llama_biased")
    x = normal(2, 3, 32)
    with torch.no_grad():
        expected = trunk.trunk.layers[1].mlp(torch.tensor(x))
    weights = jax.tree.map(lambda leaf: leaf[1], trunk.params["layers"]["mlp"])
    ours = layers.MLP(trunk.module.config, gated=True).apply({"params": weights}, jnp.asarray(x))
    close(ours, expected, np.float32)


def test_plain_mlp(checkpoint):
    trunk = checkpoint("bert")
    x = normal(2, 3, 32)
    layer = trunk.trunk.encoder.layer[1]
    with torch.no_grad():
        expected = layer.output.dense(layer.intermediate(torch.tensor(x)))
    weights = jax.tree.map(lambda leaf: leaf[1], trunk.params["layers"]["mlp"])
    ours = layers.MLP(trunk.module.config).apply({"params": weights}, jnp.asarray(x))
    close(ours, expected, np.float32)


def test_linear_adds_its_low_rank_update():
    x, kernel, bias, u, v = (
        jnp.asarray(normal(*shape, seed=s))
        for s, shape in enumerate([(2, 3, 8), (8, 5), (5,), (8, 2), (2, 5)])
    )
    ours = layers.linear(x, kernel, bias, u, v, dtype=jnp.float32)
    merged = layers.linear(x, kernel + u @ v, bias, dtype=jnp.float32)
    np.testing.assert_allclose(ours, merged, atol=1e-5)


def test_dropout_of_a_linear_is_on_the_update_alone():
    x, kernel, u = jnp.ones((1000, 4)), jnp.ones((4, 4)), jnp.eye(4)
    key = jax.random.key(0)
    y = layers.linear(x, kernel, None, u, u, dtype=jnp.float32, dropout_rate=0.2, dropout_key=key)
    values, counts = np.unique(np.asarray(y), return_counts=True)
    np.testing.assert_allclose(values, [4, 4 + 1 / 0.8])
    assert abs(counts[0] / y.size - 0.2) < 0.03


def test_dropout_without_a_key_is_refused():
    with pytest.raises(ValueError, match=r"dropout of rate 0\.1 needs a key"):
        layers.dropout(jnp.ones(3), 0.1, None)


def test_dropout_keeps_the_mean():
    x = layers.dropout(jnp.ones((200, 200)), 0.3, jax.random.key(1))
    assert abs(float(x.mean()) - 1) < 0.02
    assert set(np.unique(np.asarray(x)).round(4)) == {0.0, np.float32(1 / 0.7).round(4)}
