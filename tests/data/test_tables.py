"""Tables of many kinds: what is found of them, what is given, and what is told apart."""

import bz2
import datetime
import io
import json
import random

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dwa_jax.data import DataError, cells, columns, encodings, from_columns, read, tables
from dwa_jax.finetune.corpus import expand_names


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def noted(path, **options):
    notes = []
    rows, _ = read(path, note=notes.append, **options)
    return rows, notes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_and_encodings_are_found_and_read_as_pandas_reads_them(
    here, encoding, delimiter
):
    frame = pd.DataFrame(
        {"n": [1, 2], "text": [f'say "é{delimiter}x"\nor €', "plain"], "score": [0.25, -1.0]}
    )
    frame.to_csv("a.csv", sep=delimiter, encoding=encoding, index=False)
    rows, notes = noted("a.csv")
    expected = pd.read_csv("a.csv", sep=delimiter, encoding=encoding)
    assert rows.texts == expected["text"].tolist()
    assert rows.scores.tolist() == expected["score"].tolist()
    assert ("separated by" in str(notes)) == (delimiter != ",")
    assert ("read as utf-16" in str(notes)) == encoding.startswith("utf-16")


def test_a_file_of_windows_is_read_as_one_and_a_damaged_one_of_utf_8_is_not(here):
    text = "text,score\ncaf\u00e9 \u201cup\u201d,1\nna\u00efve,0\n"
    (here / "a.csv").write_bytes(text.encode("cp1252"))
    rows, notes = noted("a.csv")
    assert rows.texts == ["caf\u00e9 \u201cup\u201d", "na\u00efve"]
    assert notes == ["a.csv: read as cp1252"]
    # One damaged byte among more that are right is a bad row, and no other encoding.
    (here / "b.csv").write_bytes(text.encode() + b"d\xe9,0\n")
    with pytest.raises(DataError, match="row 4: byte 0xe9 is not UTF-8"):
        read("b.csv")
    (here / "c.csv").write_bytes("text,score\nцена,1\n".encode("cp1251"))
    rows, _ = noted("c.csv", layout=tables.Layout(encoding="windows-1251"))
    assert rows.texts == ["цена"]
    with pytest.raises(ValueError, match="encoding='klingon' is none that is known"):
        read("c.csv", layout=tables.Layout(encoding="klingon"))
    (here / "d.csv").write_bytes("text,score\nx,1\n".encode("utf-16")[:-1])
    with pytest.raises(DataError, match=r"d.csv: cannot be read as utf-16"):
        read("d.csv")


def test_a_file_without_a_header_is_read_by_the_names_that_are_given(here):
    (here / "a.csv").write_text("0.5;up, and up\n-1;down\n")
    rows, notes = noted("a.csv", layout=tables.Layout(columns=("score", "text")))
    assert rows.texts == ["up, and up", "down"] and rows.origin[0] == ("a.csv", 1)
    assert notes == ["a.csv: cells separated by ';'"]
    with pytest.raises(DataError, match="row 1: 2 cells where there are 3 columns"):
        read("a.csv", layout=tables.Layout(columns=("score", "text", "n")))


def test_phrases_are_separated_from_the_right(here):
    (here / "a.txt").write_bytes(b'Mail us @home , "now@neutral\nprofit rose@positive\n')
    rows, _ = read(
        "a.txt",
        score_column="label",
        labels={"Neutral": 0, "positive": 1},
        layout=tables.Layout("@", "latin-1", ("text", "label")),
    )
    assert rows.texts == ['Mail us @home , "now', "profit rose"]
    assert rows.scores.tolist() == [0, 1]


