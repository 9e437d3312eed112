"""Predicting with a trained run: files in, the same files with more columns out."""

import contextlib
import copy
import csv
import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from configs import base
from dwa_jax import backbones, stratify
from dwa_jax.checkpoints import Checkpoints
from dwa_jax.data import compression, tables
from dwa_jax.finetune import occlusion, saved
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.predict_tables import predict_table
from dwa_jax.finetune.predictor import Predictor
from dwa_jax.finetune.setup import (
    choose_optimizers,
    first_state,
    make_tasks,
    make_weighting,
)
from experiments import predict
from tests.experiments import trained_runs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ADDED = [
    *("predicted_score", "interval_low", "interval_high", "predicted_category"),
    *(f"probability_{k}" for k in range(5)),
    "truncated",
]


@pytest.fixture(scope="module")
def folder(finished_run):
    return finished_run


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor.load(folder)


@pytest.fixture(scope="module")
def tested(folder):
    """The run's own predictions of its test split."""
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def program(folder, *options):
    predict.predict(predict.parse([f"--workdir={folder}", *options]))


@pytest.fixture
def shared(monkeypatch, predictor):
    """The command without loading the run anew."""
    monkeypatch.setattr(predict.Predictor, "load", lambda *args: predictor)


def test_a_run_read_back_predicts_what_it_wrote_of_its_best_epoch(predictor, tested):
    texts = [row["text"] for row in tested]
    found = predictor(texts)
    np.testing.assert_allclose(
        [one.score for one in found], [float(row["predicted_score"]) for row in tested], atol=1e-5
    )
    wanted = [[float(row[f"probability_{k}"]) for k in range(5)] for row in tested]
    np.testing.assert_allclose([one.probabilities for one in found], wanted, atol=1e-5)
    assert [one.category for one in found] == [int(row["predicted_category"]) for row in tested]
    # One at a time, in another order, with other padding: the same.
    alone = [predictor([text])[0].score for text in texts[:3]]
    np.testing.assert_allclose(alone, [one.score for one in found[:3]], atol=1e-5)
    assert predictor([]) == []
    series = pa.array(texts[:3]).to_pandas()
    for several in (tuple(texts[:3]), iter(texts[:3]), np.array(texts[:3]), series):
        assert len(predictor(several)) == 3
    for wrong in ("EUR/USD jumps", {"text": texts}, pa.table({"text": texts}).to_pandas()):
        with pytest.raises(TypeError, match=r"a list of texts .* a column: model\(table"):
            predictor(wrong)
    with pytest.raises(TypeError, match="text 1 is nan, no string; a list of texts"):
        predictor(["up", float("nan")])


def test_a_trunk_that_trained_needs_nothing_but_its_folder(folder, tmp_path):
    """What it began from is gone; and the best step is not the latest."""
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "checkpoints")
    # As the folders of earlier versions.
    (copy / saved.WEIGHTS).unlink()
    stored = json.loads((copy / "config.json").read_text())
    stored["config"] |= {"backbone": "/gone", "lora_rank": 0}
    stored["config"]["gramian_every"] = 3  # a key of an earlier version
    (copy / "config.json").write_text(json.dumps(stored))
    config = base.get_config()
    config.update({"eval_batch_size": 8, "max_length": 32})
    settings = backbones.BackboneConfig.from_huggingface(
        json.loads((copy / "backbone.json").read_text())
    )
    module = backbones.build(settings)
    tasks, method = make_tasks(config), make_weighting(config, 2)
    checkpoints = Checkpoints(copy / "checkpoints")
    states = []
    for step in (1, 2):
        key = jax.random.key(step)
        theta = {"params": backbones.init(key, module)}
        state = first_state(
            config, settings, theta, {}, tasks, method, choose_optimizers(config, 9), key
        )
        states.append(state._replace(step=jnp.asarray(step)))
        checkpoints.save(states[-1], {"best_step": 1}, keep=(1,))
    checkpoints.close()
    found = saved.load(copy)
    for name in ("theta", "psi"):
        jax.tree.map(np.testing.assert_array_equal, getattr(found, name), getattr(states[0], name))
    assert found.frozen == {} and found.adapter is None
    (copy / "backbone.json").unlink()
    with pytest.raises(ValueError, match=r"backbone\.json is gone"):
        saved.load(copy)


