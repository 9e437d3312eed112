"""Token ids of large splits kept on disk from one process to the next, and mapped into memory.

A library does not switch this for a program that imports it; a program does, with
`enable_token_cache`. What is kept is found by the texts themselves, the tokenizer and the limit; so
it never goes stale, and processes of one machine share the pages that they read.
"""

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dwa_jax import cache_folders, data

# Fewer texts are tokenized in the time that a file takes.
LEAST_TEXTS = 20_000
# Of all that is kept; what was not used for longest goes first.
MOST_BYTES = 8 * 2**30
_COLUMNS = ("tokens", "starts", "truncated", "wordless", "unknown")
_FOLDER, _LOCK = "tokens", ".lock"
_place: list[Path] = []


def enable_token_cache(place: str = "") -> Path | None:
    """Keeps what this process tokenizes, and takes what an earlier one tokenized.

    Never raises: without a folder that can be used, texts are tokenized.

    Args:
      place: a folder; "" is dwa_jax/tokens in the user's cache folder, "off" none.

    Returns:
      The folder that is used; None where there is none.
    """
    _place.clear()
    if place != "off":
        base = cache_folders.own_folder(place, _FOLDER)
        if base is not None:
            _place.append(base)
    return _place[0] if _place else None


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
    if not _place or len(texts) < LEAST_TEXTS or (about := _about(tokenizer)) is None:
        return make()
    name = _name(texts, [about, max_length, normalize is not None, allow_wordless])
    folder = _place[0] / name
    try:
        with _alone(_place[0] / f"{name}{_LOCK}"):
            found = _read(folder, len(texts))
            if found is None:
                found = make()
                _write(folder, found)
                found = _read(folder, len(texts)) or found
    except OSError:  # a full disk, or one that knows no locks
        return make()
    return found


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
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(content))
        digest.update(content)
    return digest.hexdigest()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(folder, count):
    try:
        columns = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in _COLUMNS
        }
        os.utime(folder)
    except (OSError, ValueError, EOFError):  # not there, or no more whole
        return None
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
    with contextlib.suppress(OSError):
        made = Path(tempfile.mkdtemp(prefix=".partial_", dir=folder.parent))
        try:
            columns = (encoded.ids.tokens, encoded.ids.starts, *encoded[1:])
            for name, column in zip(_COLUMNS, columns, strict=True):
                np.save(made / f"{name}.npy", column, allow_pickle=False)
            shutil.rmtree(folder, ignore_errors=True)  # one that was damaged
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        _forget(folder.parent, keep=folder)


def _forget(base, keep):
    # The oldest first, until the rest fits; what another process reads stays open to it.
    found = [path for path in base.iterdir() if path.is_dir() and path != keep]
    sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in [*found, keep]}
    total = sum(sizes.values())
    for path in sorted(found, key=lambda path: path.stat().st_mtime):
        if total <= MOST_BYTES:
            return
        shutil.rmtree(path, ignore_errors=True)
        path.with_name(f"{path.name}{_LOCK}").unlink(missing_ok=True)
        total -= sizes[path]
