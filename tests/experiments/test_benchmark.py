import pytest

from experiments import benchmark, shapes

TINY = {
    "model_type": "qwen2",
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(shapes._SHAPES, "tiny", TINY)


def test_the_first_method_is_what_the_others_are_divided_by():
    result = benchmark.compare("tiny", 2, 4, 6, rounds=3)
    names = [name for name, _, _ in benchmark.METHODS]
    assert list(result["methods"]) == names
    assert result["methods"][names[0]]["ratio"] == 1
    for values in result["methods"].values():
        assert 0 < values["spread_ms"][0] <= values["ms"] <= values["spread_ms"][1]


def test_one_step_counts_every_parameter():
    with pytest.warns(UserWarning, match="exceeds the full rank"):
        result = benchmark.one_step("tiny")
    embedding, norms = 50 * 16, 3 * 16
    attention = 16 * 16 * 2 + 16 * 8 * 2 + 16 + 8 + 8
    mlp, factors = 3 * 16 * 16, 128 * (16 + 16) * 5 + 128 * (16 + 8) * 2
    assert result["parameters"] == embedding + norms + attention + mlp + factors
    assert result["peak_gib"] > 0


def test_the_papers_models_have_their_published_sizes():
    # The model cards' counts, without heads: 355 M, 494 M and 1.03 B (less the output matrix).
    import jax

    from dwa_jax import backbones

    sizes = {}
    for name in ("roberta-large", "qwen2-0.5b", "tinyllama-1.1b"):
        module = backbones.build(shapes.get(name))
        tree = jax.eval_shape(lambda m=module: backbones.init(jax.random.key(0), m))
        sizes[name] = sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert sizes["qwen2-0.5b"] == 494_032_768
    assert sizes["tinyllama-1.1b"] == 1_100_048_384 - 32000 * 2048
    assert sizes["roberta-large"] == 355_359_744 - (1024 * 1024 + 1024)


def test_an_unknown_shape_lists_the_shapes():
    with pytest.raises(ValueError, match="'gpt'; there are: roberta-small"):
        shapes.get("gpt")
