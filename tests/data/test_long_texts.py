"""A text of megabytes costs what its beginning costs, and has the tokens that all of it has."""

import random
import resource

import numpy as np
import pytest

from dwa_jax import data
from dwa_jax.data import long_texts as splitter

pytestmark = pytest.mark.slow

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")
WORDS = [
    "the",
    "EUR/USD",
    "jumps",
    "after",
    "ECB",
    "é",
    "名前",
    "...",
    "@user",
    "http://x.y/z",
    "a" * 90,
]
SPACES = [" ", " ", "  ", "\n", "\t", "\u3000", "\u00a0 "]


def word_piece():
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])}
    for piece in ["the", "jump", "##s", "after", "e", "##c", "##b", ".", "@", "user", "/", ":"]:
        vocabulary[piece] = len(vocabulary)
    return transformers.BertTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(
            tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]")
        ),
        **{f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask")},
    )


def byte_level():
    return data.headlines.tokenizer(["the EUR/USD jumps after ECB", "pound slips"], 300)


@pytest.fixture(scope="module", params=[byte_level, word_piece])
def tokenizer(request):
    made = request.param()
    if request.param is word_piece:
        made.backend_tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
        made.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return made


def whole(tokenizer, texts, max_length):
    """What the tokenizer itself makes of all of a text."""
    return tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_tokens_are_those_of_the_whole_text(tokenizer, side):
    draw = random.Random(3)
    tokenizer.truncation_side = side
    try:
        for max_length in (3, 8, 64):
            texts = []
            for _ in range(20):
                count = draw.choice([1, 5, 30, 400, 3000])
                texts.append(
                    "".join(draw.choice(WORDS) + draw.choice(SPACES) for _ in range(count))
                )
            found = data.encode(tokenizer, texts, max_length)
            expected = whole(tokenizer, texts, max_length)
            assert all(np.array_equal(a, b) for a, b in zip(found.ids, expected, strict=True))
            full = tokenizer(texts, verbose=False)["input_ids"]
            assert found.num_truncated == sum(len(row) > max_length for row in full) > 0
    finally:
        tokenizer.truncation_side = "right"


def test_without_white_space_too(tokenizer):
    texts = ["ab" * 40_000, "名" * 40_000, ".-" * 40_000, "a" * 99 + " " * 200_000 + "b"]
    found = data.encode(tokenizer, texts, 16)
    expected = whole(tokenizer, texts, 16)
    assert all(np.array_equal(a, b) for a, b in zip(found.ids, expected, strict=True))


def test_tweets_are_cut_before_users_are_replaced(tokenizer):
    texts = ["@somebody http://a.b/c jumps " * 5000]
    found = data.encode(tokenizer, texts, 16, data.normalize_tweet)
    expected = whole(tokenizer, [data.normalize_tweet(texts[0])], 16)
    assert np.array_equal(found.ids[0], expected[0]) and found.num_truncated == 1


def test_fifty_megabytes_take_no_memory(tokenizer):
    text = "EUR/USD jumps after ECB " * 2_100_000
    assert len(text) > 50e6
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = data.encode(tokenizer, [text], 64)
    assert found.num_truncated == 1 and len(found.ids[0]) == 64
    # KiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_what_is_no_text_is_a_bad_row():
    blank = word_piece()
    blank.backend_tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    blank.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    with pytest.raises(data.DataError, match=r"tweets\.csv, row 7: 3 tokens in the first .* of"):
        data.encode(blank, ["a" + " " * 20_000_000 + "b"], 64, origin=[("tweets.csv", 7)])


def test_pieces_of_a_text_are_the_text(monkeypatch):
    monkeypatch.setattr(splitter, "_PIECE", 7)
    draw = random.Random(5)
    for _ in range(100):
        text = "".join(draw.choice(WORDS) + draw.choice(SPACES) for _ in range(draw.randrange(20)))
        parts = list(splitter.pieces(text))
        assert "".join(parts) == text and all(parts[1:])
        # A word that is cut, for it is longer than two pieces, is the exception.
        words = [word for part in parts for word in part.split()]
        assert words == text.split() or any(len(word) > 6 for word in text.split())
        short = " ".join(word for word in text.split() if len(word) < 6)
        whole_text = data.headlines.tokenizer([short], 300).get_vocab()
        normal = data.normalize_text(short)
        monkeypatch.setattr(splitter, "_PIECE", 10**6)
        assert data.normalize_text(short) == normal
        assert data.headlines.tokenizer([short], 300).get_vocab() == whole_text
        monkeypatch.setattr(splitter, "_PIECE", 7)
