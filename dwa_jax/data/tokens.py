"""Tokens: texts -> token ids by the backbone's own tokenizer, truncation counted.

Nothing is padded here: padding belongs to the batch a row ends up in.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dwa_jax.data import cells
from dwa_jax.data.rows import DataError
from dwa_jax.data.token_rows import TokenRows
from dwa_jax.messages import one_line, quoted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Among tokenizers without a pad token, those that have the first have it for the end of a
# document, and so never inside a text; those behind the end of a sequence are made for padding.
_END_OF_DOCUMENT = "<|endoftext|>"
_PAD_TOKENS = ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>")
# What hardly a vocabulary has: a hieroglyph, which is unknown, or several bytes.
_UNHEARD_OF = "\U00013000"
# Characters of a text that are tokenized at first, for each token that is kept; more where
# these come to too few. And the most that are ever tokenized of one.
_PER_TOKEN, _MOST_CHARACTERS = 16, 2**22
_CHUNK = 4096  # texts tokenized at once: bounds the memory of the tokenizer's own records
# What a tokenizer is read from, and the bytes that each may have: far above any model's.
_ABOUT = re.compile(r"(.*config|.*template|special_tokens_map|added_tokens)\.(json|jinja)")
_VOCABULARY = re.compile(r"tokenizer|vocab|merges|spiece|sentencepiece|tekken|bpe")
_MAX_ABOUT, _MAX_VOCABULARY = 10_000_000, 64_000_000

# How many times longer a tokenizer may make a text before it looks for tokens.
_MOST_GROWTH = 1000
# Classes that are what tokenizer.json says and nothing else.
_GENERIC = ("PreTrainedTokenizer", "TokenizersBackend")

_SPACE = re.compile(r"\s")
_USER = re.compile(r"(?<!\S)@\S+")
_LINK = re.compile(r"(?<!\S)http\S*")


class Encoded(NamedTuple):
    """Token ids of N texts.

    Args:
        ids: N rows of int32, each (length of the text,), special tokens included; a text without
            a token of its own has the special ones alone.
        truncated: (N,) booleans, True where a text was longer than the limit and lost its end.
        wordless: (N,) booleans, True where a text has no token, see `encode`.
        unknown: (N,) int64, tokens of a text that stand for what the vocabulary lacks.
    """

    ids: TokenRows
    truncated: np.ndarray
    wordless: np.ndarray
    unknown: np.ndarray

    @property
    def num_truncated(self) -> int:
        """How many texts lost their end."""
        return int(self.truncated.sum())

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64, tokens a text."""
        return self.ids.lengths


@contextlib.contextmanager
def _panics_told() -> Iterator[None]:
    # What goes wrong in the tokenizers' Rust is no Exception: nothing else would tell of it.
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(
            f"the tokenizer breaks off: {one_line(error)}; its tokenizer.json is damaged"
        ) from None


