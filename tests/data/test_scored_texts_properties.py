"""Reading any table gives it back, and no damage to a file is more than a DataError."""

import csv
import io
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from dwa_jax.data import DataError, cells, read

REPRODUCIBLE = settings(max_examples=60, deadline=None, derandomize=True, database=None)

TEXTS = st.text(min_size=1, max_size=30).filter(lambda t: not cells.is_blank(t) and "\0" not in t)
SCORES = st.none() | st.floats(-1, 1)
CATEGORIES = st.none() | st.integers(0, 2**31 - 1)
TABLES = st.lists(
    st.tuples(TEXTS, SCORES, CATEGORIES).filter(lambda row: row[1:] != (None, None)),
    min_size=1,
    max_size=8,
)


@REPRODUCIBLE
@given(table=TABLES)
def test_all_formats_give_back_what_was_written(tmp_path_factory, table):
    folder = tmp_path_factory.mktemp("table")
    texts, scores, categories = zip(*table, strict=True)
    buffer, first_lines = io.StringIO(newline=""), []
    writer = csv.writer(buffer)
    writer.writerow(["text", "score", "label"])
    for row in table:
        first_lines.append(len(re.split("\r\n|\r|\n", buffer.getvalue())))
        writer.writerow(["" if cell is None else cell for cell in row])
    (folder / "a.csv").write_bytes(buffer.getvalue().encode())
    lines = [dict(zip(("text", "score", "label"), row, strict=True)) for row in table]
    (folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    columns = {
        "text": pa.array(texts),
        "score": pa.array(scores, pa.float64()),
        "label": pa.array(categories, pa.int64()),
    }
    pq.write_table(pa.table(columns), folder / "a.parquet")

    in_order = list(range(1, len(table) + 1))
    for name, numbers in (("a.csv", first_lines), ("a.jsonl", in_order), ("a.parquet", in_order)):
        rows, skipped = read(folder / name, category_column="label")
        assert rows.texts == list(texts)
        np.testing.assert_array_equal(rows.scores, np.array(scores, dtype=float))
        assert rows.categories.tolist() == [-1 if c is None else c for c in categories]
        assert [row for _, row in rows.origin] == numbers
        assert skipped == []


def only_data_errors(path):
    for on_bad_row in ("error", "skip"):
        try:
            rows, _ = read(path, category_column="label", on_bad_row=on_bad_row)
        except DataError as error:
            assert "\n" not in str(error)
        else:
            assert len(rows) > 0
            assert np.all(np.isnan(rows.scores) | (np.abs(rows.scores) <= 1))
            assert np.all(rows.categories >= -1)


PIECES = st.sampled_from(
    [b"text", b"score", b"label", b",", b'"', b"\n", b"\r", b"0.5", b"nan", b"\xff", b"\0", b"{"]
    + [b"}", b":", b"[", b"null", b"\xef\xbb\xbf", b"\\u", b"1e999", b" "]
)
CSV_HEAD, JSON_HEAD = b"text,score,label\n", b'{"text": "a", "score": 0, "label": 1}\n'


@REPRODUCIBLE
@given(junk=st.binary(max_size=60) | st.lists(PIECES, max_size=20).map(b"".join))
def test_no_content_of_a_text_file_raises_anything_else(tmp_path_factory, junk):
    folder = tmp_path_factory.mktemp("junk")
    for name, head in (("a.csv", CSV_HEAD), ("a.jsonl", JSON_HEAD), ("a.parquet", b"PAR1")):
        for content in (junk, head + junk, head + junk + b"\n" + head):
            (folder / name).write_bytes(content)
            only_data_errors(folder / name)


@REPRODUCIBLE
@given(position=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), cut=st.booleans())
def test_no_damage_to_a_parquet_file_raises_anything_else(tmp_path_factory, position, byte, cut):
    path = tmp_path_factory.mktemp("damaged") / "a.parquet"
    table = pa.table({"text": ["a", "b", "é"], "score": [0.5, None, 1.0], "label": [0, 1, None]})
    pq.write_table(table, path)
    content = bytearray(path.read_bytes())
    place = int(position * len(content))
    content[place] = byte
    path.write_bytes(content[:place] if cut else content)
    only_data_errors(path)
