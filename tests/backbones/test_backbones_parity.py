"""Trunks against transformers on PyTorch: hidden states and every gradient.

Axes: B batch, T tokens, D width.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from dwa_jax import backbones

pytestmark = pytest.mark.slow

# float32: hidden states of unit scale, absolute; gradients, relative to their largest entry.
TOLERANCE = {"hidden": 1e-5, "gradient": 1e-4}


def torch_hidden(trunk, ids, mask):
    ids, mask = torch.tensor(ids).long(), torch.tensor(mask).long()
    return trunk.trunk(input_ids=ids, attention_mask=mask).last_hidden_state


def test_hidden_states_at_real_positions(trunk):
    with torch.no_grad():
        expected = torch_hidden(trunk, trunk.ids, trunk.mask).numpy()
    real = trunk.mask == 1
    assert 0.3 < expected[real].std() < 3
    np.testing.assert_allclose(trunk.hidden[real], expected[real], atol=TOLERANCE["hidden"], rtol=0)


@pytest.mark.parametrize("tokens", [1, 24])
def test_hidden_states_of_one_token_and_of_the_longest_text(trunk, tokens):
    ids = np.random.default_rng(0).integers(3, 61, (2, tokens), dtype=np.int32)
    mask = np.ones_like(ids)
    assert tokens <= trunk.module.config.max_positions == 24
    with torch.no_grad():
        expected = torch_hidden(trunk, ids, mask).numpy()
    ours = trunk.apply(ids, mask)
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE["hidden"], rtol=0)


def test_gradients_of_every_parameter(trunk):
    weights = np.random.default_rng(1).normal(size=trunk.hidden.shape).astype(np.float32)
    weights *= trunk.mask[:, :, None]

    trunk.trunk.zero_grad()
    (torch_hidden(trunk, trunk.ids, trunk.mask) * torch.tensor(weights)).sum().backward()
    expected = {
        name: value.grad.numpy()
        for name, value in trunk.trunk.named_parameters()
        if value.grad is not None
    }

    @jax.jit
    @jax.grad
    def gradient(params):
        hidden = trunk.module.apply({"params": params}, trunk.ids, trunk.mask)
        return jnp.sum(hidden * weights)

    ours = backbones.to_huggingface(trunk.module.config, gradient(trunk.params))
    assert set(ours) == set(expected)
    # A bias on an encoder's keys moves nothing, so its gradient is rounding on both sides.
    floor = 1e-2 * TOLERANCE["gradient"] * max(np.abs(g).max() for g in expected.values())
    for name, value in expected.items():
        allowed = TOLERANCE["gradient"] * np.abs(value).max() + floor
        np.testing.assert_allclose(ours[name], value, atol=allowed, rtol=0, err_msg=name)


def test_bfloat16_is_close_to_torch_in_float32(trunk):
    half = backbones.build(trunk.module.config, dtype=jnp.bfloat16)
    hidden = jax.jit(half.apply)({"params": trunk.params}, trunk.ids, trunk.mask)
    assert hidden.dtype == jnp.bfloat16
    error = np.asarray(hidden, np.float32) - trunk.hidden
    real = trunk.mask == 1
    scale = trunk.hidden[real].std()
    assert np.sqrt(np.mean(error[real] ** 2)) < 2e-2 * scale
