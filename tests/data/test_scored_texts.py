"""Reading scored texts: what a user's file says is what comes out, or one line says why not."""

import csv
import json
import math
import sys
import types
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dwa_jax.data import DataError, read, tables


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, so that messages hold plain file names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


ADVICE = "; on_bad_row=skip leaves bad rows out"


def message(paths, **options):
    with pytest.raises(DataError) as caught:
        read(paths, **options)
    said = str(caught.value)
    assert "\n" not in said
    # Rows that are bad, and nothing else, can be left out.
    of_rows = ", row " in said and "never closed" not in said and "no such file" not in said
    assert (ADVICE in said) == (of_rows and not said.startswith("no good row"))
    return said.removesuffix(ADVICE)


# What is read


def test_csv_with_byte_order_mark_extra_columns_and_windows_line_ends(here):
    (here / "a.csv").write_bytes(
        b'\xef\xbb\xbfscore,id,text\r\n0.5,1,"Euro gains, Dollar slips"\r\n'
        b"-1,2,Yen \xe2\x82\xac\r\n"
    )
    rows, skipped = read("a.csv")
    assert rows.texts == ["Euro gains, Dollar slips", "Yen €"]
    assert rows.scores.tolist() == [0.5, -1.0] and rows.scores.dtype == np.float64
    assert rows.categories.tolist() == [-1, -1] and rows.categories.dtype == np.int32
    assert rows.origin == [("a.csv", 2), ("a.csv", 3)]
    assert skipped == []


def test_several_files_of_several_types_are_one_table_in_the_order_given(here):
    (here / "a.csv").write_text("text,score\none,0.1\n")
    (here / "b.jsonl").write_text('{"text": "two", "score": 0.2}\n\n{"score": 0.3, "text": "3"}\n')
    pq.write_table(pa.table({"text": ["four"], "score": [0.4]}), here / "c.parquet")
    rows, _ = read(["c.parquet", here / "b.jsonl", "a.csv"])
    assert rows.texts == ["four", "two", "3", "one"]
    assert rows.scores.tolist() == [0.4, 0.2, 0.3, 0.1]
    assert rows.origin == [
        ("c.parquet", 1),
        (str(here / "b.jsonl"), 1),
        (str(here / "b.jsonl"), 3),
        ("a.csv", 2),
    ]


def test_row_numbers_are_the_lines_an_editor_shows(here):
    (here / "a.csv").write_text('\ntext,score\n"two\nlines",0.1\n\nlast,0.2\n')
    rows, _ = read("a.csv")
    assert rows.texts == ["two\nlines", "last"]
    assert [row for _, row in rows.origin] == [3, 6]


def test_score_range_is_rescaled_linearly(here):
    (here / "stars.csv").write_text("text,score\na,1\nb,2\nc,3\nd,5\n")
    rows, _ = read("stars.csv", score_range=(1, 5))
    assert rows.scores.tolist() == [-1.0, -0.5, 0.0, 1.0]
    assert "row 2: score '1' is outside [2, 5]" in message("stars.csv", score_range=(2, 5))


def test_either_label_may_be_missing(here):
    (here / "a.csv").write_text("text,score,label\na,0.5,\nb,,3\nc, -0.5 , 2.0 \n")
    rows, _ = read("a.csv", category_column="label")
    np.testing.assert_array_equal(rows.scores, [0.5, math.nan, -0.5])
    assert rows.categories.tolist() == [-1, 3, 2]


