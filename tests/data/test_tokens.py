"""Tokens: the backbone's own ids, truncation counted, a pad token by a known rule."""

import json
import warnings

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerFast

from dwa_jax.data import DataError, encode, load_tokenizer, normalize_tweet, pads_texts

WORDS = ["<unk>", "<s>", "</s>", "euro", "gains", "as", "dollar", "slips", "@user", "http"]


def word_tokenizer(extra=(), specials=True, **options):
    """One id a word, `<s> ... </s>` around it unless `specials` is False (as in a decoder)."""
    vocabulary = {word: i for i, word in enumerate([*WORDS, *extra])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if specials:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", **options)


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_encode_adds_special_tokens_and_no_padding():
    encoded = encode(word_tokenizer(), ["euro gains", "dollar", "euro gains as dollar slips"])
    assert [row.tolist() for row in encoded.ids] == [
        [1, 3, 4, 2],
        [1, 6, 2],
        [1, 3, 4, 5, 6, 7, 2],
    ]
    assert all(row.dtype == np.int32 for row in encoded.ids)
    assert encoded.lengths.tolist() == [4, 3, 7]
    assert encoded.num_truncated == 0


def test_truncation_keeps_special_tokens_and_counts_texts_not_tokens():
    texts = ["euro gains as dollar slips", "euro gains as", "euro", "as as as as"]
    encoded = encode(word_tokenizer(), texts, max_length=5)
    assert [row.tolist() for row in encoded.ids] == [
        [1, 3, 4, 5, 2],
        [1, 3, 4, 5, 2],  # exactly five: whole
        [1, 3, 2],
        [1, 5, 5, 5, 2],
    ]
    assert encoded.num_truncated == 2


def test_many_texts_keep_their_order():
    texts = ["euro " * (1 + i % 7) for i in range(10_000)]
    encoded = encode(word_tokenizer(specials=False), texts, max_length=4)
    assert encoded.lengths.tolist() == [min(1 + i % 7, 4) for i in range(10_000)]
    assert encoded.num_truncated == sum(1 + i % 7 > 4 for i in range(10_000))


def test_a_limit_saved_in_the_tokenizer_does_not_hide_truncation(tmp_path):
    # Sentence-transformers' files cut at 128 tokens and pad, by themselves.
    tokenizer = word_tokenizer(pad_token="<unk>")
    tokenizer.backend_tokenizer.enable_truncation(max_length=3)
    tokenizer.backend_tokenizer.enable_padding(length=12)
    tokenizer.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    assert saved["truncation"]["max_length"] == 3 and saved["padding"]
    encoded = encode(load_tokenizer(tmp_path), ["euro gains as", "euro"], max_length=512)
    assert encoded.lengths.tolist() == [5, 3] and encoded.num_truncated == 0


def test_normalize_is_applied_before_tokens():
    encoded = encode(word_tokenizer(), ["@ann euro https://t.co/x"], normalize=normalize_tweet)
    assert encoded.ids[0].tolist() == [1, 8, 3, 9, 2]


def test_encode_refuses_what_has_no_room_or_no_token():
    with pytest.raises(ValueError, match="max_length is at least 3 for this tokenizer, got 2"):
        encode(word_tokenizer(), ["euro"], max_length=2)
    with pytest.raises(DataError, match=r"texts, row 1: the text .  . has no token"):
        encode(word_tokenizer(specials=False), ["euro", "  "])


def test_a_text_without_a_token_of_its_own_is_refused_or_marked():
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.normalizer = (
        normalizers.BertNormalizer()
    )  # drops what is unreadable
    # Nothing to see, no character, and nothing at all; the last is an accent on its own.
    texts = ["euro", "\u200b\u200c", "\ufffd\ufffd", "", "dollar \ufffd", "\u0301"]
    encoded = encode(tokenizer, texts, allow_wordless=True)
    assert encoded.wordless.tolist() == [False, True, True, True, False, True]
    for text in np.array(texts)[encoded.wordless]:
        with pytest.raises(DataError, match=r"texts, row 1: the text .* has no token"):
            encode(tokenizer, ["euro", text])


def test_cut_texts_and_unknown_tokens_are_told_of_each_text():
    encoded = encode(word_tokenizer(), ["euro 🚀 gains 🚀", "euro " * 9, "yen"], max_length=6)
    assert encoded.truncated.tolist() == [False, True, False]
    assert encoded.unknown.tolist() == [2, 0, 1]
    # Where the end of a text stands for what is unknown, as in GPT-2, nothing is.
    tokenizer = word_tokenizer(specials=False, eos_token="<unk>")
    assert encode(tokenizer, ["yen"]).unknown.tolist() == [0]


@pytest.mark.parametrize(
    ("tweet", "expected"),
    [
        ("@ann_b thanks!", "@user thanks!"),
        ("so @ann: see https://t.co/a?b=1 now", "so @user see http now"),
        ("RT @a @b http://x.y", "RT @user @user http"),
        ("mail me@home.org @ 5pm", "mail me@home.org @ 5pm"),
        ("(https://x.y) www.x.y", "(https://x.y) www.x.y"),
        ("line\n@ann\thttps://x.y\nend", "line\n@user\thttp\nend"),
        ("EUR/USD up 5% #fx", "EUR/USD up 5% #fx"),
    ],
)
def test_tweets_lose_users_and_links(tweet, expected):
    assert normalize_tweet(tweet) == expected
    assert normalize_tweet(expected) == expected


# Loading


def word_pieces(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "euro", "gain", "##s", "é", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    return BertTokenizerFast.from_pretrained(tmp_path)


@pytest.mark.parametrize("model", [None, "bert", "roberta"])
@pytest.mark.parametrize("kind", ["words", "pieces"])
def test_the_tokenizer_is_the_one_that_transformers_would_choose(tmp_path, kind, model):
    made = word_tokenizer(pad_token="<unk>") if kind == "words" else word_pieces(tmp_path)
    made.save_pretrained(tmp_path)
    if model:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model}))
    ours, theirs = load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert type(ours) is type(theirs)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    texts = ["euro gains as dollar slips", "Euro GAINS é. E\u0301\tx"]
    assert ours(texts)["input_ids"] == theirs(texts)["input_ids"]


