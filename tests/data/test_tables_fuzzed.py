"""Whatever a file of any kind holds, and whatever is said of its layout: rows, or one line.

DWA_JAX_FUZZ_CASES=10000 pytest -n0 tests/data/test_tables_fuzzed.py   # cases
"""

import gzip
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwa_jax.data import read, tables
from dwa_jax.data.guess import guess
from dwa_jax.data.rows import BadRow

pytestmark = pytest.mark.slow

FUZZ = settings(
    max_examples=int(os.environ.get("DWA_JAX_FUZZ_CASES", "150")),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
PIECES = st.sampled_from(
    [
        b"text",
        b"score",
        b"label",
        b",",
        b";",
        b"\t",
        b"|",
        b"@",
        b'"',
        b"\n",
        b"\r",
        b"\r\n",
        b"0,5",
    ]
    + [b"0.5", b"50%", b"-1", b"nan", b"positive", b"negative", b"\xff", b"\xe9", b"\0", b"{", b"}"]
    + [b"[", b"]", b":", b"null", b"\xef\xbb\xbf", b"\xff\xfe", b"\\u", b"1e999", b" ", b"\xc3\xa9"]
    + [
        b'{"text": "a", "score": 1}',
        b'{"text": ["a", "b"], "score": {"0": [1]}}',
        b"\x85",
        b"1\n2\n",
    ]
)
JUNK = st.binary(max_size=80) | st.lists(PIECES, max_size=40).map(b"".join)
HEADS = st.sampled_from(
    [b"", b"text,score\na,1\n", b"text;score\na;0,5\n", b"text\tscore\na\t1\n", b"a@positive\n"]
    + [b'[{"text": "a", "score": 1},\n', b'{"text": "a", "score": 1}\n', b"[", b"\xff\xfe"]
)
ENDINGS = st.sampled_from([ending for ending in tables.ENDINGS if ending not in (".parquet",)])
LAYOUTS = st.builds(
    tables.Layout,
    st.sampled_from(["", ",", ";", "\t", "@", "||", " ", "é"]),
    st.sampled_from(["", "utf-8", "utf-16", "cp1252", "latin-1", "utf-32", "shift-jis", "utf-7"]),
    st.sampled_from([(), ("text", "score"), ("score", "text", "n"), ("text",)]),
)
OPTIONS = st.fixed_dictionaries(
    {
        "score_column": st.sampled_from(["score", "label", "score.0.0", None]),
        "decimal_comma": st.booleans(),
        "percent": st.booleans(),
        "labels": st.sampled_from([None, "positive=1,negative=-1"]),
        "on_bad_row": st.sampled_from(["error", "skip"]),
        "group_column": st.sampled_from([None, "n"]),
        "time_column": st.sampled_from([None, "n"]),
    }
)


def one_line(error, path):
    message = str(error)
    assert "\n" not in message and len(message) < 3000


def tried(path, layout, options):
    notes = []
    try:
        rows, _ = read(path, layout=layout, note=notes.append, **options)
    except (ValueError, OSError) as error:
        one_line(error, path)
    else:
        assert len(rows) and all(text.strip() and "\0" not in text for text in rows.texts)
        assert np.all(np.isnan(rows.scores) | (np.abs(rows.scores) <= 1))
    try:
        keys = guess(str(path), {}).keys
        layout = tables.Layout(*(keys.get(k, "") for k in ("delimiter", "encoding")))
        layout._replace(columns=keys.get("columns", ())).check()
    except (ValueError, OSError) as error:
        one_line(error, path)
    # As a table to predict: whole, and written again.
    try:
        reader = tables.open_table(path, tables.Wanted("text", whole=True, chunk_rows=3), layout)
        out = path.with_name("written")
        out.unlink(missing_ok=True)
        writer = tables.TableWriter(out, reader, {"p": float})
        try:
            for chunk in reader.chunks():
                good = [i for i, row in enumerate(chunk.cells) if not isinstance(row, BadRow)]
                writer.write(chunk.keep(good), {"p": [0.5] * len(good)})
            writer.close()
        finally:
            writer.abandon()
    except (ValueError, OSError) as error:
        one_line(error, path)


@FUZZ
@given(HEADS, JUNK, ENDINGS, LAYOUTS, OPTIONS, st.booleans())
def test_any_bytes_under_any_layout_are_rows_or_one_line(
    tmp_path_factory, head, junk, ending, layout, options, packed
):
    path = tmp_path_factory.getbasetemp() / f"fuzzed{ending}{'.gz' * packed}"
    path.write_bytes(gzip.compress(head + junk) if packed else head + junk)
    tried(path, layout, options)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "score", "label", "0"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@FUZZ
@given(st.lists(VALUES, max_size=5), st.sampled_from([None, 0, 2]), st.integers(0, 30), OPTIONS)
def test_any_json_is_rows_or_one_line(tmp_path_factory, values, indent, cut, options):
    path = tmp_path_factory.getbasetemp() / "fuzzed.json"
    text = json.dumps(values, indent=indent)
    path.write_text(text[: len(text) - cut] if cut < 20 else text, "utf-8")
    tried(path, tables.FIND, options)


@FUZZ
@given(
    st.lists(st.tuples(st.lists(st.text(max_size=4)), st.floats() | st.none()), max_size=5),
    OPTIONS,
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=3),
)
def test_any_parquet_is_rows_or_one_line(tmp_path_factory, rows, options, damage):
    path = tmp_path_factory.getbasetemp() / "fuzzed.parquet"
    types = {"text": pa.list_(pa.string()), "score": pa.float64()}
    texts, scores = zip(*rows, strict=True) if rows else ((), ())
    arrays = {"text": pa.array(texts, types["text"]), "score": pa.array(scores, types["score"])}
    pq.write_table(pa.table(arrays), path)
    content = bytearray(path.read_bytes())
    for place, byte in damage:
        content[int(place * len(content))] = byte
    path.write_bytes(content)
    tried(path, tables.FIND, options)
