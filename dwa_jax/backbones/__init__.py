"""Pre-trained trunks: BERT, RoBERTa, Llama and Qwen2, from tokens to hidden states.

>>> module, params = load("FacebookAI/roberta-large")
>>> hidden = module.apply({"params": params}, input_ids, attention_mask)  # (B, T, D)
"""

from dwa_jax.backbones import peft
from dwa_jax.backbones.classifier import Classifier
from dwa_jax.backbones.config import BackboneConfig, BackboneError
from dwa_jax.backbones.families import FAMILIES, Family
from dwa_jax.backbones.files import cached, open_safetensors, save_tensors
from dwa_jax.backbones.huggingface import (
    build,
    head_to_huggingface,
    init,
    load,
    to_huggingface,
)
from dwa_jax.backbones.layers import Trunk
from dwa_jax.backbones.split import split_last_layer

__all__ = [
    "FAMILIES",
    "BackboneConfig",
    "BackboneError",
    "Classifier",
    "Family",
    "Trunk",
    "build",
    "head_to_huggingface",
    "init",
    "load",
    "peft",
    "cached",
    "open_safetensors",
    "save_tensors",
    "split_last_layer",
    "to_huggingface",
]