@_panics_told()
def load_tokenizer(path_or_id: str | Path) -> PreTrainedTokenizerBase:
    """Loads a backbone's tokenizer, with a pad token.

    A tokenizer without a pad token (most decoders) gets `<|endoftext|>` where its
    vocabulary has it, else its end-of-sequence token, else another special one; the first
    that is in no text, since by it the end of a text is found elsewhere. One whose pad token is
    in texts gets another likewise, and a UserWarning says so; where there is no other it
    stays. Code that comes with a tokenizer is never run.

    Args:
        path_or_id: a local folder, or a model's id on the Hugging Face hub.

    Returns:
        The tokenizer.

    Raises:
        ValueError: no tokenizer can be loaded from there.
    """
    name = os.path.expanduser(path_or_id)
    if Path(name).is_dir():
        _check_files(Path(name))
    try:
        tokenizer = _reader(Path(name)).from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # unreachable hub, unknown id, damaged file, own code: all differ
        if Path(name).is_dir():
            advice = "the folder needs what save_pretrained writes, tokenizer.json at least"
        else:
            advice = (
                "it is no local folder, and the hub did not give it; without network, pass the"
                " path of a folder with tokenizer.json and tokenizer_config.json (HF_HUB_OFFLINE=1"
                " spares the attempts to connect)"
            )
        raise ValueError(f"no tokenizer from {name!r}: {advice}: {one_line(error)}") from None
    _check_growth(tokenizer, name)
    vocabulary = tokenizer.get_vocab()
    # A folder without tokenizer files but with a config.json gives an empty one, in silence.
    if set(vocabulary) <= set(tokenizer.all_special_tokens):
        raise ValueError(
            f"the tokenizer of {name!r} has special tokens only, {sorted(vocabulary)};"
            " tokenizer.json is missing there"
        )
    given = tokenizer.pad_token
    if given is None or pads_texts(tokenizer):
        inside = _ids_inside(tokenizer)
        others = [
            pad for pad in _could_pad(tokenizer) if vocabulary.get(pad) not in (None, *inside)
        ]
        pad = others[0] if others else given or tokenizer.eos_token
        if pad is None:
            raise ValueError(
                f"the tokenizer of {name!r} has neither a pad token, nor {_END_OF_DOCUMENT!r}, nor"
                " an end-of-sequence token; set pad_token in its tokenizer_config.json"
            )
        tokenizer.pad_token = pad
        if given not in (None, pad):
            warnings.warn(
                f"padding is {pad!r}, not {given!r} as the tokenizer has it, which is in texts too",
                stacklevel=2,
            )
    return tokenizer


