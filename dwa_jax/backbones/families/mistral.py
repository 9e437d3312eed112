"""Mistral: no biases, and in its first version a window that every layer looks through.

Source: Jiang et al. 2023, "Mistral 7B".
"""

from dwa_jax.backbones import decoder_files as files
from dwa_jax.backbones import fields
from dwa_jax.backbones.classifier import score_classifier
from dwa_jax.backbones.config import BackboneConfig
from dwa_jax.backbones.decoder import Decoder
from dwa_jax.backbones.family import Family

_WINDOW = 4096  # where a file says nothing; null is no window


def _read(source: dict) -> BackboneConfig:
    for bias in ("attention_bias", "mlp_bias"):
        fields.refuse(source, bias, (None, False))
    fields.refuse(source, "layer_types", (None,))
    window = None
    if source.get("sliding_window", _WINDOW) is not None:
        window = fields.size({"sliding_window": _WINDOW} | source, "sliding_window")
    return files.read(source, window=window)


def _write(config: BackboneConfig) -> dict:
    return files.write(config) | {"sliding_window": config.window}


FAMILY = Family(
    name="mistral",
    title="Mistral",
    module=Decoder,
    prefix="model.",
    tensors=files.tensors,
    ignored=files.REST,
    read=_read,
    write=_write,
    classifier=score_classifier("MistralForSequenceClassification"),
)
