"""Configurations: what is read, what is refused, what is written.

No arrays, so no axis letters.
"""

import dataclasses
import json

import pytest
import transformers

from dwa_jax import backbones
from dwa_jax.backbones import BackboneConfig, BackboneError

BERT = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
}
ROBERTA = BERT | {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
LLAMA = BERT | {"model_type": "llama"}
# As published for Qwen2-0.5B, by transformers 4.
QWEN = {
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 131072,
    "max_window_layers": 24,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}

read = BackboneConfig.from_huggingface


def test_roberta_has_two_positions_fewer_than_rows():
    assert read(ROBERTA).max_positions == 512


def test_a_roberta_without_a_pad_id_is_refused_where_it_counts_positions():
    config = dataclasses.replace(read(ROBERTA), pad_token_id=None)
    with pytest.raises(BackboneError, match="RoBERTa counts positions from it"):
        config.to_huggingface()


def test_qwen_has_biases_on_query_key_and_value_alone():
    config = read(QWEN)
    assert (config.qkv_bias, config.output_bias, config.mlp_bias) == (True, False, False)
    assert (config.rope_theta, config.head_dim, config.num_kv_heads) == (1e6, 64, 2)
    assert config.pad_token_id is None


@pytest.mark.parametrize(
    "written",
    [
        {"rope_theta": 5e5},
        {"rope_theta": 5e5, "rope_scaling": None},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"rope_theta": 5e5, "rope_scaling": {"type": "default"}},
    ],
)
def test_rope_theta_is_found_wherever_a_version_writes_it(written):
    assert read(LLAMA | written).rope_theta == 5e5


def test_rope_theta_left_out_is_the_family_s():
    assert read(LLAMA).rope_theta == 10000.0


@pytest.mark.parametrize(
    ("source", "named"),
    [
        (BERT | {"model_type": "gpt2"}, "model_type 'gpt2'.*bert, roberta, llama, qwen2"),
        ({}, "model_type None"),
        (BERT | {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        (BERT | {"is_decoder": True}, "is_decoder"),
        (BERT | {"add_cross_attention": True}, "add_cross_attention"),
        (BERT | {"hidden_act": "mish"}, "hidden_act 'mish'"),
        (BERT | {"hidden_size": 385}, "hidden_size 385"),
        (BERT | {"num_hidden_layers": None}, "num_hidden_layers"),
        (ROBERTA | {"pad_token_id": None}, "pad_token_id"),
        (LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling: .*'linear'"),
        (LLAMA | {"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters: .*'llama3'"),
        (LLAMA | {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        (LLAMA | {"num_key_value_heads": 5}, "num_kv_heads 5"),
        (LLAMA | {"head_dim": 31}, "head_dim .* 31"),
        (QWEN | {"use_sliding_window": True, "max_window_layers": 12}, "use_sliding_window"),
        (QWEN | {"layer_types": ["sliding_attention"] * 24}, "layer_types"),
        (QWEN | {"attention_bias": True}, "attention_bias"),
    ],
)
def test_what_would_change_the_numbers_is_refused_by_name(source, named):
    with pytest.raises(BackboneError, match=named):
        read(source)


def test_a_window_that_no_layer_uses_is_accepted():
    assert read(QWEN | {"use_sliding_window": True}).num_layers == 24


@pytest.mark.parametrize("source", [BERT, ROBERTA, LLAMA, QWEN])
def test_writing_and_reading_again(source):
    config = read(source)
    assert read(json.loads(json.dumps(config.to_huggingface()))) == config
    assert hash(config) == hash(read(source))


def test_transformers_reads_what_is_written(trunk):
    written = trunk.module.config.to_huggingface()
    theirs = transformers.AutoConfig.for_model(**written)
    assert read(theirs.to_dict()) == trunk.module.config
    original = trunk.whole.config.to_dict()
    for field in written.keys() & original.keys():
        assert written[field] == original[field], field


def test_every_family_is_listed():
    assert list(backbones.FAMILIES) == ["bert", "roberta", "llama", "qwen2"]
    unknown = BackboneConfig("t5", 9, 8, 1, 2, 2, 4, 8, 8, 1e-5, "gelu")
    with pytest.raises(BackboneError, match=r"'t5'.*bert"):
        backbones.build(unknown)
    with pytest.raises(BackboneError, match=r"'t5'.*bert"):
        unknown.to_huggingface()
