"""Rows that are kept from one process to the next."""

import os

import numpy as np
import pytest

from dwa_jax import data
from dwa_jax.finetune import corpus, disk_cache, row_cache
from dwa_jax.finetune.config import Config

HEADER = "text,score,when,who,part"
LINES = [
    f"text {i % 70} é😀,{i % 21 / 10 - 1},2024-01-{1 + i % 28:02},{f'g{i % 9}' * (i % 4 > 0)},train"
    for i in range(90)
]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_cache, "LEAST_TEXTS", 10)
    yield disk_cache.enable_disk_cache(str(tmp_path / "cache"))
    assert disk_cache.enable_disk_cache("off") is None


@pytest.fixture
def calls(monkeypatch):
    found, make = [], data.read

    def read(files, **more):
        found.append(list(files))
        return make(files, **more)

    monkeypatch.setattr(data, "read", read)
    return found


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text("\n".join([HEADER, *LINES]) + "\n", "utf-8")
    return path


def config(file, **keys):
    return Config.of({"train": str(file), "num_classes": 3, **keys})


def same(one, other):
    assert one.rows.keys() == other.rows.keys() and one.notes == other.notes
    assert one.left_out == other.left_out and np.array_equal(one.thresholds, other.thresholds)
    for name, rows in one.rows.items():
        theirs = other.rows[name]
        assert list(rows.texts) == list(theirs.texts) and rows.origin == theirs.origin
        for column in ("scores", "categories", "times"):
            assert np.array_equal(getattr(rows, column), getattr(theirs, column))
        assert rows.groups == theirs.groups and rows.splits == theirs.splits


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"normalize_tweets": True},
        {"group_column": "who"},
        {"time_column": "when"},
        {"max_rows": 60, "stratify": False},
        {"on_bad_row": "skip", "score_range": (-1, 0.9)},
    ],
)
def test_the_second_time_nothing_is_read_and_all_is_the_same(kept, calls, file, keys):
    disk_cache.enable_disk_cache("off")
    plain = corpus.read_corpus(config(file, **keys))
    disk_cache.enable_disk_cache(str(kept.parent))
    calls.clear()
    for _ in range(3):
        found = corpus.read_corpus(config(file, **keys))
        same(found, plain)
        assert isinstance(found.rows["train"].texts, data.KeptTexts)
    assert len(calls) == 1
    # What was given as an array can be read, and not be written.
    assert not found.rows["train"].texts.source.digests.flags.writeable


def test_whatever_settles_the_rows_tells_them_apart(kept, calls, file):
    corpus.read_corpus(config(file))
    corpus.read_corpus(config(file, normalize_tweets=True))
    corpus.read_corpus(config(file, score_range=(-2, 2)))
    file.write_text("\n".join([HEADER, *LINES[1:]]) + "\n", "utf-8")
    corpus.read_corpus(config(file))
    copy = file.with_name("copy.csv")
    copy.write_bytes(file.read_bytes())
    assert corpus.read_corpus(config(copy)).rows["train"].origin[0][0] == str(copy)
    assert len(calls) == 5
    # And of the same rows the seed, which settles their order alone.
    corpus.read_corpus(config(copy, seed=7))
    assert len(calls) == 5


@pytest.mark.parametrize("harm", ["cut", "empty", "other", "gone"])
def test_what_is_damaged_is_made_again(kept, calls, file, harm):
    plain = corpus.read_corpus(config(file))
    (folder,) = (path for path in kept.iterdir() if path.is_dir())
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    # Another file, since this one is mapped still.
    path.unlink()
    if harm != "gone":
        path.write_bytes({"cut": whole[:-9], "empty": b"", "other": b"ARROW1" * 9}[harm])
    calls.clear()
    same(corpus.read_corpus(config(file)), plain)
    same(corpus.read_corpus(config(file)), plain)
    assert len(calls) == 1


def test_a_file_that_changes_while_it_is_read_is_not_kept(kept, file):
    def read(files, **more):
        found = data.read(files, note=more["note"])
        file.write_text(f"{HEADER}\nanother text,0.5,2024-01-01,,train\n", "utf-8")
        return found

    rows, _ = row_cache.read_once(read, [file], {}, None, print)
    assert len(rows) == len(LINES) and not list(kept.iterdir())


def test_few_rows_errors_and_what_is_no_file_are_not_kept(kept, calls, file, monkeypatch):
    monkeypatch.setattr(disk_cache, "LEAST_TEXTS", 100)
    corpus.read_corpus(config(file))
    monkeypatch.setattr(disk_cache, "LEAST_TEXTS", 10)
    pipe = file.with_name("pipe.csv")
    os.mkfifo(pipe)
    assert row_cache._name([pipe], {}, None) is None
    for name in ("hub:nobody/nothing", "no\0name.csv", "\ud800.csv"):
        assert row_cache._name([name], {}, None) is None
    file.write_text("\n".join([HEADER, *LINES, "text,7,,,train"]) + "\n", "utf-8")
    for _ in range(2):
        with pytest.raises(data.DataError, match="row 92"):
            corpus.read_corpus(config(file))
    assert len(calls) == 3 and not list(kept.iterdir())


def test_texts_on_disk_are_a_sequence():
    import pyarrow as pa

    texts = [f"text {i}" for i in range(9000)]
    source = data.KeptSource("a", pa.array(texts, pa.large_string()), np.arange(9000), None)
    found = data.KeptTexts(source)
    assert list(found) == texts and found[-1] == texts[-1] and found[3:7] == texts[3:7]
    part = found.take(np.array([5, 3, 3])).take(np.array([2, 0]))
    assert list(part) == ["text 3", "text 5"] and part.digests.tolist() == [3, 5]
    other = data.KeptTexts(source._replace(name="b"))
    assert len({found.identity, part.identity, other.identity}) == 3
    assert part.identity == found.take(np.array([3, 5])).identity
