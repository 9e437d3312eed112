"""RoBERTa. Source: Liu et al. 2019, "RoBERTa"."""

import functools

from dwa_jax.backbones import encoder_files as files
from dwa_jax.backbones.classifier import dense_classifier
from dwa_jax.backbones.encoder import Encoder
from dwa_jax.backbones.family import Family


def _scratch(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    heads: int,
    feed_forward: int,
    max_positions: int,
    pad_token_id: int,
) -> dict:
    return {
        "model_type": "roberta",
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": feed_forward,
        # The rows up to the pad id's are no token's.
        "max_position_embeddings": max_positions + pad_token_id + 1,
        "type_vocab_size": 1,
        "pad_token_id": pad_token_id,
    }


FAMILY = Family(
    name="roberta",
    title="RoBERTa",
    module=Encoder,
    prefix="roberta.",
    tensors=files.tensors,
    ignored=(*files.BUFFERS, *files.HEADS, r"lm_head\..*"),
    read=functools.partial(files.read, pad_token_id=1, positions_from_pad=True),
    write=files.write,
    classifier=dense_classifier(
        "RobertaForSequenceClassification",
        ("classifier",),
        "classifier.dense",
        "classifier.out_proj",
    ),
    scratch=_scratch,
)
