"""The trunk that ends in one token a row is the whole trunk, pooled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax import backbones, lora, trunk
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


@functools.cache
def programs(family, rank):
    """A trunk's theta, and what gives values and gradients: of the whole, and by pooling."""
    config = backbones.BackboneConfig.from_huggingface(SHAPES[family])
    module = backbones.build(config, unroll=1)
    params = backbones.init(jax.random.key(0), module)
    adapter = lora.init(jax.random.key(1), params, rank=rank) if rank else None
    theta, frozen = trunk.split_parameters(params, adapter)
    # V is zero at the start, and so would U's gradient be.
    theta = jax.tree.map(lambda leaf: leaf + 0.1, theta)
    scale = jnp.arange(3 * 16.0).reshape(3, 16)

    def whole(theta, batch, places):
        variables = trunk.joined_variables(theta, frozen, 0.5)
        hidden = module.apply(variables, batch["input_ids"], batch["attention_mask"])
        return jnp.sum(jnp.sin(hidden[jnp.arange(3), places]) * scale)

    def short(pooling, theta, batch):
        pooled = trunk.make_trunk(module, pooling=pooling, lora_scale=0.5)
        return jnp.sum(jnp.sin(pooled(theta, frozen, batch)) * scale)

    def compiled(function):
        return jax.jit(jax.value_and_grad(function))

    by_pooling = {
        pooling: compiled(functools.partial(short, pooling)) for pooling in ("first", "last")
    }
    return theta, compiled(whole), by_pooling


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
    theta, whole, by_pooling = programs(family, rank)
    ids = np.where(mask, IDS, 1).astype(np.int32)
    batch = {"input_ids": jnp.asarray(ids), "attention_mask": jnp.asarray(mask)}
    real = [np.flatnonzero(row) for row in mask]
    places = np.array([row[0 if pooling == "first" else -1] for row in real])
    expected, found = whole(theta, batch, places), by_pooling[pooling](theta, batch)
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
