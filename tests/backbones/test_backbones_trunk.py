"""What holds of a whole trunk: scanning, causality, padding, low-rank updates, halves.

Axes: B batch, T tokens, D width, L layers.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax import backbones

pytestmark = pytest.mark.slow

ATTENTION = ("attention",)
BOTH = ("attention", "mlp")


def dropout_key(seed):
    # This generator compiles in a fraction of the default one's time.
    return {"dropout": jax.random.key(seed, impl="rbg")}


def hidden_of(module, variables, trunk):
    return np.asarray(jax.jit(module.apply)(variables, trunk.ids, trunk.mask))


def draws_of(module, variables, trunk, seeds):
    @jax.jit
    def draw(rngs):
        return module.apply(variables, trunk.ids, trunk.mask, deterministic=False, rngs=rngs)

    return [np.asarray(draw(dropout_key(seed))) for seed in seeds]


def gradient_of(module, trunk, **options):
    @jax.jit
    @jax.grad
    def gradient(params):
        hidden = module.apply({"params": params}, trunk.ids, trunk.mask, **options)
        return jnp.sum(jnp.sin(hidden) * trunk.mask[:, :, None].astype(np.float32))

    return gradient(trunk.params)


def trees_close(left, right, atol):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=1e-4), left, right)


@pytest.mark.parametrize("options", [{"unroll": 3}, {"unroll": 2, "remat": True}])
def test_scanned_looped_and_recomputed_layers_agree(one_of_each, options):
    trunk = one_of_each
    module = backbones.build(trunk.module.config, **options)
    hidden = hidden_of(module, {"params": trunk.params}, trunk)
    np.testing.assert_allclose(hidden, trunk.hidden, atol=2e-6)


def test_gradients_through_recomputed_layers_with_dropout(checkpoint):
    trunk = checkpoint("bert")
    train = {"deterministic": False, "rngs": dropout_key(0)}
    plain = gradient_of(trunk.module, trunk, **train)
    again = gradient_of(backbones.build(trunk.module.config, remat=True), trunk, **train)
    trees_close(again, plain, atol=1e-4)


def test_positions_after_a_token_have_exactly_no_gradient(decoder):
    module, mask = decoder.module, np.ones((1, 6), np.int32)
    x = np.random.default_rng(0).normal(size=(1, 6, 32)).astype(np.float32)

    @jax.jit
    def influence(x):
        def at(x):
            variables = {"params": decoder.params}
            return jnp.sum(module.apply(variables, x, mask, method="upper"), (0, 2))

        return jnp.abs(jax.jacrev(at)(x)).sum((1, 3))

    influence = np.asarray(influence(x))  # (output position, input position)
    assert (influence[np.triu_indices(6, 1)] == 0).all()
    assert (influence[np.tril_indices(6)] > 0).all()


def test_encoders_look_both_ways(encoder):
    ids = encoder.ids.copy()
    ids[0, -1] = 3 if ids[0, -1] != 3 else 4
    changed = np.abs(encoder.apply(ids, encoder.mask) - encoder.hidden).max((1, 2))
    assert changed[0] > 1e-4
    assert (changed[1:] == 0).all()


def test_real_positions_do_not_depend_on_what_is_masked(trunk):
    pad = trunk.module.config.pad_token_id or 0
    # RoBERTa counts positions by id, so what is padding must stay padding there.
    other = (trunk.mask == 0) & (trunk.ids != pad)
    hidden = np.asarray(trunk.apply(np.where(other, 9, trunk.ids), trunk.mask))
    real = trunk.mask == 1
    assert np.abs(hidden - trunk.hidden).max() > 1e-2
    np.testing.assert_allclose(hidden[real], trunk.hidden[real], atol=2e-6)


def padded(trunk, left, right):
    width = ((0, 0), (left, right))
    pad = trunk.module.config.pad_token_id or 0
    ids = np.pad(trunk.ids, width, constant_values=pad)
    hidden = trunk.apply(ids, np.pad(trunk.mask, width))
    return np.asarray(hidden)[:, left : left + trunk.ids.shape[1]]


def test_padding_a_batch_further_changes_nothing(trunk):
    real = trunk.mask == 1
    np.testing.assert_allclose(padded(trunk, 0, 5)[real], trunk.hidden[real], atol=1e-5)


def test_relative_positions_do_not_mind_padding_on_the_left(relative):
    real = relative.mask == 1
    np.testing.assert_allclose(padded(relative, 5, 0)[real], relative.hidden[real], atol=1e-5)


def test_a_row_of_padding_alone_is_finite(one_of_each):
    trunk = one_of_each
    mask = np.zeros_like(trunk.mask)

    @jax.jit
    @jax.value_and_grad
    def total(params):
        return jnp.sum(trunk.module.apply({"params": params}, trunk.ids, mask))

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(total(trunk.params)))


@pytest.mark.parametrize("targets", [ATTENTION, BOTH])
def test_low_rank_updates_equal_merged_kernels(one_of_each, lora, targets):
    trunk = one_of_each
    tree = lora(trunk, targets)
    merged = jax.tree.map(lambda leaf: leaf, trunk.params)
    for block, modules in tree["layers"].items():
        for name, factors in modules.items():
            merged["layers"][block][name]["kernel"] += factors["u"] @ factors["v"]
    expected = hidden_of(trunk.module, {"params": merged}, trunk)
    hidden = hidden_of(trunk.module, {"params": trunk.params, "lora": tree}, trunk)
    assert np.abs(expected - trunk.hidden).max() > 0.1
    real = trunk.mask == 1
    np.testing.assert_allclose(hidden[real], expected[real], atol=2e-5)


def test_low_rank_dropout_acts_in_training_alone(one_of_each, lora):
    trunk = one_of_each
    config = dataclasses.replace(trunk.module.config, hidden_dropout=0.0, attention_dropout=0.0)
    module = backbones.build(config, lora_dropout=0.5)
    variables = {"params": trunk.params, "lora": lora(trunk, ATTENTION)}
    plain = hidden_of(trunk.module, variables, trunk)
    np.testing.assert_allclose(hidden_of(module, variables, trunk), plain, atol=2e-6)
    draws = draws_of(module, variables, trunk, (0, 0, 1))
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.abs(draws[0] - draws[2]).max() > 1e-2
    assert np.abs(draws[0] - plain).max() > 1e-2


def test_dropout_needs_a_key_and_depends_on_it(encoder):
    variables = {"params": encoder.params}
    draws = draws_of(encoder.module, variables, encoder, (0, 1))
    assert np.abs(draws[0] - draws[1]).max() > 1e-2
    with pytest.raises(Exception, match="dropout"):
        encoder.module.apply(variables, encoder.ids, encoder.mask, deterministic=False)


@pytest.mark.parametrize(("layers", "with_lora"), [(1, False), (3, True)])
def test_the_two_halves_make_the_whole(one_of_each, lora, layers, with_lora):
    trunk = one_of_each
    module = backbones.build(dataclasses.replace(trunk.module.config, num_layers=layers))
    lora_tree = lora(trunk, ATTENTION)

    def first(tree):
        return {**tree, "layers": jax.tree.map(lambda leaf: leaf[:layers], tree["layers"])}

    variables = {"params": first(trunk.params)}
    if with_lora:
        variables["lora"] = first(lora_tree)
    split = backbones.split_last_layer(module)
    last = {name: split.last(tree) for name, tree in variables.items()}
    assert last["params"]["mlp"]["down"]["kernel"].shape == (40, 32)

    @jax.jit
    def whole(variables):
        x = split.lower(variables, trunk.ids, trunk.mask)
        return split.upper(variables, last, x, trunk.ids, trunk.mask)

    expected = hidden_of(module, variables, trunk)
    np.testing.assert_allclose(whole(variables), expected, atol=1e-6)


def test_the_last_layer_s_gradient_is_the_last_of_the_stack(checkpoint):
    trunk = checkpoint("qwen2")
    split = backbones.split_last_layer(trunk.module)
    variables = {"params": trunk.params}

    @jax.jit
    @jax.grad
    def gradient(last):
        x = split.lower(variables, trunk.ids, trunk.mask)
        hidden = split.upper(variables, {"params": last}, x, trunk.ids, trunk.mask)
        return jnp.sum(jnp.sin(hidden) * trunk.mask[:, :, None].astype(np.float32))

    expected = split.last(gradient_of(trunk.module, trunk))
    trees_close(gradient(split.last(trunk.params)), expected, atol=1e-4)


def test_too_many_tokens_is_an_error_with_both_numbers(trunk):
    ids = np.ones((1, 25), np.int32)
    with pytest.raises(ValueError, match=r"25 tokens .* 24 positions"):
        trunk.module.apply({"params": trunk.params}, ids, ids)


def test_a_mask_of_another_shape_is_an_error(trunk):
    with pytest.raises(ValueError, match=r"\(4, 11\) and \(4, 10\)"):
        trunk.module.apply({"params": trunk.params}, trunk.ids, trunk.mask[:, :-1])


def test_a_token_outside_the_vocabulary_is_nan_not_a_wrong_row(trunk):
    ids = trunk.ids.copy()
    ids[0, 3] = 61
    hidden = np.asarray(trunk.apply(ids, trunk.mask))
    assert np.isnan(hidden[0, 3]).all()
    assert np.isfinite(hidden[1:]).all()


def test_fresh_parameters_are_normal_with_the_configured_deviation(checkpoint):
    trunk = checkpoint("qwen2")
    config = dataclasses.replace(trunk.module.config, initializer_range=0.5)
    module = backbones.build(config, param_dtype=jnp.bfloat16)
    params = backbones.init(jax.random.key(0, impl="rbg"), module)
    shapes = jax.tree.map(lambda leaf: leaf.shape, params)
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, trunk.params)
    kernel = np.asarray(params["layers"]["mlp"]["up"]["kernel"], np.float32)
    assert params["layers"]["mlp"]["up"]["kernel"].dtype == jnp.bfloat16
    assert abs(kernel.std() - 0.5) < 0.03
    assert abs(np.corrcoef(kernel[0].ravel(), kernel[1].ravel())[0, 1]) < 0.1
    np.testing.assert_array_equal(params["layers"]["mlp_norm"]["scale"], 1)
