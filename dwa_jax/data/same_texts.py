"""Which rows belong together: those of one text or group, directly or by way of others.

"The same text" means equal after `normalize_text`, which is coarser than what any tokenizer does
to a text before it reads it: compatibility characters unified (NFKC), letter case folded, accents,
control and zero-width characters dropped (as uncased BERT drops them), runs of whitespace
collapsed. Digits and punctuation are kept, so "EUR/USD at 1.08" and "EUR/USD at 1.09" are two
texts. What is done to texts before the tokenizer, such as `normalize_tweet`, is given.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from dwa_jax.data import cells
from dwa_jax.data.kept_texts import KeptTexts
from dwa_jax.data.long_texts import pieces
from dwa_jax.data.rows import Rows

Normalize = Callable[[str], str] | None
# Bytes of a digest: of millions of texts copies would not fit, and two that shared a digest
# would share a side.
_BYTES = 8


def normalize_text(text: str) -> str:
    """Returns the form under which two texts count as the same text."""
    return " ".join(filter(None, map(_normalized, pieces(text))))


def _normalized(text):
    if text.isascii():
        return " ".join(text.casefold().split())
    text = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).casefold())
    kept = (" " if c.isspace() else c for c in text if c.isspace() or cells.is_read(c))
    return " ".join("".join(kept).split())


class Together(NamedTuple):
    """N rows in G parts, each of what belongs together, in the order of their first rows.

    Args:
        part: (N,) integers in [0, G).
        first: (G,) the first row of each.
        sizes: (G,) rows of each.
    """

    part: np.ndarray
    first: np.ndarray
    sizes: np.ndarray


def together(rows: Rows, normalize: Normalize) -> Together:
    """Finds what belongs together among N rows.

    Args:
        rows: N rows.
        normalize: what the model's texts go through first, such as `normalize_tweet`.
    """
    part = text_digests(rows.texts, normalize)
    if rows.groups is not None:
        part = _by_way_of_groups(part, *_group_digests(rows.groups))
    _, first, part, sizes = np.unique(
        part, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return Together(place[part], first[order], sizes[order])


def shared_with(rows: Rows, others: Iterable[Rows], normalize: Normalize) -> np.ndarray:
    """Returns (N,) booleans: whether each row's text or group is one of some other rows."""
    others = list(others)
    texts = [text_digests(other.texts, normalize) for other in others]
    found = np.isin(text_digests(rows.texts, normalize), np.concatenate([_NONE, *texts]))
    if rows.groups is not None:
        known = [_group_digests(other.groups)[1] for other in others if other.groups is not None]
        in_one, groups = _group_digests(rows.groups)
        found[in_one] |= np.isin(groups, np.concatenate([_NONE, *known]))
    return found


def text_digests(texts: Iterable[str], normalize: Normalize) -> np.ndarray:
    """Returns (N,) uint64, equal where texts are the same."""
    if isinstance(texts, KeptTexts) and texts.source.normalize is normalize:
        return texts.digests
    if normalize is not None:
        texts = map(normalize, texts)
    return _digests(map(normalize_text, texts))


_NONE = np.zeros(0, np.uint64)


def _group_digests(groups):
    # Which rows are in a group, and a digest for each of these.
    in_one = np.fromiter((group is not None for group in groups), bool, len(groups))
    return in_one, _digests(group for group in groups if group is not None)


def _digests(values):
    digest = hashlib.blake2b
    written = (value.encode("utf-8", "surrogatepass") for value in values)
    found = bytearray()
    for value in written:
        found += digest(value, digest_size=_BYTES).digest()
    return np.frombuffer(bytes(found), np.uint64)


def _by_way_of_groups(texts, in_one, groups):
    # Texts and groups are nodes, and a row with both joins them.
    from scipy.sparse import coo_array, csgraph

    known, text = np.unique(texts, return_inverse=True)
    named, group = np.unique(groups, return_inverse=True)
    nodes = len(known) + len(named)
    ends = text[in_one], len(known) + group
    graph = coo_array((np.ones(len(group), bool), ends), shape=(nodes, nodes))
    _, component = csgraph.connected_components(graph, directed=False)
    return component[text]
