"""XLM-RoBERTa. Source: Conneau et al. 2020, "Unsupervised Cross-lingual Representation
Learning at Scale".

RoBERTa's layout, with a vocabulary of SentencePiece; transformers keeps RoBERTa's prefix too.
"""

import functools

from dwa_jax.backbones import encoder_files as files
from dwa_jax.backbones.classifier import dense_classifier
from dwa_jax.backbones.encoder import Encoder
from dwa_jax.backbones.family import Family

FAMILY = Family(
    name="xlm-roberta",
    title="XLM-RoBERTa",
    module=Encoder,
    prefix="roberta.",
    tensors=files.tensors,
    ignored=(*files.BUFFERS, *files.HEADS, r"lm_head\..*"),
    read=functools.partial(files.read, pad_token_id=1, positions_from_pad=True),
    write=files.write,
    classifier=dense_classifier(
        "XLMRobertaForSequenceClassification",
        ("classifier",),
        "classifier.dense",
        "classifier.out_proj",
    ),
)
