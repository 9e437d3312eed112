"""Files generated whole, then damaged in known and unknown ways.

Where the damage keeps to a row, that row and no other is left out, and the error names it.
Where it does not, there is still either a table or one line that names the file.

DWA_JAX_FUZZ_CASES=1500 pytest -n0 tests/data/test_scored_texts_fuzzed.py   # cases of each test
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import math
import os
import re
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwa_jax.data import DataError, cells, read, tables

pytestmark = pytest.mark.slow

CASES = int(os.environ.get("DWA_JAX_FUZZ_CASES", "120"))
FUZZ = settings(
    max_examples=CASES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LONGER_THAN_THE_CSV_MODULE_ALLOWS = 200_000


class LongText(str):
    def __repr__(self):
        return f"<{len(self)} characters>"


class LongBytes(bytes):
    def __repr__(self):
        return f"<{len(self)} bytes>"


# Given, so that bytes which are none stay bad rows; found, a file of them may be cp1252.
UTF_8 = tables.Layout(encoding="utf-8", delimiter=",")
LONG = LongBytes(b"x" * LONGER_THAN_THE_CSV_MODULE_ALLOWS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzzed")


# Good rows: (text, score), and how each format may write them

PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
ODD = st.sampled_from(
    ["a,b", 'say "x"', '"', "two\nlines", "tab\there", "a\r\nb", "é€😀", "\ufeffx", "=1+1", "null"]
    + ["NaN", " padded ", "{}", "\u2028", "\x85x", "x\x1f"]
)
HUGE = st.just(LongText("long " * (LONGER_THAN_THE_CSV_MODULE_ALLOWS // 5)))
TEXTS = (PLAIN | ODD).filter(lambda text: not cells.is_blank(text))
SCORES = st.floats(-1, 1) | st.sampled_from([-1, 0, 1])
GOOD = st.tuples(TEXTS, SCORES)

# Bad cells, all of which leave the record itself readable

WRITTEN_SCORES = st.sampled_from(
    ["nan", "NaN", "inf", "-Infinity", "1e999", "1.0001", "-2", "abc", "0,5", "1_0", "true", "[1]"]
    + ["0.5.1", "0x1", "½", "--1", "1e", "N/A", "null", "9" * 500]
)
BLANK = st.sampled_from(["", " ", "\t", "\u3000"])


def quoted(cells):
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue().removesuffix("\r\n").encode()


RAW_CSV = st.sampled_from(
    [b"x", b"x,0,0", b"x,0,", b'"x"y,0', b'"x" ,0', b"a\0b,0", b"caf\xe9,0", b"\x93hi\x94,0"]
    + ["né,0".encode("utf-16-le"), b"\xc3,0", b"\xed\xa0\x80,0", b"\xff\xfe,0", b"\xc0\xaf,0"]
    + [b",,,,", LONG]
)
BAD_CSV = (
    RAW_CSV
    | st.tuples(TEXTS, WRITTEN_SCORES).map(quoted)
    | st.tuples(BLANK, SCORES).map(quoted)
    | st.tuples(TEXTS, BLANK).map(quoted)
)

RAW_JSON = st.sampled_from(
    [b"null", b"1", b'"x"', b"[]", b"true", b'{"text": "x", "score": 0', b"{'text': 'x'}", b"{}"]
    + [b'{"text": "x", "score": NaN}', b'{"text": "x", "score": -Infinity}', b"}", b'{"text": "x"}']
    + [b'{"text": "x", "score": 0} {"text": "y", "score": 0}', b'{"text": "x", "score": 1e999}']
    + [b'{"text": "x\0", "score": 0}', b'{"text": "caf\xe9", "score": 0}', b'{"score": 0}']
    + [b'{"text": "\\ud800", "score": 0}', b'{"text": "\\u0000", "score": 0}', b"\xff\xfe{"]
    + [b'{"text": "x", "text": "y", "score": 0}', b'{"text": "x", "score": 0, "score": 1}']
    + [b'{"text": "x", "score": ' + b"9" * 5000 + b"}", b"[" * 5000, b"x,0.5"]
    + [b'{"text": "x", "score": ' + b"[" * 400 + b"]" * 400 + b"}"]
)
NO_TEXT = st.none() | st.booleans() | st.integers() | st.just([]) | st.just({"a": "b"}) | BLANK
NO_SCORE = st.booleans() | st.just([0.5]) | st.just({}) | st.just(10**400) | WRITTEN_SCORES
BAD_JSON = (
    RAW_JSON
    | st.tuples(NO_TEXT, SCORES).map(lambda row: as_json(*row))
    | st.tuples(TEXTS, NO_SCORE | st.none()).map(lambda row: as_json(*row))
)


def as_json(text, score):
    return json.dumps({"text": text, "score": score}).encode()


def tables(bad):
    """Rows in order: (text, score) where good, bytes where bad."""
    return st.lists(GOOD | st.tuples(HUGE, SCORES) | bad, min_size=1, max_size=7)


def only_these_are_left_out(path, rows, numbers):
    """rows: (text, score), or anything else for a bad one; numbers: the row each is known by."""
    good = [(row, n) for row, n in zip(rows, numbers, strict=True) if isinstance(row, tuple)]
    bad = [n for row, n in zip(rows, numbers, strict=True) if not isinstance(row, tuple)]
    if good:
        found, left_out = read(path, on_bad_row="skip", layout=UTF_8)
        assert found.texts == [text for (text, _), _ in good]
        assert found.scores.tolist() == [score for (_, score), _ in good]
        assert found.origin == [(str(path), n) for _, n in good]
        assert [(bad_row.file, bad_row.row) for bad_row in left_out] == [
            (str(path), n) for n in bad
        ]
        assert len(found) + len(left_out) == len(rows)
        assert all(1 < len(row.problem) < 250 and "\n" not in row.problem for row in left_out)
    if bad:
        with pytest.raises(DataError) as error:
            read(path, layout=UTF_8)
        assert str(error.value).startswith(f"{path}, row {bad[0]}: ")
        assert "\n" not in str(error.value)
    else:
        assert read(path, layout=UTF_8)[0].texts == found.texts


LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@FUZZ
@given(
    rows=tables(BAD_CSV), end=LINE_ENDS, mark=st.booleans(), last=st.booleans(), blank=st.booleans()
)
def test_bad_rows_of_csv_are_left_out_and_no_others(folder, rows, end, mark, last, blank):
    content, starts = BYTE_ORDER_MARK * mark + b"text,score" + end * (1 + blank), []
    for row in rows:
        starts.append(1 + len(re.findall(b"\r\n|\r|\n", content)))
        content += (quoted(row) if isinstance(row, tuple) else row) + end
    path = folder / "a.csv"
    path.write_bytes(content if last else content.removesuffix(end))
    only_these_are_left_out(path, rows, starts)


@FUZZ
@given(rows=tables(BAD_JSON), end=LINE_ENDS, mark=st.booleans(), blank=st.booleans())
def test_bad_rows_of_json_lines_are_left_out_and_no_others(folder, rows, end, mark, blank):
    content = [BYTE_ORDER_MARK * mark + b'{"text": "first", "score": 0}', *[b" "] * blank]
    content += [as_json(*row) if isinstance(row, tuple) else row for row in rows]
    path = folder / "a.jsonl"
    path.write_bytes(end.join(content))
    numbers = [1, *range(2 + blank, 2 + blank + len(rows))]
    only_these_are_left_out(path, [("first", 0), *rows], numbers)


STRING_TYPES = st.sampled_from(
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
# type of the score column -> good cells exactly held by it, bad cells
SCORE_TYPES = {
    "float64": (pa.float64(), [0.25, -1.0, 1.0], [math.nan, math.inf, -1.5]),
    "float32": (pa.float32(), [0.5, -0.125], [-math.inf, 2.0, math.nan]),
    "float16": (pa.float16(), [np.float16(0.5)], [np.float16(3)]),
    "int8": (pa.int8(), [-1, 0, 1], [2, -128, 127]),
    "uint64": (pa.uint64(), [0, 1], [2**64 - 1]),
    "decimal": (pa.decimal128(5, 2), [Decimal("0.25")], [Decimal("1.01"), Decimal("-999.99")]),
    "string": (pa.string(), ["0.5", " -1 "], ["x", "nan", "1e999", "0,5"]),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), ["0.5", "1"], ["no", "5"]),
    "list": (pa.list_(pa.float32()), [], [[0.5], []]),
    "struct": (pa.struct({"a": pa.float32()}), [], [{"a": 0.5}]),
    "bool": (pa.bool_(), [], [True, False]),
    "timestamp": (pa.timestamp("ns"), [], [1, 10**18]),
    "binary": (pa.binary(), [], [b"0.5", b"\xff"]),
    "null": (pa.null(), [], []),
}


@FUZZ
@given(data=st.data(), kind=st.sampled_from(sorted(SCORE_TYPES)), text_type=STRING_TYPES)
def test_bad_rows_of_parquet_are_left_out_and_no_others(folder, data, kind, text_type):
    score_type, good, bad = SCORE_TYPES[kind]
    rows, texts, scores = [], [], []
    for _ in range(data.draw(st.integers(1, 7))):
        fine = bool(good) and data.draw(st.booleans())
        no_text = fine and data.draw(st.integers(0, 3)) == 0
        texts.append(data.draw(st.none() | BLANK if no_text else TEXTS))
        scores.append(data.draw(st.sampled_from(good if fine else [*bad, None])))
        rows.append((texts[-1], float(scores[-1])) if fine and not no_text else None)
    table = {"text": pa.array(texts, text_type), "score": pa.array(scores, score_type)}
    path = folder / "a.parquet"
    pq.write_table(
        pa.table(table),
        path,
        row_group_size=data.draw(st.integers(1, 4)),
        compression=data.draw(st.sampled_from(["none", "snappy", "zstd", "gzip"])),
        use_dictionary=data.draw(st.booleans()),
    )
    only_these_are_left_out(path, rows, range(1, len(rows) + 1))


@FUZZ
@given(rows=st.lists(st.tuples(st.binary(min_size=1, max_size=6), SCORES), min_size=1, max_size=6))
def test_texts_of_parquet_that_are_not_utf_8_are_left_out(folder, rows):
    texts = pa.array([text for text, _ in rows], pa.binary()).view(pa.string())
    path = folder / "b.parquet"
    pq.write_table(pa.table({"text": texts, "score": [float(score) for _, score in rows]}), path)

    def decoded(text):
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError:
            return ""

    rows = [
        (decoded(text), score) if not cells.is_blank(decoded(text)) and b"\0" not in text else None
        for text, score in rows
    ]
    only_these_are_left_out(path, rows, range(1, len(rows) + 1))


# Damage that may reach beyond its row

TABLES = st.lists(st.tuples(TEXTS, SCORES), min_size=1, max_size=6)
JUNK = st.binary(min_size=1, max_size=12) | st.sampled_from(
    [
        b'"',
        b'""',
        b"\0",
        b"\n",
        b"\r",
        b",",
        b"{",
        b"}",
        b"[",
        b"\\",
        b"\xff",
        b"\xc3",
        b"'",
        b"nan",
    ]
    + [b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"text", b"score", b"text,score\n", b"\x1a", b"null,"]
    + [LONG, b'"' * 999, b"," * 5000, b"[" * 3000]
)
PLACES = st.floats(0, 1, exclude_max=True)
COMPRESS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, "zstd", asbytes=True),
}
ENCODINGS = st.sampled_from(["latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
HEADERS = st.sampled_from(
    [b"", b"text", b"text,score,text", b"score,score,text", b"Text,Score", b" text, score", b"a,b"]
    + [b"text;score", b"text\tscore", b"\0", b'"text,score', b"t\xe9xt,score", b"text,score,", b","]
)


def cut(content, place):
    return content[: int(place * len(content))]


def insert(content, place, junk):
    at = int(place * len(content))
    return content[:at] + junk + content[at:]


def overwrite(content, place, junk):
    at = int(place * len(content))
    return content[:at] + junk + content[at + len(junk) :]


def drop(content, place, junk):
    at = int(place * len(content))
    return content[:at] + content[at + len(junk) :]


DAMAGE = st.lists(
    st.tuples(st.just(cut), PLACES)
    | st.tuples(st.sampled_from([insert, overwrite, drop]), PLACES, JUNK),
    max_size=4,
)


def written(rows, suffix):
    buffer = io.BytesIO()
    if suffix == "csv":
        return b"text,score\n" + b"".join(quoted(row) + b"\n" for row in rows)
    if suffix == "jsonl":
        return b"".join(as_json(*row) + b"\n" for row in rows)
    texts, scores = zip(*rows, strict=True)
    pq.write_table(pa.table({"text": texts, "score": [float(score) for score in scores]}), buffer)
    return buffer.getvalue()


def a_table_or_one_line(path):
    """Reads in both ways; returns the rows left out, None where the file is refused as a whole."""
    try:
        rows, left_out = read(path, on_bad_row="skip")
    except (ValueError, OSError) as error:
        refused, left_out = str(error), None
        # Nobody is told less for skipping, nor does a refusal depend on it.
        assert str(path) in refused and "\n" not in refused and len(refused) < 2500
    else:
        assert len(rows) >= 1 and all(text.strip() and "\0" not in text for text in rows.texts)
        assert np.all(np.isnan(rows.scores) | (np.abs(rows.scores) <= 1))
        assert all(row.file == str(path) for row in left_out)
    try:
        read(path)
    except (ValueError, OSError) as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
        if left_out:
            assert str(error).startswith(str(left_out[0]))
    else:
        assert left_out == []
    return left_out


@FUZZ
@given(rows=TABLES, suffix=st.sampled_from(["csv", "jsonl"]), damage=DAMAGE, data=st.data())
def test_a_damaged_text_file_is_a_table_or_one_line(folder, rows, suffix, damage, data):
    content = written(rows, suffix)
    change = data.draw(st.sampled_from(["none", "encoding", "header"]))
    if change == "encoding":
        encoding = data.draw(ENCODINGS)
        content = content.decode().encode(encoding, errors="replace")
    elif change == "header" and suffix == "csv":
        content = data.draw(HEADERS) + content.removeprefix(b"text,score")
    compressed = data.draw(st.sampled_from(["", *COMPRESS]))
    if compressed:
        content = COMPRESS[compressed](content)
    for how, *where in damage:
        content = how(content, *where)
    path = folder / f"damaged.{suffix}{compressed}"
    path.write_bytes(content)
    a_table_or_one_line(path)


@FUZZ
@given(rows=TABLES, damage=DAMAGE)
def test_a_damaged_parquet_file_is_a_table_or_one_line(folder, rows, damage):
    content = written(rows, "parquet")
    for how, *where in damage:
        content = how(content, *where)
    path = folder / "damaged.parquet"
    path.write_bytes(content)
    a_table_or_one_line(path)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "score", "label"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@FUZZ
@given(values=st.lists(JSON_VALUES, min_size=1, max_size=6))
def test_json_lines_of_any_values_are_a_table_or_one_line(folder, values):
    path = folder / "values.jsonl"
    path.write_text("\n".join(map(json.dumps, values)) + "\n", "utf-8")
    a_table_or_one_line(path)


# Whole files, beside other readers


@FUZZ
@given(rows=TABLES)
def test_whole_files_read_as_other_readers_read_them(folder, rows):
    for suffix in ("csv", "jsonl", "parquet"):
        (folder / f"whole.{suffix}").write_bytes(written(rows, suffix))
    options = {
        "parse_options": pa.csv.ParseOptions(newlines_in_values=True),
        "convert_options": pa.csv.ConvertOptions(
            column_types={"text": pa.string(), "score": pa.string()}, strings_can_be_null=False
        ),
    }
    tables = {
        "csv": pa.csv.read_csv(folder / "whole.csv", **options),
        "jsonl": pa.json.read_json(folder / "whole.jsonl"),
        "parquet": pq.read_table(folder / "whole.parquet"),
    }
    for suffix, table in tables.items():
        ours, left_out = read(folder / f"whole.{suffix}")
        assert ours.texts == table["text"].to_pylist()
        assert ours.scores.tolist() == [float(score) for score in table["score"].to_pylist()]
        assert left_out == []
