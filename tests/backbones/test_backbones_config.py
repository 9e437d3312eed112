"""Configurations: what is read, what is refused, what is written.

No arrays, so no axis letters.
"""

import dataclasses
import json

import pytest
import transformers

from dwa_jax import backbones
from dwa_jax.backbones import BackboneConfig, BackboneError

pytestmark = pytest.mark.slow

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
QWEN3 = QWEN | {"model_type": "qwen3"}
MISTRAL = BERT | {"model_type": "mistral"}
DISTIL = {"model_type": "distilbert", "vocab_size": 90, "dim": 32, "n_layers": 2, "n_heads": 4}
DISTIL |= {"hidden_dim": 40, "max_position_embeddings": 24}
# As transformers 4 wrote it.
MODERN = BERT | {"model_type": "modernbert", "global_attn_every_n_layers": 4, "pad_token_id": 3}
MODERN |= {"global_rope_theta": 16e4, "local_rope_theta": 1e4, "local_attention": 64}
# As published for Llama 3.1.
SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALING |= {"original_max_position_embeddings": 8192}
SCALED = LLAMA | {"rope_theta": 5e5, "rope_scaling": SCALING}

read = BackboneConfig.from_huggingface


def test_roberta_has_two_positions_fewer_than_rows():
    assert read(ROBERTA).max_positions == 512


def test_a_roberta_without_a_pad_id_is_refused_where_it_counts_positions():
    config = dataclasses.replace(read(ROBERTA), pad_token_id=None)
    with pytest.raises(BackboneError, match="roberta counts positions from it"):
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
        (BERT | {"model_type": "gpt2"}, "model_type 'gpt2'.*bert.*llama.*xlm-roberta"),
        ({}, "model_type None"),
        (BERT | {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        (BERT | {"is_decoder": True}, "is_decoder"),
        (BERT | {"add_cross_attention": True}, "add_cross_attention"),
        (BERT | {"hidden_act": "mish"}, "hidden_act 'mish'"),
        (BERT | {"hidden_size": 385}, "hidden_size 385"),
        (BERT | {"num_hidden_layers": None}, "num_hidden_layers"),
        (ROBERTA | {"pad_token_id": None}, "pad_token_id"),
        (LLAMA | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling: .*'dynamic'"),
        (LLAMA | {"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters: low_freq_factor"),
        (LLAMA | {"rope_scaling": SCALING | {"factor": "8"}}, "rope_scaling: factor"),
        (LLAMA | {"rope_scaling": SCALING | {"low_freq_factor": 4.0}}, "low_freq_factor 4.0 is"),
        (QWEN | {"rope_scaling": SCALING}, "rope_scaling: .*'llama3'.*'default', 'linear'"),
        (QWEN3 | {"use_sliding_window": True, "max_window_layers": 12}, "use_sliding_window"),
        (MISTRAL | {"sliding_window": 0}, "sliding_window must be"),
        (MISTRAL | {"attention_bias": True}, "attention_bias"),
        (MISTRAL | {"layer_types": ["sliding_attention"]}, "layer_types"),
        (DISTIL | {"dim": 30}, "dim 30 is not a multiple of n_heads 4"),
        (DISTIL | {"sinusoidal_pos_embds": "yes"}, "sinusoidal_pos_embds"),
        (MODERN | {"norm_bias": True}, "norm_bias"),
        (MODERN | {"classifier_bias": True}, "classifier_bias"),
        (MODERN | {"classifier_activation": "relu"}, "classifier_activation"),
        (MODERN | {"layer_types": ["full_attention"]}, "layer_types must be a list of 6"),
        (MODERN | {"layer_types": ["chunked"] * 6}, "layer_types holds chunked"),
        (MODERN | {"rope_parameters": {"full_attention": SCALING}}, "rope type 'llama3'"),
        (MODERN | {"local_attention": -1}, "local_attention must be"),
        (MODERN | {"global_attn_every_n_layers": 0}, "global_attn_every_n_layers must be"),
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


@pytest.mark.parametrize(
    "source", [BERT, ROBERTA, DISTIL, LLAMA, SCALED, QWEN, QWEN3, MISTRAL, MODERN]
)
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
    encoders = ["bert", "camembert", "distilbert", "modernbert", "roberta", "xlm-roberta"]
    decoders = ["llama", "mistral", "qwen2", "qwen3"]
    assert sorted(backbones.FAMILIES) == sorted(encoders + decoders)
    assert all(name == family.name for name, family in backbones.FAMILIES.items())
    unknown = BackboneConfig("t5", 9, 8, 1, 2, 2, 4, 8, 8, 1e-5, "gelu")
    with pytest.raises(BackboneError, match=r"'t5'.*bert"):
        backbones.build(unknown)
    with pytest.raises(BackboneError, match=r"'t5'.*bert"):
        unknown.to_huggingface()


def test_layers_of_two_kinds_are_found_however_a_version_writes_them():
    old = read(MODERN)
    assert old.global_layers == (True, False, False, False, True, False)
    assert (old.rope_theta, old.local_theta) == (16e4, 1e4)
    kinds = ["full_attention" if seen else "sliding_attention" for seen in old.global_layers]
    new = {name: value for name, value in MODERN.items() if "rope" not in name}
    del new["global_attn_every_n_layers"]
    thetas = {"full_attention": {"rope_theta": 16e4}, "sliding_attention": {"rope_theta": 1e4}}
    assert read(new | {"layer_types": kinds, "rope_parameters": thetas}) == old
    # Null there: the local layers turn as the global ones do.
    assert read(MODERN | {"local_rope_theta": None}).local_theta == 16e4


def test_a_window_is_the_family_s_where_a_file_says_nothing_and_none_where_null():
    assert read(MISTRAL).window == 4096
    assert read(MISTRAL | {"sliding_window": None}).window is None


def test_a_trunk_from_scratch_has_the_positions_that_were_asked_for():
    sizes = {"vocab_size": 90, "width": 32, "layers": 2, "heads": 4, "feed_forward": 40}
    config = backbones.from_scratch(**sizes, max_positions=24, pad_token_id=1)
    assert (config.max_positions, config.hidden_size, config.num_layers) == (24, 32, 2)
