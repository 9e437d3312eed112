"""The word table cut down to the tokens that a run's texts have, where the table trains.

Rows of other tokens get no gradient. AdamW would pass over them all the same, and so would every
task's gradient: of MiniLM's parameters the table is a half, of XLM-RoBERTa base's two thirds.
Every number of the run stays what it is but for rounding. Where AdamW decays weights, rows of
tokens that no text has would shrink; here they stay as they were pre-trained. Source of the idea:
Ushio, Zhou and Camacho-Collados 2023, "An Efficient Multilingual Language Model Compression
through Vocabulary Trimming", who cut for good.

V tokens of the tokenizer, U rows that are left, D width.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dwa_jax import data, paths, sharding, trunk

_TABLE = "embeddings/word/embedding"
# Rows are left in steps of so large a part of the table, so that another seed's draw of the same
# texts, which has some other tokens, finds the step compiled.
_STEPS = 16
# Numbers that have to go for it to be worth while: fewer are passed over in a millisecond.
_LEAST = 2**20
# Ids at a time: of millions of texts they lie on disk.
_CHUNK = 2**20


class Vocabulary(NamedTuple):
    """A word table, and which of its rows are left.

    Attributes:
      whole: (V, D) as it was before.
      kept: (U,) ascending token ids, those of the rows that are left.
      rows: (V,) int32, the row of each token id in what is left; -1 of the others.
      module: the trunk that takes the whole table.
    """

    whole: np.ndarray
    kept: np.ndarray
    rows: np.ndarray
    module: Any

    @property
    def left_out(self) -> int:
        """Parameters of the table that are not kept."""
        return self.whole.size - len(self.kept) * self.whole.shape[1]

    def restored(self, theta: dict) -> dict:
        """Returns the trained parameters with the whole table."""
        leaves = paths.flatten(theta)
        table = np.array(self.whole)
        table[self.kept] = sharding.to_host(leaves[f"params/{_TABLE}"])
        return paths.unflatten({**leaves, f"params/{_TABLE}": jnp.asarray(table)})


def trim(
    module: Any, params: dict, ids: Iterable[data.TokenRows], pad_id: int, freeze: Sequence[str]
) -> tuple[Any, dict, Vocabulary | None]:
    """Leaves out of the word table what no text has.

    Args:
      module: the trunk.
      params: its parameters.
      ids: token ids of every text that the run trains on, evaluates or tests on.
      pad_id: what fills them up.
      freeze: patterns of parameters that do not train, see `trunk.split_parameters`.

    Returns:
      (module, parameters, vocabulary) of what is left; the first two as they were and None where
      the table does not train, is small, or as good as all of it is in use.
    """
    theta, _ = trunk.split_parameters(params, freeze=freeze)
    table = paths.flatten(theta).get(f"params/{_TABLE}")
    if table is None:
        return module, params, None
    used = np.zeros(len(table), bool)
    used[pad_id] = True
    # The pad id stays what it is where positions are counted from it.
    used[: module.config.unused_positions] = True
    for rows in ids:
        for start in range(0, len(rows.tokens), _CHUNK):
            used[rows.tokens[start : start + _CHUNK]] = True
    step = -(-len(used) // _STEPS)
    count = -(-int(used.sum()) // step) * step
    if (len(used) - count) * table.shape[1] < _LEAST:
        return module, params, None
    used[np.flatnonzero(~used)[: count - used.sum()]] = True
    kept = np.flatnonzero(used)
    rows_of = np.where(used, np.cumsum(used) - 1, -1).astype(np.int32)
    vocabulary = Vocabulary(np.asarray(table), kept, rows_of, module)
    left = {**paths.flatten(params), _TABLE: jnp.asarray(vocabulary.whole[kept])}
    config = dataclasses.replace(module.config, vocab_size=count)
    return module.clone(config=config), paths.unflatten(left), vocabulary
