"""Configurations from strangers: an error of one line, before anything is allocated.

No array axes of its own.
"""

import json
import resource
import shutil

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from dwa_jax import backbones
from dwa_jax.backbones import BackboneConfig, BackboneError
from tests.strangers import FUZZ, refusal


@pytest.fixture
def model(checkpoint, tmp_path):
    """A folder of its own with a small BERT."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(checkpoint("bert").folder / name, tmp_path)
    return tmp_path


# config.json

HUGE = 2**31 - 1
ABSURD = [-1, 0, 1.5, 10**30, float("nan"), float("inf"), "768", None, True, [1], {"a": 1}]
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
SIZES += ("intermediate_size", "max_position_embeddings")


def configured(model, **changes):
    config = json.loads((model / "config.json").read_text()) | changes
    (model / "config.json").write_text(json.dumps(config))
    return refusal(model)


@pytest.mark.parametrize("field", SIZES)
def test_sizes_that_are_none_are_refused_by_name(model, field):
    original = (model / "config.json").read_text()
    for value in ABSURD:
        (model / "config.json").write_text(original)
        assert field in configured(model, **{field: value})


@pytest.mark.parametrize("field", [*SIZES, "type_vocab_size"])
def test_sizes_the_weights_have_not_are_refused_before_anything_is_allocated(model, field):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Four heads of 32 columns: still a multiple.
    value = 9_999 if field == "num_hidden_layers" else HUGE - HUGE % 4 - (field == "vocab_size")
    message = configured(model, **{field: value})
    assert "the configuration says" in message or field in message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


@pytest.mark.parametrize(
    ("family", "field", "values"),
    [
        ("bert", "layer_norm_eps", ["1e-12", None, -1, float("nan"), 10**400]),
        ("bert", "hidden_dropout_prob", [1, -0.1, "0", float("nan")]),
        ("bert", "attention_probs_dropout_prob", [[], 2]),
        ("bert", "type_vocab_size", [0, -1, "2", None]),
        ("bert", "initializer_range", ["x", {}, float("inf")]),
        ("bert", "tie_word_embeddings", ["yes", 1]),
        ("bert", "hidden_act", [None, ["gelu"], {"a": 1}, "x" * 10**6, "a\nb"]),
        ("bert", "position_embedding_type", [["absolute"], "x" * 10**6]),
        ("bert", "model_type", [None, ["bert"], {"a": 1}, "x" * 10**6, 5]),
        ("roberta", "pad_token_id", ["1", -1, 10**9, True, 1.0]),
        ("llama", "num_key_value_heads", [-1, 0, "2", 3, 1.0]),
        ("llama", "head_dim", [-2, 0, "8", 7]),
        ("llama", "rms_norm_eps", ["1e-6", 0]),
        ("llama", "attention_bias", ["no", 1]),
        ("llama", "mlp_bias", [[], "no"]),
        ("llama", "rope_theta", ["1e4", 0, -1, float("nan"), [1]]),
        ("llama", "rope_scaling", [[1], "linear", {"type": ["default"]}, 5]),
        ("llama", "rope_parameters", [[1], "x", {"rope_theta": "x"}, {"rope_type": {}}]),
        ("qwen2", "layer_types", [5, "full_attention", [1], [["full_attention"]], {"a": 1}]),
        ("qwen2", "max_window_layers", ["28", None, 1.5]),
        ("qwen3", "attention_bias", ["no", 1]),
        ("mistral", "sliding_window", ["4096", 0, -1, 1.5, True]),
        ("modernbert", "local_attention", ["128", 0, None, 1.5]),
        ("modernbert", "layer_types", [5, "full_attention", [1, 2], [["full_attention"]] * 2]),
        ("modernbert", "rope_parameters", [[1], "x", {"full_attention": 5}]),
        ("modernbert", "global_rope_theta", ["1e4", 0, -1, [1]]),
        ("modernbert", "embedding_dropout", [1, "0"]),
        ("modernbert", "global_attn_every_n_layers", ["3", 0, None]),
    ],
)
def test_values_of_another_kind_are_refused_by_name(family, field, values):
    base = {
        "model_type": family,
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "max_position_embeddings": 24,
    }
    BackboneConfig.from_huggingface(base)
    for value in values:
        with pytest.raises(BackboneError) as error:
            BackboneConfig.from_huggingface(base | {field: value})
        message = str(error.value)
        named = {"num_key_value_heads": "num_k", "rope_theta": "rope_theta"}.get(field, field)
        assert named in message or (field == "rope_parameters" and "rope" in message), message
        assert "\n" not in message and len(message) < 500


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["", "default", "bert", "llama", "gelu", "full_attention", "\n", "x" * 999]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["rope_type", "type", "rope_theta", "a"]), inner, max_size=2
        )
    ),
    max_leaves=4,
)
FIELDS = sorted(
    set().union(
        *(transformers.AutoConfig.for_model(family).to_dict() for family in backbones.FAMILIES)
    )
    | {"rope_scaling", "rope_theta", "position_embedding_type", "partial_rotary_factor"}
)


@FUZZ
@given(
    family=st.sampled_from(sorted(backbones.FAMILIES)),
    changes=st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES, max_size=4),
)
def test_any_configuration_is_one_or_one_line(family, changes):
    source = transformers.AutoConfig.for_model(family).to_dict() | changes
    try:
        config = BackboneConfig.from_huggingface(source)
    except BackboneError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
    else:
        assert BackboneConfig.from_huggingface(config.to_huggingface()) == config


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe{}", b"[" * 10**6, b'{"a":' * 10**6, b"\0", b"{} {}"]
    + [b'{"hidden_size": ' + b"9" * 5000 + b"}"],
    ids=lambda content: f"{content[:12]!r} of {len(content)}",
)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_json_that_cannot_be_read_is_refused_by_name(model, name, content):
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(content)
    assert str(model / name) in refusal(model)


def test_a_json_file_of_gigabytes_is_not_read(model):
    with (model / "config.json").open("wb") as file:
        file.truncate(50 * 2**30)  # a hole: it takes no space
    assert "more than 10,000,000 bytes" in refusal(model)
