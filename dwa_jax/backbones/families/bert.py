"""BERT. Source: Devlin et al. 2018, "BERT"."""

import functools

from dwa_jax.backbones import encoder_files as files
from dwa_jax.backbones.classifier import dense_classifier
from dwa_jax.backbones.encoder import Encoder
from dwa_jax.backbones.family import Family

FAMILY = Family(
    name="bert",
    title="BERT",
    module=Encoder,
    prefix="bert.",
    tensors=files.tensors,
    ignored=(*files.BUFFERS, *files.HEADS, r"cls\..*"),
    read=functools.partial(files.read, pad_token_id=0),
    write=files.write,
    classifier=dense_classifier(
        "BertForSequenceClassification", ("pooler", "classifier"), "bert.pooler.dense", "classifier"
    ),
)
