"""CamemBERT. Source: Martin et al. 2020, "CamemBERT: a Tasty French Language Model".

RoBERTa's layout, with a vocabulary of SentencePiece; transformers keeps RoBERTa's prefix too.
"""

import functools

from dwa_jax.backbones import encoder_files as files
from dwa_jax.backbones.classifier import dense_classifier
from dwa_jax.backbones.encoder import Encoder
from dwa_jax.backbones.family import Family

FAMILY = Family(
    name="camembert",
    title="CamemBERT",
    module=Encoder,
    prefix="roberta.",
    tensors=files.tensors,
    ignored=(*files.BUFFERS, *files.HEADS, r"lm_head\..*"),
    read=functools.partial(files.read, pad_token_id=1, positions_from_pad=True),
    write=files.write,
    classifier=dense_classifier(
        "CamembertForSequenceClassification",
        ("classifier",),
        "classifier.dense",
        "classifier.out_proj",
    ),
)
