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
    "llama-small": _decoder("llama", 8000, 512, 4, 8, 8, 1376),
    # MiniLM's, and four layers of RoBERTa-large's width.
    "minilm": _roberta(30522, 384, 6, 12, 1536),
    "roberta-wide": _roberta(50265, 1024, 4, 16, 4096),
    "roberta-large": _roberta(50265, 1024, 24, 16, 4096),
    "qwen2-0.5b": _decoder("qwen2", 151936, 896, 24, 14, 2, 4864, tie_word_embeddings=True),
    "tinyllama-1.1b": _decoder("llama", 32000, 2048, 22, 32, 4, 5632),
}


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
