"""Llama, with the scaled rotary positions of its third version.

Sources: Touvron et al. 2023, "LLaMA"; Grattafiori et al. 2024, "The Llama 3 Herd of Models".
"""

from dwa_jax.backbones import decoder_files as files
from dwa_jax.backbones import fields
from dwa_jax.backbones.classifier import score_classifier
from dwa_jax.backbones.config import BackboneConfig, BackboneError
from dwa_jax.backbones.decoder import Decoder
from dwa_jax.backbones.family import Family
from dwa_jax.backbones.rotary import ByWavelength


def _by_wavelength(source: dict) -> ByWavelength:
    low, high = (float(fields.number(source, f"{end}_freq_factor", 0)) for end in ("low", "high"))
    if not low < high:
        raise BackboneError(f"low_freq_factor {low} is not below high_freq_factor {high}")
    original = fields.size(source, "original_max_position_embeddings")
    return ByWavelength("llama3", float(fields.number(source, "factor", 0)), low, high, original)


def _read(source: dict) -> BackboneConfig:
    files.refuse_windowed_layers(source)
    bias = fields.flag(source, "attention_bias", False)
    return files.read(
        source,
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=fields.flag(source, "mlp_bias", False),
        rope_types={"linear": files.linear_rope, "llama3": _by_wavelength},
    )


def _write(config: BackboneConfig) -> dict:
    biases = {"attention_bias": config.output_bias, "mlp_bias": config.mlp_bias}
    return files.write(config) | biases


FAMILY = Family(
    name="llama",
    title="Llama",
    module=Decoder,
    prefix="model.",
    tensors=files.tensors,
    ignored=files.REST,
    read=_read,
    write=_write,
    classifier=score_classifier("LlamaForSequenceClassification"),
)
