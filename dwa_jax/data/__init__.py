"""Data: scored text in files -> batches of token ids with labels.

The way through is `read` (or `headlines.generate`) -> `split` -> `encode` ->
`bucket_lengths` and `Batches`. Numpy only: nothing here needs an accelerator.
"""

from dwa_jax.data import headlines
from dwa_jax.data.batches import Batches, bucket_lengths, pad_rows
from dwa_jax.data.columns import Columns, LeftOut
from dwa_jax.data.given import from_columns, from_split
from dwa_jax.data.kept_texts import KeptSource, KeptTexts
from dwa_jax.data.rescaling import rescale
from dwa_jax.data.rows import DataError, Origins, Rows
from dwa_jax.data.same_texts import normalize_text
from dwa_jax.data.scored_texts import read
from dwa_jax.data.splits import check_disjoint, count_shared, fold_of, split
from dwa_jax.data.token_rows import TokenRows
from dwa_jax.data.tokens import (
    Encoded,
    count_unknown,
    encode,
    load_tokenizer,
    no_token,
    normalize_tweet,
    pads_texts,
)

__all__ = [
    "Batches",
    "Columns",
    "DataError",
    "Encoded",
    "KeptSource",
    "KeptTexts",
    "LeftOut",
    "Origins",
    "Rows",
    "TokenRows",
    "bucket_lengths",
    "check_disjoint",
    "count_shared",
    "count_unknown",
    "encode",
    "fold_of",
    "from_columns",
    "from_split",
    "headlines",
    "load_tokenizer",
    "no_token",
    "normalize_text",
    "normalize_tweet",
    "pad_rows",
    "pads_texts",
    "read",
    "rescale",
    "split",
]