def test_absent_keys_and_nulls_of_json_are_missing_labels(here):
    lines = [{"text": "a", "score": None, "label": 1}, {"text": "b", "score": 1}]
    (here / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows, _ = read("a.jsonl", category_column="label")
    np.testing.assert_array_equal(rows.scores, [math.nan, 1.0])
    assert rows.categories.tolist() == [1, -1]


def test_category_names_become_their_positions(here):
    (here / "a.csv").write_text("text,label\na,negative\nb, positive \nc,neutral\n")
    names = ["negative", "neutral", "positive"]
    rows, _ = read("a.csv", score_column=None, category_column="label", category_names=names)
    assert rows.categories.tolist() == [0, 2, 1]
    assert np.isnan(rows.scores).all()


def test_texts_alone_can_be_read_for_prediction(here):
    (here / "a.csv").write_text("text\na\nb\n")
    rows, _ = read("a.csv", score_column=None)
    assert rows.texts == ["a", "b"]
    assert np.isnan(rows.scores).all() and rows.categories.tolist() == [-1, -1]


def test_parquet_columns_of_any_numeric_type(here):
    for column in (
        pa.array([1, None], pa.int8()),
        pa.array([1.0, None], pa.float32()),
        pa.array([Decimal("1.0"), None], pa.decimal128(5, 2)),
        pa.array(["1", ""]),
    ):
        table = pa.table({"text": pa.array(["a", "b"]).dictionary_encode(), "score": column})
        pq.write_table(table.append_column("label", pa.array([0, 4])), here / "a.parquet")
        rows, _ = read("a.parquet", category_column="label")
        np.testing.assert_array_equal(rows.scores, [1.0, math.nan])


def test_a_cell_may_be_longer_than_the_csv_module_allows_by_default(here):
    (here / "a.csv").write_text(f"text,score\n{'word ' * 50_000},0\n")
    limit = csv.field_size_limit()
    assert len(read("a.csv")[0].texts[0]) == 250_000
    assert csv.field_size_limit() == limit, "the limit belongs to the whole process: put it back"


def test_hub_data_sets(here, monkeypatch):
    class Table:
        column_names = ("text", "score", "extra")

        def select_columns(self, columns):
            assert columns == ["text", "score"]
            return [{"text": "a", "score": 0.5}, {"text": "b", "score": 2.0}]

    asked = []
    fake = types.ModuleType("datasets")
    fake.load_dataset = lambda name, split: asked.append((name, split)) or Table()
    monkeypatch.setitem(sys.modules, "datasets", fake)
    rows, skipped = read("hub:owner/name:validation", on_bad_row="skip")
    assert rows.texts == ["a"] and rows.origin == [("hub:owner/name:validation", 1)]
    assert str(skipped[0]).startswith("hub:owner/name:validation, row 2: score 2.0 is outside")
    read("hub:owner/name", on_bad_row="skip")
    assert asked == [("owner/name", "validation"), ("owner/name", "train")]
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "extra 'hub'" in message("hub:owner/name")
    assert "hub:NAME:CONFIG:SPLIT" in message("hub:owner/name:config:train:more")


def test_hub_data_sets_as_the_library_writes_and_reads_them(here):
    datasets = pytest.importorskip("datasets")
    columns = {"text": ["a", "b", "c"], "score": [0.5, None, -1.0], "label": [0, 2, 1]}
    names = datasets.ClassLabel(names=["negative", "neutral", "positive"])
    table = datasets.Dataset.from_dict(columns).cast_column("label", names)
    for split in ("train", "test"):
        (here / "folder" / split).mkdir(parents=True)
        table.to_parquet(f"folder/{split}/{split}.parquet")
    (here / "folder" / "README.md").write_text(
        "---\nconfigs:\n- config_name: all\n  data_files: '*/*.parquet'\n  default: true\n"
        "- config_name: parts\n  data_files:\n  - split: train\n    path: train/*\n"
        "  - split: test\n    path: test/*\n---\n"
    )
    table.save_to_disk("saved")
    for source, count in {
        "hub:folder": 6,
        "hub:folder:train[:2]": 2,
        "hub:folder:parts:test": 3,
        "hub:saved": 3,
    }.items():
        rows, _ = read(source, category_column="label")
        assert rows.texts == (columns["text"] * 2)[:count]
        np.testing.assert_array_equal(rows.scores, ([0.5, math.nan, -1.0] * 2)[:count])
        assert rows.categories.tolist() == (columns["label"] * 2)[:count]
        assert rows.origin[1] == (source, 2)
    assert message("hub:saved:train").endswith("without configurations and splits")
    assert message("hub:folder:parts:dev").startswith("hub:folder:parts:dev: cannot be loaded: ")
    assert message("hub:folder", text_column="txt") == (
        "hub:folder: no column 'txt'; there: 'text', 'score', 'label' (nearest: 'text')"
    )


# What is refused

KNOWN = ".csv, .tsv, .txt, .jsonl, .ndjson, .json, .parquet, .xlsx"

BAD_CSV_ROWS = [
    ("x,abc", "score 'abc' is not a number (see labels)"),
    ("x,N/A", "score 'N/A' is not a number; leave a missing one empty"),
    ("x,x", "score 'x' is not a number"),
    ("x,50%", "score '50%' is not a number (see percent)"),
    ("x,1_0", "score '1_0' is not a number"),
    ("x,nan", "score 'nan' is not finite; leave a missing one empty"),
    ("x,-inf", "score '-inf' is not finite; leave a missing one empty"),
    ("x,1.001", "score '1.001' is outside [-1, 1] (see score_range)"),
    ("  ,0.5", "the text is empty"),
    ("x,", "no label: empty 'score'"),
    ("x,0,5", "3 cells where the header has 2; quote a cell that holds a comma"),
    ("x", "1 cells where the header has 2; quote a cell that holds a comma"),
    ('"x"y,0', "not a CSV record: ',' expected after '\"'"),
    ("x\0,0", "holds a NUL byte; save the file as UTF-8 text"),
    (b"caf\xe9,0", "byte 0xe9 is not UTF-8; save the file as UTF-8"),
]


@pytest.mark.parametrize(("line", "problem"), BAD_CSV_ROWS)
def test_bad_csv_rows_are_named_by_line(here, line, problem):
    line = line if isinstance(line, bytes) else line.encode()
    content = b'text,score\n"one\nrow",0.5\n' + line + b"\nfine,0.25\n"
    (here / "a.csv").write_bytes(content)
    utf_8 = {"layout": tables.Layout(encoding="utf-8")}
    assert message("a.csv", **utf_8) == f"a.csv, row 4: {problem}"
    rows, skipped = read("a.csv", on_bad_row="skip", **utf_8)
    assert rows.texts == ["one\nrow", "fine"] and rows.scores.tolist() == [0.5, 0.25]
    assert skipped == [("a.csv", 4, problem)]
    assert str(skipped[0]) == f"a.csv, row 4: {problem}"


BAD_JSON_ROWS = [
    ('{"text": "x", "score": 0.5', "not JSON: Expecting ',' delimiter at character 27"),
    ('["x", 0.5]', 'a list where an object {"column": value} is expected'),
    ('{"text": "x", "score": NaN}', "score nan is not finite; leave a missing one empty"),
    ('{"text": "x", "score": true}', "score True is not a number"),
    ('{"text": "x", "score": [1]}', "score [1] is not a number"),
    ('{"text": 5, "score": 1}', "the text 5 is of type int, not a string"),
    ('{"score": 1}', "the text is empty"),
    ('{"text": "x", "text": "y", "score": 1}', "key 'text' is there 2 times"),
    ('{"text": "x"}', "no label: empty 'score'"),
    ('{"text": "x\\ud800", "score": 1}', "the text 'x\\ud800' holds half a surrogate pair"),
    ('{"text": "x\\u0000", "score": 1}', "the text 'x\\x00' holds a NUL character"),
    ('{"text": "x", "score": -1' + "0" * 400 + "}", "is not a number"),
    ('{"text": "x", "score": ' + "9" * 5000 + "}", "not JSON that can be read: "),
    ("[" * 200_000, "not JSON"),
    (b'{"text": "caf\xe9", "score": 1}', "byte 0xe9 is not UTF-8; save the file as UTF-8"),
]


@pytest.mark.parametrize(("line", "problem"), BAD_JSON_ROWS)
def test_bad_json_lines_are_named_by_line(here, line, problem):
    line = line if isinstance(line, bytes) else line.encode()
    good = b'{"text": "good", "score": 0.5}\n'
    (here / "a.jsonl").write_bytes(b"\n" + good + line + b"\n" + good)
    utf_8 = {"layout": tables.Layout(encoding="utf-8")}
    text = message("a.jsonl", **utf_8)
    assert text.startswith("a.jsonl, row 3: ") and problem in text and len(text) < 300
    rows, skipped = read("a.jsonl", on_bad_row="skip", **utf_8)
    assert rows.texts == ["good", "good"] and list(map(str, skipped)) == [text]


def test_bad_parquet_rows_are_named_by_position(here):
    not_utf8 = pa.array([b"a", b"caf\xe9", b"c", b"d"]).view(pa.string())
    table = pa.table({"text": not_utf8, "score": [0.0, 0.5, 7.0, math.inf]})
    pq.write_table(table, here / "a.parquet")
    rows, skipped = read("a.parquet", on_bad_row="skip")
    assert rows.texts == ["a"]
    assert skipped == [
        ("a.parquet", 2, "byte 0xe9 is not UTF-8; write text as UTF-8"),
        ("a.parquet", 3, "score 7.0 is outside [-1, 1] (see score_range)"),
        ("a.parquet", 4, "score inf is not finite; leave a missing one empty"),
    ]


@pytest.mark.parametrize("cell", ["-1", "1.5", "many", "nan", "1e30"])
def test_a_category_is_a_non_negative_integer(here, cell):
    (here / "a.csv").write_text(f"text,score,label\nx,0,{cell}\n")
    expected = f"a.csv, row 2: category '{cell}' is not an integer >= 0"
    expected += " (see category_names)" * (cell == "many")
    expected += "; leave a missing one empty" * (cell == "nan")
    assert message("a.csv", category_column="label") == expected


def test_an_unknown_category_name_gets_the_known_ones_and_the_nearest(here):
    (here / "a.csv").write_text("text,label\nx,postive\n")
    assert message(
        "a.csv", score_column=None, category_column="label", category_names=["negative", "positive"]
    ) == (
        "a.csv, row 2: category 'postive' is not one of 'negative', 'positive'"
        " (nearest: 'positive')"
    )


def test_five_bad_rows_are_shown_and_the_rest_counted(here):
    (here / "a.csv").write_text("text,score\n" + "".join(f"t{i},{i}\n" for i in range(6)))
    (here / "b.csv").write_text("text,score\nfine,1\nu,x\nv,y\n")
    shown = "; ".join(
        f"a.csv, row {row}: score '{row - 2}' is outside [-1, 1] (see score_range)"
        for row in (4, 5, 6, 7)
    )
    assert message(["a.csv", "b.csv"]) == (
        f"{shown}; b.csv, row 3: score 'x' is not a number; and 1 more bad rows"
    )
    rows, skipped = read(["a.csv", "b.csv"], on_bad_row="skip")
    assert rows.texts == ["t0", "t1", "fine"] and len(skipped) == 6


def test_skipping_every_row_is_an_error(here):
    (here / "a.csv").write_text("text,score\nx,9\n")
    assert message("a.csv", on_bad_row="skip").startswith("no good row is left: a.csv, row 2:")


def test_an_open_quote_is_an_error_even_when_bad_rows_are_skipped(here):
    (here / "a.csv").write_text('text,score\nx,0\n"open,0\ny,0\nz,0\n')
    expected = (
        "a.csv, row 3: a quote opened here is never closed;"
        ' write a quote inside a quoted cell as ""'
    )
    assert message("a.csv") == message("a.csv", on_bad_row="skip") == expected


def test_bad_rows_come_before_what_makes_a_file_unreadable(here):
    (here / "a.csv").write_text('text,score\nx,high\ny,0\n"open,0\nz,0\n')
    open_quote = message("a.csv", on_bad_row="skip")
    assert open_quote.startswith("a.csv, row 4: a quote opened here")
    assert (
        message("a.csv") == f"a.csv, row 2: score 'high' is not a number (see labels); {open_quote}"
    )
    (here / "b.csv").write_text("text,score\nx,2\ny,0\n")
    assert message(["b.csv", "c.csv"]) == (
        "b.csv, row 2: score '2' is outside [-1, 1] (see score_range); "
        f"{message(['b.csv', 'c.csv'], on_bad_row='skip')}"
    )


def test_integer_categories_are_below_the_number_of_classes(here):
    (here / "a.csv").write_text("text,score,label\nx,0,3\ny,0,2\n")
    options = {"category_column": "label", "num_classes": 3}
    assert message("a.csv", **options) == "a.csv, row 2: category 3 is not below num_classes=3"
    assert read("a.csv", **options, on_bad_row="skip")[0].categories.tolist() == [2]


def test_a_file_whose_name_is_no_text_can_still_be_spoken_of(here):
    name = b"caf\xe9.csv".decode("utf-8", "surrogateescape")
    (here / name).write_text("text,score\nx,2\n")
    message(name).encode("utf-8")
    assert "no such file" in message("~nobody-of-that-name/a.csv")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"", "a.csv: the file is empty"),
        ("a.csv", b"\n\n", "a.csv: holds no rows"),
        ("a.csv", b"text,score\n", "a.csv: holds no rows"),
        ("a.jsonl", b"\n", "a.jsonl: holds no rows"),
        (
            "a.csv",
            b"txt,score\nx,1\n",
            "a.csv: no column 'text'; there: 'txt', 'score' (nearest: 'txt')",
        ),
        (
            "a.csv",
            b"text,score,text\nx,1,y\n",
            "a.csv: column 'text' is there 2 times; say which by 'text#1' to 'text#2'",
        ),
        (
            "a.csv",
            b"txt;score\nx;1\n",
            "a.csv: no column 'text'; there: 'txt', 'score' (nearest: 'txt')",
        ),
        (
            "a.jsonl",
            b'{"text": "x", "SCORE": 1}\n',
            "a.jsonl: no column 'score'; there: 'text', 'SCORE' (nearest: 'SCORE')",
        ),
        ("a.tsv", b"x", "a.tsv: no column 'text'; there: 'x'"),
        (
            "a.xls",
            b"x",
            f"a.xls: unknown file type '.xls'; known: {KNOWN}, hub:NAME",
        ),
        ("a", b"x", f"a: unknown file type ''; known: {KNOWN}, hub:NAME"),
    ],
)
def test_unusable_files(here, name, content, expected):
    (here / name).write_bytes(content)
    assert message(name) == expected


