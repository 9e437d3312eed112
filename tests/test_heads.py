import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from dwa_jax import backbones, heads

MASK = jnp.array([[1, 1, 1, 0], [0, 1, 1, 1], [0, 1, 0, 1]])
HIDDEN = jnp.arange(24.0).reshape(3, 4, 2)


@pytest.mark.parametrize(
    ("how", "positions"),
    [
        ("first", [[0], [1], [1]]),
        ("last", [[2], [3], [3]]),
        ("mean", [[0, 1, 2], [1, 2, 3], [1, 3]]),
    ],
)
def test_pooling_looks_at_the_mask_alone(how, positions):
    expected = [np.asarray(HIDDEN)[row, index].mean(0) for row, index in enumerate(positions)]
    np.testing.assert_allclose(heads.pool(HIDDEN, MASK, how), expected)


def test_unknown_pooling_and_family_list_what_there_is():
    with pytest.raises(ValueError, match="'max'; there are: first, last, mean"):
        heads.pool(HIDDEN, MASK, "max")
    with pytest.raises(ValueError, match="'gpt2'; there are: bert,.* xlm-roberta"):
        heads.init(jax.random.key(0), "gpt2", 4, 1)


def test_a_roberta_head_is_hugging_faces(tmp_path):
    params = heads.init(jax.random.key(0), "roberta", 8, 5)
    config = transformers.RobertaConfig(hidden_size=8, num_labels=5, num_attention_heads=2)
    head = transformers.models.roberta.modeling_roberta.RobertaClassificationHead(config).eval()
    state = {
        f"{name}.{ours[1]}": torch.tensor(np.asarray(params[name][ours[0]]).T)
        for name in ("dense", "out_proj")
        for ours in (("kernel", "weight"), ("bias", "bias"))
    }
    head.load_state_dict(state)
    hidden = np.random.default_rng(0).normal(size=(3, 4, 8)).astype(np.float32)
    theirs = head(torch.tensor(hidden)).detach().numpy()
    np.testing.assert_allclose(heads.apply(params, jnp.asarray(hidden[:, 0])), theirs, atol=1e-6)


def test_a_decoder_head_is_one_matrix_without_bias():
    params = heads.init(jax.random.key(0), "qwen2", 8, 5)
    assert jax.tree.map(jnp.shape, params) == {"score": {"kernel": (8, 5)}}
    x = jnp.ones((2, 8), jnp.bfloat16)
    outputs = heads.apply(params, x)
    assert outputs.dtype == jnp.float32
    np.testing.assert_allclose(outputs[0], params["score"]["kernel"].sum(0), rtol=1e-6)


def test_a_head_that_starts_at_its_outputs_cannot_shout():
    shown = 50 * jax.random.normal(jax.random.key(1), (3, 8))
    wanted = np.array([0.1, -0.2, 0.3, 0.0, 0.5])

    def start(family):
        return heads.start_at(heads.init(jax.random.key(0), family, 8, 5), family, wanted)

    # Behind a tanh: at most eight numbers of 1 by weights of .02.
    np.testing.assert_allclose(
        heads.apply(start("roberta"), shown), np.tile(wanted, (3, 1)), atol=0.4
    )
    np.testing.assert_array_equal(heads.apply(start("qwen2"), shown), np.zeros((3, 5)))
    config = backbones.BackboneConfig.from_huggingface(
        {
            "model_type": "distilbert",
            "vocab_size": 10,
            "dim": 8,
            "n_layers": 1,
            "n_heads": 2,
            "hidden_dim": 8,
            "max_position_embeddings": 8,
        }
    )
    found = heads.apply(start("distilbert"), shown, config)
    np.testing.assert_allclose(found, np.tile(wanted, (3, 1)), atol=1e-7)


@pytest.mark.parametrize("family", backbones.FAMILIES)
def test_the_first_loss_is_the_scores_variance_whatever_the_family(family):
    # Vectors as long as those of published models: 10 of encoders, 50 of decoders.
    width, classifier = 1024, backbones.FAMILIES[family].classifier
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(200, width)) * (50 if classifier.pooling == "last" else 10)
    vectors = jnp.asarray(vectors / np.sqrt(width), jnp.float32)
    scores = draw.normal(0.1, 0.4, 200)
    params = heads.init(jax.random.key(0), family, width, 1)
    params = heads.start_at(params, family, np.array([scores.mean()]))
    outputs = heads.apply(params, vectors, types.SimpleNamespace(family=family, norm_eps=1e-5))
    loss = np.mean((np.asarray(outputs)[:, 0] - scores) ** 2)
    assert loss <= 1.2 * scores.var()
