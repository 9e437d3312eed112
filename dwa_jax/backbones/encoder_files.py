"""The files of encoders laid out as the first of them was: configuration and tensors' names.

No arrays, so no axis letters.
"""

from dwa_jax.backbones import fields, names
from dwa_jax.backbones.config import BackboneConfig, BackboneError

MATRICES = {
    ("attention", "query"): ("attention.self.query", "query", "hidden"),
    ("attention", "key"): ("attention.self.key", "key", "hidden"),
    ("attention", "value"): ("attention.self.value", "key", "hidden"),
    ("attention", "output"): ("attention.output.dense", "hidden", "query"),
    ("mlp", "up"): ("intermediate.dense", "inner", "hidden"),
    ("mlp", "down"): ("output.dense", "hidden", "inner"),
}
NORMS = {"attention_norm": "attention.output.LayerNorm", "mlp_norm": "output.LayerNorm"}

# Whole names of tensors that are no part of a trunk.
BUFFERS = (r"embeddings\.position_ids", r"embeddings\.token_type_ids")
HEADS = (r"pooler\..*", r"classifier\..*", r"qa_outputs\..*")


def read(source: dict, *, pad_token_id: int, positions_from_pad: bool = False) -> BackboneConfig:
    """Reads a `config.json`; see `BackboneConfig.from_huggingface`.

    Args:
      source: the parsed file.
      pad_token_id: where the file has none.
      positions_from_pad: as in `BackboneConfig`; then the rows of the position table up to
        the pad id's are no token's.
    """
    family = source["model_type"]
    fields.refuse(source, "position_embedding_type", (None, "absolute"))
    fields.refuse(source, "is_decoder", (None, False))
    fields.refuse(source, "add_cross_attention", (None, False))
    hidden_size, num_heads = fields.heads(source, "hidden_size", "num_attention_heads")
    max_positions = fields.size(source, "max_position_embeddings")
    pad = fields.pad_token(source, pad_token_id)
    if positions_from_pad:
        if pad is None:
            raise BackboneError(f"pad_token_id is null, but {family} counts positions from it")
        if not 0 <= pad < max_positions - 1:
            raise BackboneError(
                f"pad_token_id {pad} leaves no position: {family} counts them from it, "
                f"and max_position_embeddings is {max_positions}"
            )
        max_positions -= pad + 1
    return BackboneConfig(
        family=family,
        vocab_size=fields.size(source, "vocab_size"),
        hidden_size=hidden_size,
        num_layers=fields.size(source, "num_hidden_layers", most=fields.MAX_LAYERS),
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=hidden_size // num_heads,
        intermediate_size=fields.size(source, "intermediate_size"),
        max_positions=max_positions,
        norm_eps=fields.number(source, "layer_norm_eps", 1e-12),
        activation=source.get("hidden_act", "gelu"),
        hidden_dropout=fields.rate(source, "hidden_dropout_prob", 0.1),
        attention_dropout=fields.rate(source, "attention_probs_dropout_prob", 0.1),
        pad_token_id=pad,
        positions_from_pad=positions_from_pad,
        type_vocab_size=fields.size({"type_vocab_size": 2} | source, "type_vocab_size"),
        initializer_range=fields.number(source, "initializer_range", 0.02),
        tie_word_embeddings=fields.flag(source, "tie_word_embeddings", True),
    )


def write(config: BackboneConfig) -> dict:
    """Inverts `read`."""
    return {
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
        "hidden_act": config.activation,
        "pad_token_id": config.pad_token_id,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
        "max_position_embeddings": config.max_positions + config.unused_positions,
        "layer_norm_eps": config.norm_eps,
        "hidden_dropout_prob": config.hidden_dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "type_vocab_size": config.type_vocab_size,
        "position_embedding_type": "absolute",
    }


def tensors(config: BackboneConfig) -> list[names.Tensor]:
    """Lists the trunk's tensors.

    Args:
      config: the trunk's configuration.

    Returns:
      One `Tensor` a leaf of the parameter tree.
    """
    width = config.hidden_size
    rows = {
        "word": config.vocab_size,
        "position": config.max_positions + config.unused_positions,
        "token_type": config.type_vocab_size,
    }
    found = [
        names.table(("embeddings", ours), f"embeddings.{ours}_embeddings", count, width)
        for ours, count in rows.items()
    ]
    found += names.norm(("embeddings", "norm"), "embeddings.LayerNorm", width)
    found += names.matrices(config, "encoder.layer.{}", MATRICES)
    for ours, module in NORMS.items():
        found += names.norm(("layers", ours), f"encoder.layer.{{}}.{module}", width)
    return found
