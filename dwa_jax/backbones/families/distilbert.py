"""DistilBERT. Source: Sanh et al. 2019, "DistilBERT, a distilled version of BERT".

BERT's layers under names of their own, without token types, and a head with a ReLU.
"""

from dwa_jax.backbones import encoder_files, fields, names
from dwa_jax.backbones.classifier import dense_classifier
from dwa_jax.backbones.config import BackboneConfig
from dwa_jax.backbones.encoder import Encoder
from dwa_jax.backbones.family import Family

_MATRICES = {
    ("attention", "query"): ("attention.q_lin", "query", "hidden"),
    ("attention", "key"): ("attention.k_lin", "key", "hidden"),
    ("attention", "value"): ("attention.v_lin", "key", "hidden"),
    ("attention", "output"): ("attention.out_lin", "hidden", "query"),
    ("mlp", "up"): ("ffn.lin1", "inner", "hidden"),
    ("mlp", "down"): ("ffn.lin2", "hidden", "inner"),
}
_NORMS = {"attention_norm": "sa_layer_norm", "mlp_norm": "output_layer_norm"}


def _read(source: dict) -> BackboneConfig:
    # Sinusoidal positions, too, are a table in the file.
    fields.flag(source, "sinusoidal_pos_embds", False)
    width, num_heads = fields.heads(source, "dim", "n_heads")
    return BackboneConfig(
        family="distilbert",
        vocab_size=fields.size(source, "vocab_size"),
        hidden_size=width,
        num_layers=fields.size(source, "n_layers", most=fields.MAX_LAYERS),
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=width // num_heads,
        intermediate_size=fields.size(source, "hidden_dim"),
        max_positions=fields.size(source, "max_position_embeddings"),
        norm_eps=1e-12,
        activation=source.get("activation", "gelu"),
        hidden_dropout=fields.rate(source, "dropout", 0.1),
        attention_dropout=fields.rate(source, "attention_dropout", 0.1),
        pad_token_id=fields.pad_token(source, 0),
        initializer_range=fields.number(source, "initializer_range", 0.02),
        tie_word_embeddings=fields.flag(source, "tie_word_embeddings", True),
    )


def _write(config: BackboneConfig) -> dict:
    return {
        "model_type": "distilbert",
        "vocab_size": config.vocab_size,
        "dim": config.hidden_size,
        "n_layers": config.num_layers,
        "n_heads": config.num_heads,
        "hidden_dim": config.intermediate_size,
        "max_position_embeddings": config.max_positions,
        "activation": config.activation,
        "dropout": config.hidden_dropout,
        "attention_dropout": config.attention_dropout,
        "pad_token_id": config.pad_token_id,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def _tensors(config: BackboneConfig) -> list[names.Tensor]:
    width = config.hidden_size
    rows = {"word": config.vocab_size, "position": config.max_positions}
    found = [
        names.table(("embeddings", ours), f"embeddings.{ours}_embeddings", count, width)
        for ours, count in rows.items()
    ]
    found += names.norm(("embeddings", "norm"), "embeddings.LayerNorm", width)
    found += names.matrices(config, "transformer.layer.{}", _MATRICES)
    for ours, module in _NORMS.items():
        found += names.norm(("layers", ours), f"transformer.layer.{{}}.{module}", width)
    return found


FAMILY = Family(
    name="distilbert",
    title="DistilBERT",
    module=Encoder,
    prefix="distilbert.",
    tensors=_tensors,
    ignored=(*encoder_files.BUFFERS, *encoder_files.HEADS, r"pre_classifier\..*", r"vocab_.*"),
    read=_read,
    write=_write,
    classifier=dense_classifier(
        "DistilBertForSequenceClassification",
        ("pre_classifier", "classifier"),
        "pre_classifier",
        "classifier",
        activation="relu",
    ),
)
