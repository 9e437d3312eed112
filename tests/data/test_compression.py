"""Compressed files hold what their plain ones do, or one line names them."""

import bz2
import contextlib
import gzip
import lzma

import pyarrow as pa
import pytest

from dwa_jax.data import DataError, compression, read

ROWS = [("Euro gains, Dollar slips", 0.5), ("two\nlines €", -1.0), ("x", 0.0)]
CSV = 'text,score\n"Euro gains, Dollar slips",0.5\n"two\nlines €",-1\nx,0\n'.encode()


def compress(content, suffix):
    if suffix == ".zst":
        return pa.compress(content, "zstd", asbytes=True)
    return {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix](content)


def message(path, **options):
    with pytest.raises(DataError) as caught:
        read(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", compression.SUFFIXES)
def test_a_compressed_file_is_read_as_its_plain_one(tmp_path, suffix):
    path = tmp_path / f"a.csv{suffix.upper()}"
    path.write_bytes(compress(b"\xef\xbb\xbf" + CSV, suffix))
    rows, _ = read(path)
    assert list(zip(rows.texts, rows.scores, strict=True)) == ROWS
    assert [row for _, row in rows.origin] == [2, 3, 5]
    path = tmp_path / f"a.jsonl{suffix}"
    lines = b'{"text": "a", "score": 1}\n', b'{"text": "b", "score": 2}\n'
    # Several compressed files, one behind another, are one.
    path.write_bytes(b"".join(compress(line, suffix) for line in lines))
    rows, bad = read(path, on_bad_row="skip")
    assert rows.texts == ["a"] and bad[0].row == 2 and bad[0].file == str(path)


@pytest.mark.parametrize("suffix", compression.SUFFIXES)
def test_a_file_cut_short_or_damaged_is_named_and_no_part_of_it_taken(tmp_path, suffix):
    path = tmp_path / f"a.csv{suffix}"
    whole = compress(CSV + b"".join(b"text %d,0.%d\n" % (i, i) for i in range(5000)), suffix)
    for content in (whole[:-1], whole[: len(whole) // 2], whole[:3], CSV):
        path.write_bytes(content)
        for on_bad_row in ("error", "skip"):
            found = message(path, on_bad_row=on_bad_row)
            assert found.startswith(f"{path}: cannot be read: not a whole {suffix} file: ")
    path.write_bytes(b"")
    assert message(path) == f"{path}: the file is empty"
    path.write_bytes(compress(b"", suffix))
    assert message(path) == f"{path}: holds no rows"


@pytest.mark.parametrize("suffix", compression.SUFFIXES)
def test_a_small_file_does_not_fill_the_memory(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(compression, "_ALWAYS_ALLOWED", 100_000)
    monkeypatch.setattr(compression, "_MOST_RATIO", 50)
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(compress(b"text,score\n" + b"a" * 10_000_000, suffix))
    assert path.stat().st_size < 12_000
    assert message(path).startswith(f"{path}: cannot be read: expands to more than 50 times")
    # As much as a file of its size may: the same row, and no more of it.
    path.write_bytes(compress(b"text,score\n" + b"a" * 90_000 + b",1\n", suffix))
    assert len(read(path)[0].texts[0]) == 90_000


def test_parquet_and_unknown_types_are_refused_by_name(tmp_path):
    (tmp_path / "a.parquet.gz").write_bytes(b"x")
    assert message(tmp_path / "a.parquet.gz").endswith(
        "a.parquet.gz: Parquet is compressed inside; decompress the file itself first"
    )
    (tmp_path / "a.doc.gz").write_bytes(b"x")
    assert "unknown file type '.doc.gz'; known: .csv, .tsv" in message(tmp_path / "a.doc.gz")
    (tmp_path / "gz").write_bytes(b"x")
    assert "unknown file type ''" in message(tmp_path / "gz")


@pytest.mark.parametrize("suffix", ["", *compression.SUFFIXES])
def test_what_is_written_is_read_back_and_is_the_same_under_every_name(tmp_path, suffix):
    contents = []
    for name in ("a", "other"):
        path = tmp_path / f"{name}{suffix}"
        with contextlib.ExitStack() as files:
            stream = compression.create(path, suffix, files)
            for line in CSV.splitlines(keepends=True):
                stream.write(line)
        with path.open("rb") as raw:
            assert compression.expand(raw, suffix).read() == CSV
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