@pytest.mark.parametrize("kind", ["words", "pieces"])
def test_a_runs_tokenizer_takes_no_configuration_of_every_model(tmp_path, kind, monkeypatch):
    made = word_tokenizer(pad_token="<unk>") if kind == "words" else word_pieces(tmp_path)
    made.save_pretrained(tmp_path)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", None)
    assert load_tokenizer(tmp_path)("euro")["input_ids"]


def test_a_pad_token_of_its_own_stays(tmp_path):
    word_tokenizer(["<pad>", "<|endoftext|>"], pad_token="<pad>").save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).pad_token_id == len(WORDS)


def test_endoftext_pads_where_the_vocabulary_has_it_as_in_qwen(tmp_path):
    word_tokenizer(["<|endoftext|>"], eos_token="</s>").save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.pad_token_id == len(WORDS)
    assert tokenizer.eos_token_id == 2


def test_end_of_sequence_pads_otherwise_as_in_llama(tmp_path):
    word_tokenizer(specials=False, eos_token="</s>").save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.pad_token_id == 2
    assert len(tokenizer) == len(WORDS), "a new entry would need a new row of embeddings"


@pytest.mark.parametrize("given", [None, "</s>", "<unk>"])
def test_what_pads_is_in_no_text(tmp_path, given):
    # Its template ends every text with </s>, and many a word is unknown to it.
    tokenizer = word_tokenizer(["<|reserved|>"], eos_token="</s>", pad_token=given)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|reserved|>"]})
    tokenizer.save_pretrained(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = load_tokenizer(tmp_path)
    assert loaded.pad_token == "<|reserved|>" and not pads_texts(loaded)
    told = [str(one.message) for one in caught]
    assert any("which is in texts too" in line for line in told) == (given is not None)


def test_where_there_is_no_other_what_pads_stays_and_is_known(tmp_path):
    word_tokenizer(eos_token="</s>").save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.pad_token == "</s>" and pads_texts(loaded)


def test_a_tokenizer_that_cannot_pad_is_refused(tmp_path):
    word_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has neither a pad token, nor"):
        load_tokenizer(tmp_path)


def test_a_hub_id_without_network_is_one_line_with_the_way_out(offline):
    with pytest.raises(ValueError, match="without network, pass the path") as caught:
        load_tokenizer("owner/no-such-model")
    assert "'owner/no-such-model'" in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"tokenizer\.json") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
    # transformers gives an empty tokenizer here, which would turn every text into nothing.
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(ValueError, match=r"special tokens only.*tokenizer\.json is missing"):
        load_tokenizer(tmp_path)


def test_code_that_comes_with_a_tokenizer_is_never_run(tmp_path):
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    config = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="no tokenizer from"):
        load_tokenizer(tmp_path)
    assert not (tmp_path / "ran").exists()
