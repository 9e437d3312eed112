"""Token ids that are kept from one process to the next."""

import os
import time

import numpy as np
import pytest

from dwa_jax import data
from dwa_jax.data import headlines
from dwa_jax.finetune import disk_cache, token_cache

TEXTS = ["EUR/USD jumps after ECB", "Pound slips", "the dollar falls", "yen"] * 3
WHERE = [("a.csv", row) for row in range(len(TEXTS))]


@pytest.fixture(scope="module")
def tokenizer():
    return headlines.tokenizer(TEXTS, vocab_size=300)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_cache, "LEAST_TEXTS", 1)
    folder = disk_cache.enable_disk_cache(str(tmp_path / "cache"))
    yield folder
    assert disk_cache.enable_disk_cache("off") is None


@pytest.fixture
def calls(monkeypatch):
    found, make = [], data.encode

    def encode(*given, **more):
        found.append(len(given[1]))
        return make(*given, **more)

    monkeypatch.setattr(data, "encode", encode)
    return found


def encode(tokenizer, texts=TEXTS, limit=8, normalize=None, skip=False):
    return token_cache.encode_once(tokenizer, texts, limit, normalize, WHERE, allow_wordless=skip)


def same(one, other):
    assert [row.tolist() for row in one.ids] == [row.tolist() for row in other.ids]
    for left, right in zip(one[1:], other[1:], strict=True):
        assert left.dtype == right.dtype and left.tolist() == right.tolist()


def test_the_second_time_nothing_is_tokenized(kept, calls, tokenizer):
    plain = data.encode(tokenizer, TEXTS, 8)
    calls.clear()
    for _ in range(3):
        found = encode(tokenizer)
        same(found, plain)
    assert calls == [len(TEXTS)] and isinstance(found.ids.tokens, np.memmap)
    batches = {
        name: data.Batches(
            one.ids,
            np.zeros(len(TEXTS)),
            np.zeros(len(TEXTS), int),
            batch_size=5,
            buckets=[8],
            seed=0,
            pad_id=0,
        )
        for name, one in (("kept", found), ("plain", plain))
    }
    for one, other in zip(*(made.epoch(1) for made in batches.values()), strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)
        assert type(one["input_ids"]) is np.ndarray


def test_whatever_settles_the_ids_tells_them_apart(kept, calls, tokenizer):
    encode(tokenizer)
    encode(tokenizer, limit=4)
    encode(tokenizer, TEXTS[1:])
    encode(tokenizer, normalize=data.normalize_tweet)
    encode(tokenizer, skip=True)
    encode(headlines.tokenizer(TEXTS, vocab_size=270))
    # The same characters, cut elsewhere.
    encode(tokenizer, ["a b", "c"])
    encode(tokenizer, ["a", "b c"])
    assert len(calls) == 8
    encode(tokenizer, limit=4)
    assert len(calls) == 8


def test_what_is_damaged_is_made_again(kept, calls, tokenizer):
    plain = encode(tokenizer)
    (folder,) = (path for path in kept.iterdir() if path.is_dir())

    def cut(file):
        file.write_bytes(file.read_bytes()[:-3])

    def beyond(file):
        np.save(file, np.load(file) + 1)

    for harm, name in ((cut, "tokens"), (cut, "unknown"), (beyond, "starts")):
        harm(folder / f"{name}.npy")
        calls.clear()
        same(encode(tokenizer), plain)
        same(encode(tokenizer), plain)
        assert calls == [len(TEXTS)]
    (folder / "truncated.npy").unlink()
    same(encode(tokenizer), plain)


def test_an_error_is_the_same_and_leaves_nothing(kept, tokenizer):
    with pytest.raises(data.DataError, match=r"a\.csv, row 1: .*no token"):
        encode(tokenizer, ["yen", " "])
    assert not list(kept.iterdir())


def test_the_oldest_goes_first(kept, tokenizer, monkeypatch):
    encode(tokenizer)
    first = {path for path in kept.iterdir() if path.is_dir()}
    old = time.time() - 1000
    for path in first:
        os.utime(path, (old, old))
    monkeypatch.setattr(disk_cache, "MOST_BYTES", 1)
    encode(tokenizer, limit=4)
    left = {path for path in kept.iterdir() if path.is_dir()}
    assert len(left) == 1 and left != first


def test_few_texts_are_not_kept_nor_any_before_it_is_enabled(kept, tokenizer, monkeypatch):
    monkeypatch.setattr(disk_cache, "LEAST_TEXTS", 13)
    encode(tokenizer)
    disk_cache.enable_disk_cache("off")
    monkeypatch.setattr(disk_cache, "LEAST_TEXTS", 1)
    encode(tokenizer)
    assert not list(kept.iterdir())
    # Where there is no folder, texts are tokenized.
    (kept.parent / "file").write_text("")
    assert disk_cache.enable_disk_cache(str(kept.parent / "file")) is None
    assert len(encode(tokenizer).ids) == len(TEXTS)