def rows_of(tested):
    return [
        {"id": f"{i:03d}", "text": row["text"], "note": 'a "quoted", cell\nof two lines'}
        for i, row in enumerate(tested)
    ]


def check(values, tested):
    np.testing.assert_allclose(
        [float(row["predicted_score"]) for row in values],
        [float(row["predicted_score"]) for row in tested],
        atol=1e-5,
    )
    assert [int(row["predicted_category"]) for row in values] == [
        int(row["predicted_category"]) for row in tested
    ]
    for row in values:
        assert sum(float(row[f"probability_{k}"]) for k in range(5)) == pytest.approx(1, abs=1e-5)


def test_csv(shared, folder, tested, tmp_path):
    rows = rows_of(tested)
    with (tmp_path / "in.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["id", "text", "note"])
        writer.writeheader()
        writer.writerows(rows)
    program(folder, f"--input={tmp_path}/in.csv", f"--output={tmp_path}/out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["id", "text", "note", *ADDED]
    assert [{key: row[key] for key in rows[0]} for row in found] == rows
    check(found, tested)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_jsonl_keeps_every_character(shared, folder, tested, tmp_path):
    lines = [
        f'{{"text" : {json.dumps(row["text"])},"n":1.50e3, "deep": {{"a": [1, {{}}], "é": null}} }}'
        for row in tested
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    program(folder, f"--input={tmp_path}/in.jsonl", f"--output={tmp_path}/out.jsonl")
    out = (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    for line, before in zip(out, lines, strict=True):
        assert line.startswith(before.removesuffix(" }") + ", ")
    found = [json.loads(line) for line in out]
    assert list(found[0]) == ["text", "n", "deep", *ADDED]
    check(found, tested)


@pytest.mark.parametrize(
    ("suffix", "to", "back"), [("csv", ".gz", ".zst"), ("jsonl", ".bz2", ".xz")]
)
def test_compressed_files_hold_what_plain_ones_do(
    shared, folder, tested, tmp_path, suffix, to, back
):
    texts = [row["text"] for row in tested]
    if suffix == "csv":
        content = "text\n" + "".join(f'"{text}"\n' for text in texts)
    else:
        content = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    given, wanted = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    given.write_text(content)
    program(folder, f"--input={given}", f"--output={wanted}")

    program(folder, f"--input={given}", f"--output={wanted}{to}")
    with open(f"{wanted}{to}", "rb") as raw:
        assert compression.expand(raw, to).read() == wanted.read_bytes()

    packed = tmp_path / f"packed.{suffix}{back}"
    with contextlib.ExitStack() as files:
        compression.create(packed, back, files).write(given.read_bytes())
    program(folder, f"--input={packed}", f"--output={wanted}", "--overwrite")
    with open(f"{wanted}{to}", "rb") as raw:
        assert compression.expand(raw, to).read() == wanted.read_bytes()

    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(ValueError, match=rf"packed\.{suffix}{back}: cannot be read: not a whole"):
        program(folder, f"--input={packed}", f"--output={tmp_path}/none.{suffix}")
    assert not list(tmp_path.glob("*none*"))
    with pytest.raises(ValueError, match="Parquet is compressed inside"):
        program(folder, f"--input={given}", f"--output={tmp_path}/none.parquet.gz")


def test_parquet_keeps_types_and_metadata(shared, folder, tested, tmp_path):
    count = len(tested)
    table = pa.table(
        {
            "when": pa.array(range(count), pa.timestamp("ms", tz="UTC")),
            "text": pa.array([row["text"] for row in tested], pa.large_string()),
            "tags": pa.array([["a"], None] * (count // 2) + [[]] * (count % 2)),
            "kind": pa.array(["x", "y"] * (count // 2) + ["x"] * (count % 2)).dictionary_encode(),
        }
    ).replace_schema_metadata({"owner": "somebody"})
    pa.parquet.write_table(table, tmp_path / "in.parquet", row_group_size=5)
    program(folder, f"--input={tmp_path}/in.parquet", f"--output={tmp_path}/out.parquet")
    found = pa.parquet.read_table(tmp_path / "out.parquet")
    assert found.select(table.column_names).equals(table)
    assert found.schema.metadata[b"owner"] == b"somebody"
    check(found.to_pylist(), tested)


def test_lines_of_standard_input(shared, folder, tested, tmp_path, monkeypatch, capsys):
    texts = [row["text"] for row in tested]

    def give(text):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode("utf-8"))))

    give("\n".join(texts) + "\n")
    program(folder, f"--output={tmp_path}/out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["text", *ADDED] and [row["text"] for row in found] == texts
    check(found, tested)
    give("\n".join(texts))
    program(folder, f"--output={tmp_path}/out.parquet")
    assert pa.parquet.read_table(tmp_path / "out.parquet").column("text").to_pylist() == texts
    give("")
    program(folder, f"--output={tmp_path}/empty.csv")
    assert (tmp_path / "empty.csv").read_text() == ",".join(["text", *ADDED]) + "\n"
    give("")
    program(folder, f"--output={tmp_path}/empty.parquet")
    assert pa.parquet.read_table(tmp_path / "empty.parquet").num_rows == 0
    assert "0 texts in" in capsys.readouterr().err


def test_the_program_from_a_pipe(folder):
    result = subprocess.run(
        [sys.executable, "-m", "experiments.predict", f"--workdir={folder}"],
        cwd=ROOT,
        input="the pound falls sharply\n€ up\n",
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["text"] for row in found] == ["the pound falls sharply", "€ up"]
    assert "texts/s" in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_file_is_read_in_parts(tmp_path):
    """Nothing is read of a file's end before its beginning has been handed on."""
    texts = [f"text {i}" for i in range(10)]
    (tmp_path / "a.csv").write_text("text\n" + "\n".join(texts) + "\n")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    pa.parquet.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=4)
    wanted = tables.Wanted("text", chunk_rows=4, whole=True)
    for suffix in (".csv", ".jsonl", ".parquet"):
        source = tables.open_table(tmp_path / f"a{suffix}", wanted)
        chunks = list(source.chunks())
        assert [len(chunk.cells) for chunk in chunks] == [4, 4, 2]
        assert [text for chunk in chunks for (text,) in chunk.cells] == texts
        first = 2 if suffix == ".csv" else 1
        assert [n for chunk in chunks for n in chunk.numbers] == list(range(first, first + 10))
        assert chunks[-1].share == 1

    def endless():
        yield from texts
        raise AssertionError("read further than asked for")

    source = tables.LinesReader(endless(), "lines", ".jsonl", wanted)
    chunks = source.chunks()
    for part in (texts[:4], texts[4:8]):
        assert [text for (text,) in next(chunks).cells] == part


def test_many_chunks_keep_the_order(predictor, tested, tmp_path):
    texts = [row["text"] for row in tested] * 3
    source = tables.LinesReader(texts, "lines", ".jsonl", tables.Wanted("text", chunk_rows=5))
    out = io.StringIO()
    done = predict.predict_table(predictor, source, out, on_bad_row="error").rows
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert done == len(texts) and [row["text"] for row in found] == texts
    check(found, tested * 3)


BAD = [
    ("in.csv", "text,n\nfine,1\n ,2\n", "{}, row 3: the text is empty"),
    ("in.csv", "text,n\nfine,1\nup, and down,2\n", "{}, row 3: 3 cells where the header has 2"),
    ("in.csv", "txt\nfine\n", "{}: no column 'text'; there: 'txt' (nearest: 'txt'); name the"),
    ("in.csv", "text,predicted_score\nfine,1\n", "{}: column 'predicted_score' is there already"),
    ("in.csv", "", "{}: the file is empty"),
    ("in.csv", 'text\n"fine\n', "{}, row 2: a quote opened here is never closed"),
    ("in.jsonl", '{"text": "fine"}\n{"text": 3}\n', "{}, row 2: the text 3 is of type int"),
    ("in.jsonl", '{"text": "fine"}\n["text"]\n', "{}, row 2: a list where an object"),
    (
        "in.jsonl",
        '{"text": "a", "text": "b"}\n',
        "{}, row 1: not JSON that can be read: key 'text' is there 2 times",
    ),
    ("in.jsonl", '{"txt": "a"}\n', "{}: no column 'text'; there: 'txt' (nearest: 'txt'); name the"),
    (
        "in.jsonl",
        '{"text": "\\ud800"}\n',
        "{}, row 1: the text '\\ud800' holds half a surrogate pair",
    ),
    ("in.parquet", "no parquet", "{}: not a readable Parquet file"),
    ("in.doc", "fine\n", "{}: unknown file type '.doc'; known: .csv, .tsv, .txt, .jsonl, .ndj"),
    (
        "in.csv",
        "txt;n\nfine;1\n",
        "{}: no column 'text'; there: 'txt', 'n' (nearest: 'txt'); name",
    ),
]


@pytest.mark.parametrize("name, content, message", BAD)
def test_a_mistake_is_one_line_and_no_output(shared, folder, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    out = tmp_path / f"out{path.suffix.replace('doc', 'csv')}"
    with pytest.raises(ValueError) as caught:
        program(folder, f"--input={path}", f"--output={out}", "--on_bad_row=error")
    said = str(caught.value)
    assert said.startswith(message.format(path)) and "\n" not in said
    # The rows before it are not lost.
    (tmp_path / f"out.incomplete{out.suffix}").unlink(missing_ok="before it are in" not in said)
    assert list(tmp_path.iterdir()) == [path]


def test_a_row_without_a_usable_text_keeps_its_place(
    shared, folder, tested, tmp_path, monkeypatch, capsys
):
    up = tested[0]["text"]
    lines = [up, "", up, "   ", "\u200b", up]

    def empty(found):
        return [i for i, row in enumerate(found) if row["predicted_category"] in ("", None)]

    content = "\n".join(lines) + "\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    program(folder)
    read = capsys.readouterr()
    found = [json.loads(line) for line in read.out.splitlines()]
    assert [row["text"] for row in found] == lines
    assert found[1]["predicted_score"] is None and set(empty(found)) >= {1, 3}
    check([row for i, row in enumerate(found) if lines[i] == up], [tested[0]] * 3)
    assert re.search(r"[23] bad rows without a prediction: standard input, row 2: the", read.err)

    pa.parquet.write_table(
        pa.table({"text": [up, None, up], "n": [1, 2, 3]}), tmp_path / "in.parquet"
    )
    program(folder, f"--input={tmp_path}/in.parquet", f"--output={tmp_path}/out.parquet")
    found = pa.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert empty(found) == [1] and [row["n"] for row in found] == [1, 2, 3]
    # A record that cannot be read has no place to keep.
    (tmp_path / "in.csv").write_text(f'text,n\n"{up}",1\na,b,c\n,3\n"{up}",4\n')
    program(folder, f"--input={tmp_path}/in.csv", f"--output={tmp_path}/out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert empty(found) == [1] and [row["n"] for row in found] == ["1", "3", "4"]
    said = capsys.readouterr().err
    assert "1 bad rows left out" in said and "row 3: 3 cells where the header has 2" in said
    (tmp_path / "in.jsonl").write_text(f'{{"text": "{up}"}}\n{{"n": 1}}\n')
    program(folder, f"--input={tmp_path}/in.jsonl", f"--output={tmp_path}/out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows[1]["n"] == 1 and empty(rows) == [1]


def test_scores_beyond_the_range_are_its_ends(predictor, folder, tested, tmp_path, capsys):
    texts = [row["text"] for row in tested]
    strong, far = copy.copy(predictor), predictor.run
    heads = dict(far.psi)
    heads["regression"] = jax.tree.map(lambda x: 40 * x, heads["regression"])
    strong.run = dataclasses.replace(far, psi=heads)
    clipped = strong.predict(texts).score
    strong.clip_scores = False
    beyond = strong.predict(texts).score
    assert np.abs(beyond).max() > 1 and Config().clip_scores
    np.testing.assert_array_equal(clipped, np.clip(beyond, -1, 1))
    (tmp_path / "in.csv").write_text("text\n" + "".join(f'"{text}"\n' for text in texts))
    for option, wanted in (("--clip_scores", clipped), ("--no-clip_scores", beyond)):
        out = tmp_path / f"{option.strip('-')}.csv"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(predict.Predictor, "load", lambda *args: copy.copy(strong))
            program(folder, f"--input={tmp_path}/in.csv", f"--output={out}", option)
        with out.open(newline="") as file:
            found = [float(row["predicted_score"]) for row in csv.DictReader(file)]
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
        said = f"{int((np.abs(beyond) > 1).sum())} scores lie beyond -1 to 1, given as its ends"
        assert (said in capsys.readouterr().err) == (option == "--clip_scores")


def test_bad_rows_can_be_left_out(shared, folder, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_bytes(
        b'{"text": "up"}\nnonsense\n{"text": null}\n{"text": "\xff"}\n{"text": "down"}\n'
    )
    files = f"--input={tmp_path}/in.jsonl", f"--output={tmp_path}/out.jsonl"
    program(folder, *files, "--on_bad_row=skip", "--encoding=utf-8")
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["up", "down"]
    said = capsys.readouterr().err
    assert "3 bad rows left out" in said and "in.jsonl, row 2: not JSON" in said
    table = pa.table({"text": ["up", None, "down"], "n": [1, 2, 3]})
    pa.parquet.write_table(table, tmp_path / "in.parquet")
    files = f"--input={tmp_path}/in.parquet", f"--output={tmp_path}/out.parquet"
    program(folder, *files, "--on_bad_row=skip")
    assert pa.parquet.read_table(tmp_path / "out.parquet").column("n").to_pylist() == [1, 3]


@pytest.mark.parametrize("suffix", (".csv", ".jsonl", ".parquet"))
def test_several_files_come_out_as_one_in_their_order(shared, folder, tested, tmp_path, suffix):
    texts = [row["text"] for row in tested]

    def write(name, part, column="n"):
        numbered = [f"{name} {i}" for i in range(len(part))]
        schema = pa.schema([("text", pa.string()), (column, pa.string())])
        table = pa.table({"text": part, column: numbered}, schema=schema)
        path = tmp_path / f"{name}{suffix}"
        if suffix == ".parquet":
            pa.parquet.write_table(table, path)
        elif suffix == ".csv":
            pa.csv.write_csv(table, path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
        return path

    def read(path):
        if suffix == ".parquet":
            return pa.parquet.read_table(path).to_pylist()
        with path.open(newline="") as file:
            return list(csv.DictReader(file) if suffix == ".csv" else map(json.loads, file))

    first, none, last = write("a", texts[:5]), write("b", []), write("c", texts[5:])
    out = tmp_path / f"out{suffix}"
    for given in (f"{tmp_path}/[abc]{suffix}", f"{first},{none},{last}"):
        program(folder, f"--input={given}", f"--output={out}", "--overwrite")
        found = read(out)
        check(found, tested)
        assert [row["text"] for row in found] == texts
        assert [row["n"] for row in found][4:6] == ["a 4", "c 0"]

    write("c", [*texts[5:7], " "])
    again = f"--input={first},{last}", f"--output={out}", "--overwrite", "--on_bad_row=error"
    with pytest.raises(ValueError, match=rf"c{re.escape(suffix)}, row \d: the text is empty"):
        program(folder, *again)
    if suffix != ".jsonl":  # whose rows may have any keys
        write("c", texts[5:], "m")
        with pytest.raises(ValueError, match=r"c\..*its columns are not those of .*a\."):
            program(folder, f"--input={first},{last}", f"--output={out}", "--overwrite")
    with pytest.raises(ValueError, match="z.*matches no file"):
        program(folder, f"--input={tmp_path}/z*{suffix}", f"--output={out}", "--overwrite")
    assert read(out) == found


def test_scores_come_back_in_the_files_own_range(predictor, folder, tested, tmp_path, monkeypatch):
    scaled = copy.copy(predictor)
    config = Config.of(predictor.run.config, score_range=(0, 10))
    scaled.run = dataclasses.replace(predictor.run, config=config)
    monkeypatch.setattr(predict.Predictor, "load", lambda *args: scaled)
    texts = [row["text"] for row in tested]
    # Lines of text, and tabs in another encoding without a header.
    (tmp_path / "in.txt").write_text("\n".join(texts) + "\n")
    (tmp_path / "in.tsv").write_text("".join(f"{text}\té\n" for text in texts), "utf-16")
    options = {"in.txt": [], "in.tsv": ["--columns=text,mark"]}
    for name, more in options.items():
        out = tmp_path / name.replace("in", "out").replace(".txt", ".csv")
        program(folder, f"--input={tmp_path / name}", f"--output={out}", *more)
        with out.open(newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file, delimiter="," if out.suffix == ".csv" else "\t"))
        check(found, tested)
        assert [row["text"] for row in found] == texts
        assert {row.get("mark", "é") for row in found} == {"é"}
        for row in found:
            score = float(row["predicted_score"])
            assert float(row["predicted_in_range"]) == pytest.approx(5 * (score + 1), rel=1e-12)


def test_files_of_two_types_have_no_one_output(tmp_path):
    for name in ("a.csv", "b.jsonl"):
        (tmp_path / name).write_text("text\nup\n")
    with pytest.raises(ValueError, match=r"b\.jsonl is \.jsonl and .*a\.csv \.csv"):
        tables.open_tables([tmp_path / "a.csv", tmp_path / "b.jsonl"], tables.Wanted("text"))


def test_how_much_of_several_files_is_read(tmp_path):
    for name, rows in (("a.csv", 1), ("b.csv", 7)):
        (tmp_path / name).write_text("text\n" + "up\n" * rows)
    wanted = tables.Wanted("text", chunk_rows=4)
    source = tables.open_tables([tmp_path / "a.csv", tmp_path / "b.csv"], wanted)
    shares = [chunk.share for chunk in source.chunks()]
    assert shares == sorted(shares) and shares[0] == pytest.approx(8 / 34) and shares[-1] == 1


def test_an_output_is_not_overwritten_unless_asked(shared, folder, tmp_path):
    (tmp_path / "in.csv").write_text("text\nup\n")
    (tmp_path / "out.csv").write_text("mine")
    files = f"--input={tmp_path}/in.csv", f"--output={tmp_path}/out.csv"
    with pytest.raises(ValueError, match="is there already"):
        program(folder, *files)
    assert (tmp_path / "out.csv").read_text() == "mine"
    program(folder, *files, "--overwrite")
    assert (tmp_path / "out.csv").read_text().startswith("text,predicted_score")
    with pytest.raises(ValueError, match=r"the input is \.csv"):
        program(folder, files[0], f"--output={tmp_path}/out.jsonl")


def test_a_failure_in_between_leaves_what_there_was_by_another_name(
    predictor, shared, folder, tmp_path, monkeypatch
):
    (tmp_path / "in.csv").write_text("text\n" + "up\n" * 20)
    calls = []

    def fail(ids):
        calls.append(len(ids))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return type(predictor).predict_ids(predictor, ids)

    monkeypatch.setattr(predictor, "predict_ids", fail, raising=False)
    monkeypatch.setattr(predict, "_BATCHES", 1)
    with pytest.raises(KeyboardInterrupt):
        program(folder, f"--input={tmp_path}/in.csv", f"--output={tmp_path}/out.csv")
    there = sorted(path.name for path in tmp_path.iterdir())
    assert calls == [8, 8] and there == ["in.csv", "out.incomplete.csv"]
    lines = (tmp_path / "out.incomplete.csv").read_text().splitlines()
    assert len(lines) == 9 and all(line.startswith("up,") for line in lines[1:])


def test_occlusion_is_what_is_lost_without_a_word(predictor, shared, folder, tmp_path):
    texts = ["the pound falls sharply", "up"]
    whole = predictor.predict(texts)
    found = occlusion.explain(predictor, texts, whole)
    assert [[entry["word"] for entry in row] for row in found] == [text.split() for text in texts]
    masked = predictor(["the pound <mask> sharply"])[0]
    entry = found[0][2]
    assert entry["score"] == pytest.approx(abs(whole.score[0]) - abs(masked.score), abs=1e-5)
    lost = whole.probabilities[0].max() - masked.probabilities[whole.category[0]]
    assert entry["probability"] == pytest.approx(lost, abs=1e-5)
    (tmp_path / "in.csv").write_text("text\n" + "\n".join(texts) + "\n")
    files = f"--input={tmp_path}/in.csv", f"--output={tmp_path}/out.csv"
    program(folder, *files, "--explain=occlusion")
    with (tmp_path / "out.csv").open(newline="") as file:
        column = [json.loads(row["explanation"]) for row in csv.DictReader(file)]
    assert [[entry["word"] for entry in row] for row in column] == [text.split() for text in texts]
    assert column[0][2]["score"] == pytest.approx(entry["score"], abs=1e-5)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    pytest.importorskip("torch")
    place = trained_runs.backbone("llama", tmp_path_factory.mktemp("llama"))
    return trained_runs.make("llama", place, tasks=("regression",), category_names=())


def test_regression_alone_takes_the_category_from_the_thresholds(decoder):
    found = Predictor(decoder)(trained_runs.TEXTS)
    scores = np.clip([one.score for one in found], -1, 1)
    wanted = stratify.categorize(scores, trained_runs.THRESHOLDS)
    assert [one.category for one in found] == list(wanted)
    assert all(one.probabilities is None and one.name is None for one in found)
    assert list(predict.columns(Predictor(decoder), "none")) == [
        "predicted_score",
        "predicted_category",
        "truncated",
    ]


def test_a_text_is_read_by_the_mask_where_it_ends_with_what_pads(decoder):
    predictor = Predictor(decoder)
    ids = predictor.encode(["pound falls", "yen slides against the dollar, and then some more"])
    pad = decoder.tokenizer.pad_token_id
    ending = np.append(ids[0], pad)
    alone = predictor.predict_ids([ending]).score[0]
    padded = predictor.predict_ids([ending, ids[1]]).score[0]
    assert padded == pytest.approx(alone, abs=1e-5)
    assert abs(alone - predictor.predict_ids([ids[0]]).score[0]) > 1e-3


def test_a_text_that_is_cut_or_has_no_token_is_told(decoder):
    predictor = Predictor(decoder)
    assert [one.truncated for one in predictor(["pound", "pound " * 40])] == [False, True]
    for text in ("", "  ", "\u200b\u200d\ufeff"):
        with pytest.raises(ValueError, match=r"texts, row 1: the text .* has no token"):
            predictor(["pound", text])


def test_the_program_tells_of_each_row_whether_it_was_cut_and_leaves_out_what_it_cannot_read(
    decoder, tmp_path
):
    (tmp_path / "in.csv").write_text("text\npound\n\u200b\n" + "pound " * 40 + "\n", "utf-8")
    predictor, cut = Predictor(decoder), []
    reader = tables.open_tables([str(tmp_path / "in.csv")], tables.Wanted("text", whole=True))
    done = predict_table(predictor, reader, tmp_path / "out.csv", on_bad_row="skip", cut=cut.append)
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [row["truncated"] for row in csv.DictReader(file)] == ["0", "1"]
    assert done.rows == 2 and sum(cut) == 1
    (problem,) = done.left_out
    assert "row 3: the text" in problem and "nothing that can be read" in problem


def test_occlusion_without_a_mask_token_leaves_the_word_out(decoder):
    decoder.tokenizer.mask_token = None
    predictor = Predictor(decoder)
    found = occlusion.explain(
        predictor, ["pound falls", "yen"], predictor.predict(["pound falls", "yen"])
    )
    whole, rest = predictor(["pound falls", "falls"])
    assert found[0][0]["score"] == pytest.approx(abs(whole.score) - abs(rest.score), abs=1e-5)
    assert found[1] == [{"word": "yen", "score": None}]


def test_only_a_finished_run_is_loaded(folder, tmp_path):
    def broken(*names, change=None):
        copy = tmp_path / "_".join(names or ("changed",))
        shutil.copytree(folder, copy)
        for name in names:
            shutil.rmtree(copy / name) if (copy / name).is_dir() else (copy / name).unlink()
        return copy

    def fails(path, message):
        with pytest.raises(ValueError, match=message) as caught:
            saved.load(path)
        assert "\n" not in str(caught.value)

    fails(tmp_path / "nowhere", "holds no run: there is no config.json")
    fails(broken("summary.json"), "is not finished: there is no summary.json")
    fails(broken("checkpoints", saved.WEIGHTS), "has no checkpoint")
    assert saved.load(broken("checkpoints")).config.lora_rank == 2
    fails(broken("tokenizer"), "tokenizer is gone")
    copy = broken()
    stored = json.loads((copy / "config.json").read_text())
    stored["config"] |= {"backbone": str(tmp_path / "gone")}
    (copy / "config.json").write_text(json.dumps(stored))
    fails(copy, "whose frozen parameters it does not hold")
