"""Qwen2. Source: Yang et al. 2024, "Qwen2 Technical Report"."""

from dwa_jax.backbones import decoder_files as files
from dwa_jax.backbones import fields
from dwa_jax.backbones.classifier import score_classifier
from dwa_jax.backbones.config import BackboneConfig
from dwa_jax.backbones.decoder import Decoder
from dwa_jax.backbones.family import Family


def _read(source: dict) -> BackboneConfig:
    files.refuse_windowed_layers(source)
    fields.refuse(source, "attention_bias", (None, False))
    fields.refuse(source, "mlp_bias", (None, False))
    return files.read(source, qkv_bias=True)


FAMILY = Family(
    name="qwen2",
    title="Qwen2",
    module=Decoder,
    prefix="model.",
    tensors=files.tensors,
    ignored=files.REST,
    read=_read,
    write=files.write,
    classifier=score_classifier("Qwen2ForSequenceClassification"),
)
