import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax import backbones, lora
from dwa_jax.backbones import BackboneConfig

pytestmark = pytest.mark.slow

QWEN = {
    "model_type": "qwen2",
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}


@pytest.fixture(scope="module")
def model():
    module = backbones.build(BackboneConfig.from_huggingface(QWEN), lora_dropout=0.5)
    return module, backbones.init(jax.random.key(0), module)


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), tree)


def pair(num_in, num_out, rank=4):
    return {"u": ((3, num_in, rank), "float32"), "v": ((3, rank, num_out), "float32")}


def test_the_whole_tree_of_shapes(model):
    factors = lora.init(jax.random.key(1), model[1], rank=4).factors
    assert shapes(factors) == {
        "layers": {
            "attention": {
                "query": pair(16, 16),
                "key": pair(16, 8),
                "value": pair(16, 8),
                "output": pair(16, 16),
            },
            "mlp": {"gate": pair(16, 24), "up": pair(16, 24), "down": pair(24, 16)},
        }
    }


def test_every_factor_and_every_layer_has_its_own_randomness(model):
    factors = lora.init(jax.random.key(1), model[1], rank=4).factors["layers"]
    slices = [
        np.asarray(factors[block][name]["u"][layer, :16]).tobytes()
        for block in factors
        for name in factors[block]
        for layer in range(3)
    ]
    assert len(set(slices)) == len(slices) == 21


def test_merging_fresh_factors_changes_nothing(model):
    merged = lora.merge(model[1], lora.init(jax.random.key(1), model[1], rank=4))
    for before, after in zip(jax.tree.leaves(model[1]), jax.tree.leaves(merged), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("options", "scale"),
    [({}, 1.0), ({"alpha": 8}, 2.0), ({"alpha": 8, "rank_stabilized": True}, 4.0)],
)
def test_merge_adds_the_scaled_product_layer_by_layer(model, options, scale):
    adapter = _filled(lora.init(jax.random.key(1), model[1], rank=4, **options))
    assert adapter.scale == scale
    merged = lora.merge(model[1], adapter)
    for block, name in (("attention", "key"), ("mlp", "down")):
        kernel = np.asarray(model[1]["layers"][block][name]["kernel"])
        pair = jax.tree.map(np.asarray, adapter.factors["layers"][block][name])
        for layer in range(3):
            expected = kernel[layer] + scale * pair["u"][layer] @ pair["v"][layer]
            np.testing.assert_allclose(
                merged["layers"][block][name]["kernel"][layer], expected, atol=1e-6
            )
    np.testing.assert_array_equal(
        merged["embeddings"]["word"]["embedding"], model[1]["embeddings"]["word"]["embedding"]
    )


def test_forward_equals_forward_with_merged_weights(model):
    module, params = model
    adapter = _filled(lora.init(jax.random.key(1), params, rank=4, alpha=6))
    ids = jnp.arange(14).reshape(2, 7) % 40
    mask = jnp.ones_like(ids)
    beside = module.apply({"params": params, "lora": lora.variables(adapter)}, ids, mask)
    merged = module.apply({"params": lora.merge(params, adapter)}, ids, mask)
    without = module.apply({"params": params}, ids, mask)
    np.testing.assert_allclose(beside, merged, atol=2e-5)
    assert np.abs(np.asarray(beside - without)).max() > 0.1


def test_dropout_falls_on_the_input_of_the_update_only(model):
    module, params = model
    ids = jnp.arange(14).reshape(2, 7) % 40
    mask = jnp.ones_like(ids)

    def run(adapter, seed):
        return module.apply(
            {"params": params, "lora": lora.variables(adapter)},
            ids,
            mask,
            deterministic=False,
            rngs={"dropout": jax.random.key(seed)},
        )

    fresh = lora.init(jax.random.key(1), params, rank=4)
    np.testing.assert_array_equal(run(fresh, 0), module.apply({"params": params}, ids, mask))
    filled = _filled(fresh)
    assert np.abs(np.asarray(run(filled, 0) - run(filled, 1))).max() > 1e-3


def test_a_rank_above_full_rank_is_warned_about_by_name(model):
    with pytest.warns(UserWarning, match=r"rank 12 .*attention/key/kernel \(16 x 8\)"):
        lora.init(jax.random.key(1), model[1], rank=12)


def test_mistakes_are_named(model):
    # A rank of 10^9 would take gigabytes before anything failed.
    for rank in (0, -1, 10**9, 2.5):
        with pytest.raises(ValueError, match=f"at least 1 and at most 65,536, not {rank}"):
            lora.init(jax.random.key(1), model[1], rank=rank)
    with pytest.raises(ValueError, match="'qkv' matches no parameter"):
        lora.init(jax.random.key(1), model[1], rank=4, targets=["qkv"])
    with pytest.raises(ValueError, match="word/embedding.*not an"):
        lora.init(jax.random.key(1), model[1], rank=4, targets=["word"])
    adapter = lora.init(jax.random.key(1), model[1], rank=4)
    with pytest.raises(ValueError, match="which the parameters lack"):
        lora.merge({"layers": {}}, adapter)


def test_a_module_name_targets_its_kernel_and_not_its_bias(model):
    factors = lora.init(jax.random.key(1), model[1], rank=2, targets=["query", "value"]).factors
    assert set(factors["layers"]["attention"]) == {"query", "value"}


def _filled(adapter):
    keys = iter(jax.random.split(jax.random.key(7), 20))
    return lora.replace_factors(
        adapter,
        jax.tree.map(lambda leaf: 0.3 * jax.random.normal(next(keys), leaf.shape), adapter.factors),
    )