def test_unusable_parquet_files(here):
    (here / "a.parquet").write_bytes(b"PAR1 is how it starts")
    assert message("a.parquet").startswith("a.parquet: not a readable Parquet file: ")
    pq.write_table(pa.table({"txt": ["a"], "score": [0.0]}), here / "b.parquet")
    assert message("b.parquet") == (
        "b.parquet: no column 'text'; there: 'txt', 'score' (nearest: 'txt')"
    )


def test_missing_files_and_folders(here):
    (here / "train.csv").write_text("text,score\nx,1\n")
    (here / "folder.csv").mkdir()
    assert message("tran.csv") == "tran.csv: no such file (nearest in that folder: train.csv)"
    assert message("nowhere/a.csv") == "nowhere/a.csv: no such file"
    assert message("folder.csv") == "folder.csv: is a folder; name the files in it"
    assert message("nul\0.csv").startswith("nul\0.csv: cannot be opened")
    assert message([]).startswith("no files given")


@pytest.mark.parametrize(
    "options",
    [
        {"on_bad_row": "ignore"},
        {"score_range": (1, 1)},
        {"score_range": (0, math.inf)},
        {"score_range": 5},
        {"category_names": ["a", "b"]},
        {"category_names": ["a", "a"], "category_column": "label"},
        {"category_column": "score"},
    ],
)
def test_wrong_options_are_refused(here, options):
    (here / "a.csv").write_text("text,score,label\nx,1,a\n")
    with pytest.raises(ValueError, match=r"got|needs"):
        read("a.csv", **options)
