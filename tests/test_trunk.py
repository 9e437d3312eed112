"""The trunk that ends in one token a row is the whole trunk, pooled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax import backbones, heads, lora, trunk
from experiments.benchmarks import shapes

pytestmark = pytest.mark.slow

SHAPES = {
    "roberta": shapes._roberta(40, 16, 3, 2, 24),
    "qwen2": shapes._decoder("qwen2", 40, 16, 3, 4, 2, 24),
    "qwen3": shapes._decoder("qwen3", 40, 16, 3, 4, 2, 24, head_dim=6),
    "mistral": shapes._decoder("mistral", 40, 16, 3, 4, 2, 24, sliding_window=3),
    # The last layer sees a window of 3, or all of the text.
    "local": shapes._decoder("modernbert", 40, 16, 3, 4, 4, 24, local_attention=2)
    | {"layer_types": ["full_attention"] + ["sliding_attention"] * 2},
    "global": shapes._decoder("modernbert", 40, 16, 3, 4, 4, 24, local_attention=2)
    | {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
}
RNG = np.random.default_rng(0)
IDS = RNG.integers(3, 40, (3, 6)).astype(np.int32)
RIGHT = (np.arange(6) < np.array([[6], [3], [1]])).astype(np.int32)


@pytest.mark.parametrize(
    ("family", "mask", "rank"),
    [
        ("roberta", RIGHT, 0),
        ("qwen2", RIGHT, 2),
        ("qwen2", RIGHT[:, ::-1], 2),
        ("qwen3", RIGHT, 0),
        ("mistral", RIGHT[:, ::-1], 0),
        ("local", RIGHT, 2),
        ("local", RIGHT[:, ::-1], 0),
        ("global", RIGHT, 0),
    ],
)
@pytest.mark.parametrize("pooling", ["first", "last"])
def test_one_token_of_the_last_layer_is_that_token_of_the_whole_trunk(family, mask, rank, pooling):
    config = backbones.BackboneConfig.from_huggingface(SHAPES[family])
    module = backbones.build(config)
    params = backbones.init(jax.random.key(0), module)
    adapter = lora.init(jax.random.key(1), params, rank=rank) if rank else None
    theta, frozen = trunk.split_parameters(params, adapter)
    # V is zero at the start, and so would U's gradient be.
    theta = jax.tree.map(lambda leaf: leaf + 0.1, theta)
    ids = np.where(mask, IDS, 1).astype(np.int32)
    batch = {"input_ids": jnp.asarray(ids), "attention_mask": jnp.asarray(mask)}
    scale = jnp.arange(3 * 16.0).reshape(3, 16)

    def whole(theta):
        variables = trunk.joined_variables(theta, frozen, 0.5)
        hidden = module.apply(variables, batch["input_ids"], batch["attention_mask"])
        return jnp.sum(jnp.sin(heads.pool(hidden, batch["attention_mask"], pooling)) * scale)

    pooled = trunk.make_trunk(module, pooling=pooling, lora_scale=0.5)

    def short(theta):
        return jnp.sum(jnp.sin(pooled(theta, frozen, batch)) * scale)

    expected, found = (
        jax.jit(jax.value_and_grad(whole))(theta),
        jax.jit(jax.value_and_grad(short))(theta),
    )
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)


def test_no_token_but_one_goes_through_the_last_feed_forward():
    module = backbones.build(backbones.BackboneConfig.from_huggingface(SHAPES["roberta"]))
    params = backbones.init(jax.random.key(0), module)
    theta, frozen = trunk.split_parameters(params)
    run = trunk.make_trunk(module, pooling="first")
    batch = {"input_ids": IDS, "attention_mask": RIGHT}
    program = str(jax.make_jaxpr(lambda theta: run(theta, frozen, batch))(theta))
    # Widths of the feed-forward: of every token in the scan, of one in the last layer.
    assert "f32[3,6,24]" in program and "f32[3,1,24]" in program
