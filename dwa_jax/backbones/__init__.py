"""Pre-trained trunks of the families in `families`, from tokens to hidden states.

>>> module, params = load("FacebookAI/roberta-large")
>>> hidden = module.apply({"params": params}, input_ids, attention_mask)  # (B, T, D)
"""

from dwa_jax.backbones import families, peft
from dwa_jax.backbones.classifier import Classifier
from dwa_jax.backbones.config import BackboneConfig, BackboneError, find_family
from dwa_jax.backbones.family import Family, from_scratch, register
from dwa_jax.backbones.files import open_safetensors, save_tensors
from dwa_jax.backbones.huggingface import (
    build,
    head_to_huggingface,
    init,
    load,
    to_huggingface,
)
from dwa_jax.backbones.layers import Trunk
from dwa_jax.backbones.registry import FAMILIES
from dwa_jax.backbones.split import split_last_layer

__all__ = [
    "FAMILIES",
    "BackboneConfig",
    "BackboneError",
    "Classifier",
    "Family",
    "Trunk",
    "build",
    "families",
    "find_family",
    "from_scratch",
    "head_to_huggingface",
    "init",
    "load",
    "open_safetensors",
    "peft",
    "register",
    "save_tensors",
    "split_last_layer",
    "to_huggingface",
]
