"""The registry: what the library must know of a family of trunks, one line a family.

A new backbone is a file with its module, its table of names and its reader and
writer of `config.json` (or those that exist here), and one line in `FAMILIES`.

No arrays, so no axis letters.
"""

from collections.abc import Callable
from typing import NamedTuple

from dwa_jax.backbones import config as configs
from dwa_jax.backbones import names
from dwa_jax.backbones.classifier import Classifier, dense_classifier, score_classifier
from dwa_jax.backbones.config import BackboneConfig
from dwa_jax.backbones.decoder import Decoder
from dwa_jax.backbones.encoder import Encoder
from dwa_jax.backbones.layers import Trunk


class Family(NamedTuple):
    """One family of trunks.

    Attributes:
      module: the Linen module.
      prefix: what its tensors' names open with inside a model that has a head.
      tensors: configuration -> table of names.
      ignored: regular expressions of whole names (without prefix) that are no part of
        the trunk: heads, and buffers that are computed.
      read: `config.json` dictionary -> configuration.
      write: and back.
      classifier: gives our heads their pooling and their shape.
    """

    module: type[Trunk]
    prefix: str
    tensors: Callable[[BackboneConfig], list[names.Tensor]]
    ignored: tuple[str, ...]
    read: Callable[[dict], BackboneConfig]
    write: Callable[[BackboneConfig], dict]
    classifier: Classifier


_BUFFERS = (r"embeddings\.position_ids", r"embeddings\.token_type_ids")
_ENCODER_HEADS = (r"pooler\..*", r"classifier\..*", r"qa_outputs\..*")
_DECODER_REST = (
    r"lm_head\..*",
    r"score\..*",
    r"qa_outputs\..*",
    r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
)

FAMILIES = {
    "bert": Family(
        Encoder,
        "bert.",
        names.encoder_tensors,
        (*_BUFFERS, *_ENCODER_HEADS, r"cls\..*"),
        configs.read_encoder,
        configs.write_encoder,
        dense_classifier(
            "BertForSequenceClassification",
            ("pooler", "classifier"),
            "bert.pooler.dense",
            "classifier",
        ),
    ),
    "roberta": Family(
        Encoder,
        "roberta.",
        names.encoder_tensors,
        (*_BUFFERS, *_ENCODER_HEADS, r"lm_head\..*"),
        configs.read_encoder,
        configs.write_encoder,
        dense_classifier(
            "RobertaForSequenceClassification",
            ("classifier",),
            "classifier.dense",
            "classifier.out_proj",
        ),
    ),
    "llama": Family(
        Decoder,
        "model.",
        names.decoder_tensors,
        _DECODER_REST,
        configs.read_decoder,
        configs.write_decoder,
        score_classifier("LlamaForSequenceClassification"),
    ),
    "qwen2": Family(
        Decoder,
        "model.",
        names.decoder_tensors,
        _DECODER_REST,
        configs.read_decoder,
        configs.write_decoder,
        score_classifier("Qwen2ForSequenceClassification"),
    ),
}
