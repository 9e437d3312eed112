"""Token ids of large splits kept on disk from one process to the next, and mapped into memory.

What is kept is found by the texts themselves, the tokenizer and the limit.
"""

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dwa_jax import data
from dwa_jax.finetune import disk_cache

_COLUMNS = ("tokens", "starts", "truncated", "wordless", "unknown")


def encode_once(
    tokenizer: Any,
    texts: Sequence[str],
    max_length: int,
    normalize: Callable[[str], str] | None,
    origin: Sequence[tuple[str, int]],
    *,
    allow_wordless: bool,
) -> data.Encoded:
    """Does what `data.encode` does; of many texts, once.

    Of several processes one tokenizes, and the others wait for it.

    Raises:
      ValueError, data.DataError: as `data.encode`; nothing is kept then.
    """
    make = functools.partial(
        data.encode,
        tokenizer,
        texts,
        max_length,
        normalize,
        origin,
        allow_wordless=allow_wordless,
    )
    few = len(texts) < disk_cache.LEAST_TEXTS
    if not disk_cache.is_enabled() or few or (about := _about(tokenizer)) is None:
        return make()
    name = _name(texts, [about, max_length, normalize is not None, allow_wordless])
    return disk_cache.once(name, make, _write, functools.partial(_read, count=len(texts)))


def _about(tokenizer):
    # All that settles which ids a text gets; None where it does not say.
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    versions = [importlib.metadata.version(name) for name in ("tokenizers", "transformers")]
    special = [tokenizer.unk_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id]
    sides = [tokenizer.truncation_side, tokenizer.pad_token_id, type(tokenizer).__name__]
    return [backend.to_str(), versions, special, sides]


def _name(texts, settings):
    digest = hashlib.blake2b(json.dumps(settings).encode(), digest_size=16)
    if isinstance(texts, data.KeptTexts):
        digest.update(texts.identity)
        return digest.hexdigest()
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(content))
        digest.update(content)
    return digest.hexdigest()


def _read(folder, count):
    columns = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        for name in _COLUMNS
    }
    tokens, starts, *marks = columns.values()
    # A file that was damaged must not lead beyond its end.
    lengths = np.diff(starts)
    fits = (
        tokens.dtype == np.int32
        and starts.shape == (count + 1,)
        and all(mark.shape == (count,) for mark in marks)
        and int(starts[0]) == 0
        and int(starts[-1]) == len(tokens)
        and bool((lengths >= 0).all())
    )
    if not fits:
        return None
    # What is small is read; the ids stay where they are until a batch wants them.
    return data.Encoded(data.TokenRows(tokens, np.array(starts)), *map(np.array, marks))


def _write(folder, encoded):
    columns = (encoded.ids.tokens, encoded.ids.starts, *encoded[1:])
    for name, column in zip(_COLUMNS, columns, strict=True):
        np.save(folder / f"{name}.npy", column, allow_pickle=False)
