"""Backbone shapes for benchmarks: the papers' models and small ones, without weights."""

from dwa_jax.backbones import BackboneConfig


def _roberta(vocab, width, layers, heads, feed_forward):
    return {
        "model_type": "roberta",
        "vocab_size": vocab,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": feed_forward,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def _decoder(family, vocab, width, layers, heads, kv_heads, feed_forward, **more):
    return {
        "model_type": family,
        "vocab_size": vocab,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": feed_forward,
        "max_position_embeddings": 2048,
        **more,
    }


_SHAPES = {
    "roberta-small": _roberta(8000, 384, 6, 12, 1536),
    "qwen2-small": _decoder("qwen2", 8000, 512, 4, 8, 2, 1376, tie_word_embeddings=True),
    # To see that a program works.
    "qwen2-tiny": _decoder("qwen2", 100, 16, 2, 2, 1, 16),
    "llama-small": _decoder("llama", 8000, 512, 4, 8, 8, 1376),
    # MiniLM's, and four layers of RoBERTa-large's width.
    "minilm": _roberta(30522, 384, 6, 12, 1536)
    | {"model_type": "bert", "max_position_embeddings": 512, "type_vocab_size": 2}
    | {"pad_token_id": 0},
    "roberta-wide": _roberta(50265, 1024, 4, 16, 4096),
    "roberta-large": _roberta(50265, 1024, 24, 16, 4096),
    "qwen2-0.5b": _decoder("qwen2", 151936, 896, 24, 14, 2, 4864, tie_word_embeddings=True),
    "tinyllama-1.1b": _decoder("llama", 32000, 2048, 22, 32, 4, 5632),
}


# As the hub's config.json has them, dropout included: what a run of these trunks computes.
_DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
_LARGE = _SHAPES["roberta-large"] | _DROPOUT | {"layer_norm_eps": 1e-5}
_QWEN = {"max_position_embeddings": 131072, "rope_theta": 1e6, "rms_norm_eps": 1e-6}
_SMOLLM2 = {"rope_theta": 1e5, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}
_PUBLISHED = {
    "FacebookAI/roberta-large": _LARGE,
    "cardiffnlp/twitter-roberta-large-2022-154m": _LARGE,
    "Qwen/Qwen2-0.5B": _SHAPES["qwen2-0.5b"] | _QWEN,
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T": _SHAPES["tinyllama-1.1b"]
    | {"rms_norm_eps": 1e-5},
    "HuggingFaceTB/SmolLM2-135M-Instruct": _decoder("llama", 49152, 576, 30, 9, 3, 1536)
    | _SMOLLM2
    | {"max_position_embeddings": 8192},
    "meta-llama/Llama-2-7b-hf": _decoder("llama", 32000, 4096, 32, 32, 32, 11008)
    | {"rms_norm_eps": 1e-5},
    "sentence-transformers/all-MiniLM-L6-v2": _SHAPES["minilm"] | _DROPOUT,
}


def published(hub_id: str) -> BackboneConfig:
    """Returns what a hub's model is configured as.

    Args:
      hub_id: of a backbone of `configs`.

    Raises:
      ValueError: it is none of these.
    """
    if hub_id not in _PUBLISHED:
        raise ValueError(f"no shape is known of {hub_id!r}; there are: {', '.join(_PUBLISHED)}")
    return BackboneConfig.from_huggingface(_PUBLISHED[hub_id])


def names() -> tuple[str, ...]:
    """Returns every shape's name."""
    return tuple(_SHAPES)


def get(name: str, layers: int | None = None) -> BackboneConfig:
    """Returns a shape.

    Args:
      name: one of `names()`.
      layers: another depth than its own.

    Raises:
      ValueError: the name is unknown.
    """
    if name not in _SHAPES:
        raise ValueError(f"unknown shape {name!r}; there are: {', '.join(_SHAPES)}")
    changed = {} if layers is None else {"num_hidden_layers": layers}
    return BackboneConfig.from_huggingface({**_SHAPES[name], **changed})