def pads_texts(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Says whether what pads also stands in texts: it ends them, or is what is unknown.

    Who finds the end of a text by the pad token, as classifiers of `transformers` on decoders do,
    then finds it too early.
    """
    return tokenizer.pad_token_id in _ids_inside(tokenizer)


def _ids_inside(tokenizer):
    return set(tokenizer(_UNHEARD_OF)["input_ids"])


def _could_pad(tokenizer):
    # From the usual to what is there at all.
    special = [str(t) for _, t in sorted(tokenizer.added_tokens_decoder.items()) if t.special]
    usual = (_END_OF_DOCUMENT, tokenizer.eos_token, *_PAD_TOKENS, tokenizer.unk_token)
    return [token for token in (*usual, *special) if token is not None]


def quiet_transformers() -> Any:
    """Imports transformers without its advice to install PyTorch, which nothing here needs."""
    name = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        import transformers
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
    return transformers


def _reader(folder):
    # AutoTokenizer, or the class that it would choose: it takes torch along, where that is
    # installed, and every model's configuration, seconds before a text is read.
    transformers = quiet_transformers()
    found = None
    with contextlib.suppress(OSError, ValueError, AttributeError, LookupError):
        about = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
        kind = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["type"]
        name = about["tokenizer_class"].removesuffix("Fast")
        if "auto_map" not in about and name in _GENERIC:
            found = transformers.PreTrainedTokenizerFast
        # Other kinds' classes are sometimes replaced by what a model is known to need.
        elif "auto_map" not in about and kind == "WordPiece":
            found = getattr(transformers, name)
    if found is not None and (folder / "config.json").exists():
        # There the model's own class counts, too.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            model = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
            if found.__module__.startswith(f"transformers.models.{model}."):
                return found
        found = None
    return found or transformers.AutoTokenizer


def _check_files(folder):
    # The library reads each as a whole, whatever its length. Links are a hub cache's way.
    for path in sorted(folder.iterdir()):
        about, vocabulary = _ABOUT.fullmatch(path.name), _VOCABULARY.match(path.name)
        if not (about or vocabulary) or path.is_dir() or not path.exists():
            continue
        if not path.is_file():
            raise ValueError(f"{path} is no regular file")
        most = _MAX_ABOUT if about else _MAX_VOCABULARY
        if path.stat().st_size > most:
            raise ValueError(f"{path} has more than {most:,} bytes, too many for a tokenizer's")
        if path.name == "tokenizer_config.json":
            _check_names_no_file(path)


def _check_names_no_file(path):
    # These are values, which the library would take for the name of a file and open.
    try:
        about = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return  # the library says what is wrong with it
    for key in ("vocab", "merges", "init_inputs") if isinstance(about, dict) else ():
        found = about.get(key)
        inside = found if isinstance(found, list) and key == "init_inputs" else [found]
        if any(isinstance(value, str) for value in inside):
            raise ValueError(f"{path}: {key} names a file, which a tokenizer is not read from")


def _check_growth(tokenizer, name):
    # A few replacements of a letter by ten, one after the other, make gigabytes of a line.
    inner = getattr(tokenizer, "backend_tokenizer", None)
    growth = 1.0
    for part in (inner.normalizer, inner.pre_tokenizer) if inner else ():
        if part is not None:
            growth *= _growth(json.loads(part.__getstate__()))
    if growth > _MOST_GROWTH:
        raise ValueError(
            f"the tokenizer of {name!r} replaces what texts hold by up to {growth:,.0f} times as"
            f" much, and no model's by more than {_MOST_GROWTH}"
        )


def _growth(part):
    """Returns how many times longer a text can be after a step, as tokenizer.json writes it."""
    if isinstance(part, list):
        return math.prod(map(_growth, part))
    if not isinstance(part, dict):
        return 1.0
    if part.get("type") == "Prepend":
        return 1.0 + len(part["prepend"])
    if part.get("type") == "Precompiled":
        # A trie behind its size, then what it replaces characters by, each with a 0 behind it.
        packed = base64.b64decode(part["precompiled_charsmap"])
        replaced = packed[4 + int.from_bytes(packed[:4], "little") :]
        return 1.0 + max(map(len, replaced.split(b"\0")))
    if part.get("type") == "Replace":
        # What a regular expression finds may be nothing, between any two letters.
        found = part["pattern"].get("String", "")
        content = len(part["content"])
        return max(1.0, content / len(found)) if found else 1.0 + content
    return math.prod(map(_growth, part.values()))


def normalize_tweet(text: str) -> str:
    """Replaces users by `@user` and links by `http`, as cardiffnlp's Twitter models expect.

    Args:
        text: a tweet.

    Returns:
        The tweet in which each word that starts with @ (and has more than that) is `@user`,
        and each word that starts with http is `http`.
    """
    return _LINK.sub("http", _USER.sub("@user", text))


@_panics_told()
def encode(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int = 512,
    normalize: Callable[[str], str] | None = None,
    origin: Sequence[tuple[str, int]] | None = None,
    *,
    allow_wordless: bool = False,
) -> Encoded:
    """Turns texts into token ids, special tokens included.

    A text has no token where nothing in it can be read (`cells.is_blank`), or where the tokenizer
    drops all of it, as an uncased BERT's does what is no character.

    Args:
        tokenizer: the backbone's tokenizer.
        texts: N strings.
        max_length: most tokens a text, special tokens included; a longer text loses its
            end but keeps its special tokens.
        normalize: applied to each text first, for instance `normalize_tweet`.
        origin: N pairs (file, row number), for a message; None where texts have none.
        allow_wordless: whether a text may have no token; it is marked then.

    Returns:
        N ragged rows of ids, and of each whether it was cut and what it lacks.

    Raises:
        ValueError: `max_length` leaves no room for a token of the text.
        DataError: a text has no token, and that is not allowed.
    """
    least = tokenizer.num_special_tokens_to_add() + 1
    if max_length < least:
        raise ValueError(f"max_length is at least {least} for this tokenizer, got {max_length}")
    parts: list[TokenRows] = []
    truncated = np.zeros(len(texts), bool)
    wordless = np.zeros(len(texts), bool)
    for start in range(0, len(texts), _CHUNK):
        chunk = list(texts[start : start + _CHUNK])
        begun = [_beginning(text, _PER_TOKEN * max_length, tokenizer) for text in chunk]
        given = begun.copy() if normalize is None else [normalize(text) for text in begun]
        # Without truncation first: a tokenizer asked to truncate does not say which it has cut.
        rows = tokenizer(given, truncation=False, padding=False, verbose=False)["input_ids"]
        for i, text in enumerate(chunk):
            if len(begun[i]) < len(text):
                where = origin[start + i] if origin else ("texts", start + i)
                given[i], rows[i] = _enough(tokenizer, text, max_length, normalize, where)
        chunk = given
        long = [i for i, row in enumerate(rows) if len(row) > max_length]
        if long:
            cut = tokenizer(
                [chunk[i] for i in long], truncation=True, max_length=max_length, padding=False
            )["input_ids"]
            for i, row in zip(long, cut, strict=True):
                rows[i] = row
        truncated[[start + i for i in long]] = True
        for i, row in enumerate(rows):
            if len(row) < least or cells.is_blank(chunk[i]):
                if not allow_wordless:
                    file, number = origin[start + i] if origin else ("texts", start + i)
                    raise DataError(f"{file}, row {number}: {no_token(chunk[i])}; remove the row")
                wordless[start + i] = True
        parts.append(TokenRows.of(rows))
    ids = TokenRows.joined(parts)
    return Encoded(ids, truncated, wordless, count_unknown(tokenizer, ids))


def count_unknown(tokenizer: PreTrainedTokenizerBase, ids: Sequence[np.ndarray]) -> np.ndarray:
    """Counts the tokens of N texts that stand for what the vocabulary lacks.

    Args:
        tokenizer: that gave the ids.
        ids: N arrays of token ids.

    Returns:
        (N,) int64; zeros where the tokenizer knows every byte.
    """
    return TokenRows.of(ids).counts(_unknown_id(tokenizer))


def no_token(text: str) -> str:
    """Says of a text that it has no token, in one line."""
    return f"the text {quoted(text)} has no token that this tokenizer knows"


def _unknown_id(tokenizer):
    # Some have the end of a text for it, since to them no byte is unknown.
    unknown = tokenizer.unk_token_id
    others = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id)
    return -1 if unknown is None or unknown in others else unknown


def _beginning(text, count, tokenizer):
    """Returns at least `count` characters of a text, or all of it, up to white space.

    Tokenizers look at words one by one, so a text that ends between two has the tokens that it
    has within a longer one. One that is cut at its beginning is begun at its end.
    """
    if len(text) <= count:
        return text
    if tokenizer.truncation_side == "left":
        places = _SPACE.finditer(text, max(0, len(text) - 2 * count), len(text) - count)
        return text[max((place.start() for place in places), default=len(text) - count) :]
    found = _SPACE.search(text, count, 2 * count)
    return text[: count if found is None else found.start()]


def _enough(tokenizer, text, max_length, normalize, where):
    """Returns (a part of a long text, its tokens) that is cut to what all of it would be.

    It has twice as many tokens as are kept, so that what a cut within a word changes, where there
    is no white space, lies far behind them; or it is all of the text.
    """
    count = _PER_TOKEN * max_length
    while True:
        part = _beginning(text, count, tokenizer)
        given = part if normalize is None else normalize(part)
        row = tokenizer([given], truncation=False, padding=False, verbose=False)["input_ids"][0]
        if len(part) == len(text) or len(row) > 2 * max_length:
            return given, row
        if count >= _MOST_CHARACTERS:
            file, number = where
            raise DataError(
                f"{file}, row {number}: {len(row)} tokens in the first {len(part):,} of "
                f"{len(text):,} characters, of which a text has more; shorten or remove the row"
            )
        count *= 4