def test_arrays_of_json_are_read_in_parts_and_their_rows_counted(here):
    rng = random.Random(0)
    for indent in (None, 0, 1, 4):
        records = [
            {"text": f"t{i} " + 'x\\"]},{' * rng.randrange(30), "score": rng.random()}
            for i in range(2000)
        ]
        text = " \n" + json.dumps(records, indent=indent) + "\n"
        (here / "a.json").write_text(text)
        rows, _ = read("a.json")
        assert rows.texts == [record["text"] for record in records]
        assert rows.scores.tolist() == [record["score"] for record in records]
        assert [row for _, row in rows.origin] == list(range(1, 2001))
    (here / "b.json").write_text('{"text": "one", "score": 1}\n{"text": "two", "score": 0}\n')
    assert read("b.json")[0].texts == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a", "score": 1}', "c.json, line 1: not a JSON array: ',' or '\\]' is exp"),
        ('[{"text": "a", "score": 1},\n {"text": ]', "c.json, line 2: not a JSON array: Expecting"),
        ('[{"text": "a", "score": 1}] x', "c.json, line 1: not a JSON array: something follows"),
        ("[", "c.json, line 1: not a JSON array: Expecting value"),
        ("[]", "c.json: holds no rows"),
        ('[{"text": "a\tb", "score": 1}]', "row 1: not JSON: Invalid control character"),
        ("[1]", "row 1: a int where an object"),
        ('[{"text": "a", "score": 1}, {"text": "b", "score": 5}]', "row 2: score 5 is outside"),
        ('{"data": [{"text": "a", "score": 1}]}', "with the rows in its array 'data'; an array"),
        ('{\n "text": {"0": "a"},\n "score": {"0": 1}\n}', "with an object a column; an array of"),
        ('{"0": {"text": "a", "score": 1}}', "an object a row; .* to_json.FILE, orient='records'"),
        ('{"columns": ["text"], "index": [0], "data": [["a"]]}', "pandas' orient='split' writes"),
    ],
)
def test_what_is_no_array_of_rows_is_said(here, content, message):
    (here / "c.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read("c.json")


def test_nested_values_have_paths_in_every_format(here):
    records = [
        {"text": "a", "info": [{"score": 0.5}], "date.day": "x"},
        {"text": "b", "info": [], "deep": {"words": ["up", "it", "goes"]}},
    ]
    (here / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    rows, _ = read("a.jsonl", score_column="info.0.score", unscored=True)
    np.testing.assert_array_equal(rows.scores, [0.5, np.nan])
    rows, notes = noted("a.jsonl", text_column="deep.words", score_column=None, on_bad_row="skip")
    assert rows.texts == ["up it goes"] and notes == ["1 texts are lists, joined by spaces"]
    table = pa.table(
        {"data": [{"text": ["x", "y"], "n": [{"s": 1.0}]}, {"text": ["z"], "n": [{"s": -1.0}]}]}
    )
    pq.write_table(table, "a.parquet")
    rows, _ = read("a.parquet", text_column="data.text", score_column="data.n.0.s")
    assert rows.texts == ["x y", "z"] and rows.scores.tolist() == [1.0, -1.0]
    with pytest.raises(DataError, match="no column 'deep.wards'"):
        read("a.jsonl", text_column="deep.wards", score_column=None)


def test_two_columns_of_one_name_are_told_apart(here):
    (here / "a.csv").write_text("text,score,text\na,1,b\n")
    assert read("a.csv", text_column="text#2")[0].texts == ["b"]
    assert read("a.csv", text_column="text#1")[0].texts == ["a"]


def test_excel_is_read_with_its_own_row_numbers(here):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    for row in ((), ("text", "score", "when"), ("up", 1, datetime.date(2024, 1, 2)), ()):
        sheet.append(row)
    sheet.append(("down", -0.5))
    sheet.append(("odd", "much"))
    book.create_sheet("more")
    book.save("a.xlsx")
    notes = []
    rows, bad = read("a.xlsx", on_bad_row="skip", note=notes.append)
    assert rows.texts == ["up", "down"] and rows.scores.tolist() == [1, -0.5]
    assert [row for _, row in rows.origin] == [3, 5] and bad[0].row == 6
    assert notes == ["a.xlsx: sheet 'Sheet' read, of 2"]
    content = (here / "a.xlsx").read_bytes()
    for damaged in (content[:500], b"PK\x03\x04", b"x", content.replace(b"xml", b"xlm")):
        (here / "b.xlsx").write_bytes(damaged)
        with pytest.raises(DataError, match=r"^b\.xlsx: "):
            read("b.xlsx")


@pytest.mark.parametrize(
    ("cell", "written", "value"),
    [
        ("0,5", cells.Written(decimal_comma=True), 0.5),
        ("-1.234,5", cells.Written(decimal_comma=True), -1234.5),
        ("1.234", cells.Written(decimal_comma=True), 1234),
        ("0.5", cells.Written(decimal_comma=True), 0.5),
        ("7 %", cells.Written(percent=True), 0.07),
        ("7,5%", cells.Written(True, True), 0.075),
        ("-3%", cells.Written(percent=True), -0.03),
        ("3%", cells.PLAIN, None),
        ("0,5", cells.PLAIN, None),
        ("\u22120.5", cells.PLAIN, -0.5),
        ("%", cells.Written(percent=True), None),
        ("1,2,3", cells.Written(decimal_comma=True), None),
    ],
)
def test_numbers_as_they_are_written(cell, written, value):
    assert cells.as_number(cell, written) == value


def test_labels_become_scores_or_ordered_categories(here):
    (here / "a.csv").write_text("text,label\na,Positive\nb, NEGATIVE \nc,4\nd,4.0\ne,true\n")
    labels = {"negative": 1, "positive": 5, "4": 4, "true": 3}
    rows, _ = read("a.csv", score_column="label", labels=labels, score_range=(1, 5))
    assert rows.scores.tolist() == [1, -1, 0.5, 0.5, 0]
    rows, _ = read("a.csv", score_column=None, category_column="label", labels=labels)
    assert rows.categories.tolist() == [3, 0, 2, 2, 1]
    text = "negative=1, positive=5,4=4,true=3"
    assert cells.label_map(text) == cells.label_map(json.dumps(labels)) == labels
    with pytest.raises(DataError, match="row 2: label 'Positive' is not one of 'positiv', 'n'"):
        read("a.csv", score_column="label", labels={"positiv": 1, "n": 0})
    for wrong in ("", "x", "x=1,X=2", "x=nan", {"x": "y"}, "{1", {"": 1}):
        with pytest.raises(ValueError, match="must map words to numbers"):
            cells.label_map(wrong)


def test_rows_know_their_split_group_and_time(here):
    (here / "a.csv").write_text(
        "text,score,split,review,when\na,0,Train,7,2024-03-01\nb,0,dev,7,2024-03-01T12:00+02:00\n"
        "c,0,TEST,,Wed Aug 27 13:08:45 +0000 2008\n"
    )
    rows, _ = read("a.csv", split_column="split", group_column="review", time_column="when")
    assert rows.splits == ["train", "validation", "test"]
    assert rows.groups == ["7", "7", None]
    zone = datetime.timezone(datetime.timedelta(hours=2))
    assert rows.times.tolist() == [
        datetime.datetime(2024, 3, 1, tzinfo=datetime.UTC).timestamp(),
        datetime.datetime(2024, 3, 1, 12, tzinfo=zone).timestamp(),
        datetime.datetime(2008, 8, 27, 13, 8, 45, tzinfo=datetime.UTC).timestamp(),
    ]
    (here / "b.csv").write_text("text,score,split\na,0,other\n")
    with pytest.raises(DataError, match="split 'other' is not train, validation or test"):
        read("b.csv", split_column="split")
    with pytest.raises(DataError, match="the time 'other' is none that can be read; write 2024-"):
        read("b.csv", time_column="split")
    with pytest.raises(ValueError, match="different columns"):
        columns.Columns(split="text")


def test_a_row_without_a_group_is_noted(here):
    (here / "a.csv").write_text("text,score,review\na,0,7\nb,0,\nc,0,\n")
    _, notes = noted("a.csv", group_column="review")
    assert notes == ["2 rows have no 'review', and count as a group each"]


@pytest.mark.parametrize(
    ("cell", "form", "others"),
    [
        ("16/03/2021", "%d/%m/%Y", ""),
        ("03/04/2021", "%d/%m/%Y", " or '%m/%d/%Y'"),
        ("Jan 05, 2021", "%b %d, %Y", ""),
        ("01/31/2021 09:05 AM", "%m/%d/%Y %I:%M %p", ""),
    ],
)
def test_times_of_other_forms_are_read_by_a_key_that_the_line_names(here, cell, form, others):
    rows = f'"a","{cell}",0\n"b","{cell.replace("2021", "2022")}",0\n'
    (here / "a.csv").write_text(f"text,when,score\n{rows}")
    with pytest.raises(DataError) as caught:
        read("a.csv", time_column="when")
    assert f"row 2: the time {cell!r} is none that can be read; " in str(caught.value)
    assert f"time_format={form!r}{others};" in str(caught.value)
    first, second = read("a.csv", time_column="when", time_format=form)[0].times
    assert first == datetime.datetime.strptime(cell + "Z", form + "%z").timestamp()
    assert second - first == 365 * 24 * 3600


def test_a_form_of_times_is_one_and_dates_are_written_in_it(here):
    (here / "a.csv").write_text("text,when,score\na,2021-03-16,0\n")
    with pytest.raises(DataError, match="is not written as time_format='%d/%m/%Y'"):
        read("a.csv", time_column="when", time_format="%d/%m/%Y")
    for wrong in ("day", "%d/%m", "%Q"):
        with pytest.raises(ValueError, match=f"time_format='{wrong}' is no form of a date"):
            read("a.csv", time_column="when", time_format=wrong)


def test_bytes_that_are_no_western_text_are_a_warning(here):
    (here / "a.csv").write_bytes(
        "text,score\n\u5e02\u5834\u306f\u4e0a\u6607,1\n".encode("shift-jis")
    )
    _, (note,) = noted("a.csv")
    assert "control characters" in note and "encoding=shift-jis" in note


WORKBOOK = b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml"


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.csv", WORKBOOK, "an Excel workbook, and no .csv: name it .xlsx"),
        ("a.csv", b"PK\x03\x04" + bytes(26) + b"a.csv", "a zip archive, and no .csv: unpack it"),
        ("a.csv", b"PAR1" + bytes(40), "a Parquet file, and no .csv: name it .parquet"),
        ("a.tsv", b"\x1f\x8b\x08" + bytes(40), "compressed by gzip, and no .tsv: add .gz"),
        ("a.csv", b"\xd0\xcf\x11\xe0" + bytes(40), "an old Excel workbook, and no .csv"),
        ("a.csv", b"\n<!DOCTYPE HTML><html>404</html>", "a web page, and no .csv"),
        ("a.parquet", b"<html>404</html>", "a web page, and no .parquet"),
        ("a.json", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS, and"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_called_what_it_is(here, name, content, what):
    (here / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: is {what}"):
        read(name)


def test_a_score_goes_back_to_where_it_came_from():
    rng = random.Random(1)
    for _ in range(2000):
        low = round(rng.uniform(-1e4, 1e4), rng.randrange(4))
        high = low + round(rng.uniform(0.1, 1e4), rng.randrange(1, 4))
        value = round(rng.uniform(low, high), rng.randrange(4))
        value = min(max(value, low), high)
        assert cells.restore(cells.score(value, (low, high)), (low, high)) == pytest.approx(
            value, rel=1e-14, abs=1e-11
        )
    assert cells.restore(cells.score("0.1", (0, 10)), (0, 10)) == 0.1
    assert cells.restore(-0.2, (0, 10)) == 4.0


def test_names_of_files(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    (here / "folder").mkdir()
    for name in ("b.csv", "a.jsonl.gz", ".hidden.csv", "notes.doc", "x, y.csv"):
        (here / "folder" / name).write_text("text,score\na,0\n")
    inside = [str(here / "folder" / name) for name in ("a.jsonl.gz", "b.csv", "x, y.csv")]
    assert expand_names("~/folder", "train") == inside
    assert expand_names("folder/x, y.csv", "train") == ["folder/x, y.csv"]
    listed = '["folder/x, y.csv", "~/folder/b.csv"]'
    assert expand_names(listed, "train") == ["folder/x, y.csv", inside[1]]
    assert expand_names("~/folder/*.csv", "train") == inside[1:]
    assert expand_names("hub:a:train[:9], b.csv", "train") == ["hub:a:train[:9]", "b.csv"]
    (here / "empty").mkdir()
    wrong = {"empty": "without a table", '["a"; "b"]': "list in JSON", "*.x": "no file"}
    for text, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            expand_names(text, "train")


def test_encodings_are_found_in_compressed_files_too(here):
    (here / "a.csv.bz2").write_bytes(bz2.compress("text,score\né,1\n".encode("latin-1")))
    assert encodings.find_encoding(here / "a.csv.bz2") == "cp1252"
    (here / "b.csv").write_bytes(b"\x81\xe9\n")
    assert encodings.find_encoding(here / "b.csv") == "latin-1"
    (here / "c.csv").write_bytes(b"plain\n" * 10**6 + "é\n".encode())
    assert encodings.find_encoding(here / "c.csv") == encodings.UTF_8


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".txt"])
def test_what_is_written_behind_a_table_keeps_its_delimiter(here, ending):
    delimiter = {".csv": ";", ".tsv": "\t", ".txt": "|"}[ending]
    (here / f"a{ending}").write_text(f"text{delimiter}n\nx{delimiter}1\n")
    wanted = tables.Wanted("text", added=("p",), whole=True)
    reader = tables.open_table(f"a{ending}", wanted)
    out = io.StringIO(newline="")
    writer = tables.TableWriter(out, reader, {"p": float}, f"out{ending}")
    for chunk in reader.chunks():
        writer.write(chunk.keep([0]), {"p": [0.5]})
    writer.close()
    lines = [["text", "n", "p"], ["x", "1", "0.5"]]
    assert out.getvalue() == "".join(delimiter.join(cells_) + "\n" for cells_ in lines)


def test_columns_in_memory_meet_the_same_words_and_decimals():
    words = ["Negative", "positive", None]
    rows = from_columns(["a", "b", "c"], words, labels={"negative": -1, "positive": 1})
    np.testing.assert_array_equal(rows.scores, [-1, 1, np.nan])
    assert from_columns(["a"], np.array([0.2], np.float32)).scores.tolist() == [0.2]
