"""What is compiled for a GPU computes what is compiled for a CPU; both run here."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax import backbones, trunk
from dwa_jax.backbones import attention as attentions
from dwa_jax.backbones.dropout import dropout, quick_key
from dwa_jax.training import StepOptions, make_step, plan_records
from tests.test_training import (
    BATCHES,
    OPTIMIZERS,
    TASKS,
    K,
    assert_close,
    chosen_method,
    config,
    make,
    train,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("options", "rank"),
    [({"gradient_norms": "exact"}, 0), ({"scope": "last_layer"}, 3)],
)
def test_a_step_for_a_gpu_is_the_step_for_a_cpu(options, rank):
    # Of so many words, that records hold fewer numbers than gradients and are taken.
    backbone = {"num_hidden_layers": 3, "num_key_value_heads": 1, "vocab_size": 1000}
    state, step, _ = make("qwen2", rank=rank, backbone=backbone, **options)
    module = backbones.build(config("qwen2", **backbone), platform="gpu")
    chosen = StepOptions(pooling="last", num_classes=K, **options)
    if not rank:
        assert plan_records(module, state, TASKS, chosen, 8, 6)
    other = make_step(module, TASKS, chosen_method("dwa", 2), OPTIMIZERS, chosen)
    copy = jax.tree.map(lambda leaf: leaf.copy(), state)
    end, records = train(state, step, BATCHES[:3])
    other_end, other_records = train(copy, other, BATCHES[:3])
    assert_close(records, other_records)
    assert_close(end.theta, other_end.theta, atol=1e-5)


def test_a_gradient_comes_back_in_the_form_of_what_it_is_of():
    settings = config("qwen2", num_hidden_layers=3, num_key_value_heads=1)
    module = backbones.build(settings, dtype=jnp.bfloat16, platform="gpu")
    copy = trunk.make_working_copy(module, pooling="last")
    drawn = np.random.default_rng(0).normal(size=(3, 4, 5))
    theta = {
        "params": {
            "layers": {"mlp": {"up": {"kernel": jnp.asarray(drawn, jnp.float32)}}},
            "final_norm": {"scale": jnp.ones(4)},
        }
    }
    apart = copy.apart(theta)
    kernel = apart["params"]["layers"]["mlp"]["up"]["kernel"]
    last = apart["params"]["last_layer"]["mlp"]["up"]["kernel"]
    assert (kernel.shape, last.shape, kernel.dtype) == ((2, 4, 5), (4, 5), jnp.bfloat16)
    assert apart["params"]["final_norm"]["scale"].dtype == jnp.float32
    back = copy.joined(apart, theta)
    # Rounded by the cast, and in its place.
    assert_close(back, theta, rtol=2**-8)
    assert jax.tree.leaves(back)[1].dtype == jnp.float32
    # Mean pooling needs every token of the last layer, which then is no layer apart.
    whole = trunk.make_working_copy(module, pooling="mean").apart(theta)
    assert whole["params"]["layers"]["mlp"]["up"]["kernel"].shape == (3, 4, 5)


def test_scores_that_are_computed_again_are_those_that_were():
    rng = np.random.default_rng(0)
    query = jnp.asarray(rng.normal(size=(2, 5, 4, 8)), jnp.float32)
    key, value = (jnp.asarray(rng.normal(size=(2, 7, 2, 8)), jnp.float32) for _ in range(2))
    mask = jnp.asarray(rng.random((2, 5, 7)) < 0.6)

    def gradients(platform):
        def total(*parts):
            options = {"dropout_rate": 0.4, "dropout_key": jax.random.key(3)}
            mixed = attentions.attention(*parts, mask, platform=platform, **options)
            return jnp.sum(jnp.sin(mixed) * jnp.arange(mixed.size).reshape(mixed.shape))

        return jax.grad(total, argnums=(0, 1, 2))(query, key, value)

    assert_close(gradients("gpu"), gradients("cpu"), rtol=1e-5, atol=1e-5)


def test_nothing_of_the_scores_is_kept_for_the_backward_pass():
    x = jax.ShapeDtypeStruct((2, 64, 8, 4), jnp.float32)
    mask = jax.ShapeDtypeStruct((2, 1, 64), bool)

    def kept(platform):
        def forward(query, key, value, mask):
            return jax.vjp(
                lambda *parts: attentions.attention(*parts, mask, platform=platform),
                *(query, key, value),
            )

        found = jax.eval_shape(forward, x, x, x, mask)
        return max(leaf.size for leaf in jax.tree.leaves(found))

    assert kept("cpu") == 2 * 8 * 64 * 64 and kept("gpu") == 2 * 64 * 8 * 4


@pytest.mark.parametrize(("causal", "window"), [(False, None), (True, 3)])
def test_fused_attention_is_asked_for_what_the_mask_says(monkeypatch, causal, window):
    plain = jax.nn.dot_product_attention

    def stand_in(*parts, implementation, **options):
        assert implementation == "cudnn"
        return plain(*parts, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    rng = np.random.default_rng(0)
    tokens, length = np.array([7, 4]), 7
    parts = [rng.normal(size=(2, length, heads, 8)) for heads in (4, 2, 2)]
    parts = [jnp.asarray(part, jnp.bfloat16) for part in parts]
    real = np.arange(length) < tokens[:, None]
    seen = np.ones((length, length), bool)
    if causal:
        seen = np.tril(seen) & ~np.tril(seen, -(window or length))
    lengths = attentions.Lengths(jnp.asarray(tokens, jnp.int32), causal, window)
    mask = jnp.asarray(real[:, None, :] & seen[None])
    fused = attentions.attention(*parts, mask, platform="gpu", lengths=lengths)
    wide = [part.astype(jnp.float32) for part in parts]
    expected = attentions.attention(*wide, mask, platform="cpu")
    np.testing.assert_allclose(
        np.asarray(fused, np.float32)[real], np.asarray(expected)[real], rtol=0.02, atol=0.02
    )


@pytest.mark.parametrize(("dtype", "width"), [(jnp.float32, 8), (jnp.bfloat16, 12)])
def test_attention_is_not_fused_where_there_is_no_kernel(dtype, width):
    x = jnp.ones((1, 4, 2, width), dtype)
    lengths = attentions.Lengths(jnp.array([4], jnp.int32), False)
    assert attentions.fused(x, x, x, lengths) is None


@pytest.mark.parametrize("capability", ["7.5", "gfx90a"])
def test_attention_is_not_fused_on_cards_that_have_no_kernel(monkeypatch, capability):
    card = types.SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(jax, "local_devices", lambda: [card])
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *_, **__: pytest.fail("asked"))
    x, lengths = jnp.ones((1, 4, 2, 8), jnp.bfloat16), jnp.array([4], jnp.int32)
    assert attentions.fused(x, x, x, attentions.Lengths(lengths, False)) is None


def test_quick_dropout_drops_at_its_rate_and_nothing_with_its_neighbour():
    kept = np.asarray(dropout(jnp.ones((400, 501)), 0.1, quick_key(jax.random.key(5)))) > 0
    count = kept.size
    assert abs(kept.mean() - 0.9) < 5 * np.sqrt(0.09 / count)
    # Two halves of one word are neighbours.
    flat = kept.reshape(-1) - kept.mean()
    for distance in (1, 2, 501):
        correlation = np.mean(flat[distance:] * flat[:-distance]) / np.mean(flat**2)
        assert abs(correlation) < 5 / np.sqrt(count)
    again = np.asarray(dropout(jnp.ones((400, 501)), 0.1, quick_key(jax.random.key(6)))) > 0
    assert 0.7 < (again == kept).mean() < 0.9


def test_quick_dropout_keeps_the_mean_and_the_dtype():
    x = dropout(jnp.ones((300, 301), jnp.bfloat16), 0.3, quick_key(jax.random.key(1)))
    assert x.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(x, np.float32).mean(), 1, atol=0.01)
