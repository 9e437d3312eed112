"""Qwen3: each head's queries and keys are normalised, and heads have a width of their own.

Source: Yang et al. 2025, "Qwen3 Technical Report".
"""

from dwa_jax.backbones import decoder_files as files
from dwa_jax.backbones import fields
from dwa_jax.backbones.classifier import score_classifier
from dwa_jax.backbones.config import BackboneConfig
from dwa_jax.backbones.decoder import Decoder
from dwa_jax.backbones.family import Family

_HEAD_DIM = 128  # where a file says nothing, whatever the width


def _read(source: dict) -> BackboneConfig:
    files.refuse_windowed_layers(source)
    fields.refuse(source, "mlp_bias", (None, False))
    bias = fields.flag(source, "attention_bias", False)
    return files.read(source, head_dim=_HEAD_DIM, qkv_bias=bias, output_bias=bias, qk_norm=True)


def _write(config: BackboneConfig) -> dict:
    return files.write(config) | {"attention_bias": config.output_bias}


FAMILY = Family(
    name="qwen3",
    title="Qwen3",
    module=Decoder,
    prefix="model.",
    tensors=files.tensors,
    ignored=files.REST,
    read=_read,
    write=_write,
    classifier=score_classifier("Qwen3ForSequenceClassification"),
)
