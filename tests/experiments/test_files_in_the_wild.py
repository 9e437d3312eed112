"""Files as people have them: the dry run's guess becomes one command, and it reads them right."""

import csv
import gzip
import io
import json
import shlex
import sys
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from absl import flags
from ml_collections import config_flags

from dwa_jax.data import cells, headlines
from dwa_jax.data.guess import guess
from dwa_jax.finetune import corpus
from dwa_jax.finetune.config import Config
from experiments.terminal import preview

# ml_collections loads a configuration so.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
]

COUNT = 60
ROWS = headlines.generate(COUNT, 7)
TEXTS = [f"{('Café', 'Zürich', 'plain')[i % 3]} {i}: {text}" for i, text in enumerate(ROWS.texts)]
# Three grades and five, spread over the rows whatever their scores.
THREE = [-1 + i % 3 for i in range(COUNT)]
FIVE = [(i * 7) % 5 for i in range(COUNT)]
DECIMALS = [round(score, 3) for score in ROWS.scores]
AWKWARD = [text + ' "so", he said; more' for text in TEXTS]


def words(*names):
    return [names[grade + 1] for grade in THREE]


# labels as they are written -> what they mean in [-1, 1]
LABELS = {
    "decimals": (DECIMALS, DECIMALS),
    "commas": ([str(score).replace(".", ",") for score in DECIMALS], DECIMALS),
    "signs": (THREE, THREE),
    "words": (words("negative", "neutral", "positive"), THREE),
    "Words": (words("Negative", "NEUTRAL", " Positive "), THREE),
    "markets": (words("bearish", "neutral", "bullish"), THREE),
    "short": (words("neg", "neu", "pos"), THREE),
    "degrees": (
        [
            ("Extremely Negative", "Negative", "Neutral", "Positive", "Extremely Positive")[k]
            for k in FIVE
        ],
        [(k - 2) / 2 for k in FIVE],
    ),
    "stars": ([k + 1 for k in FIVE], [(k - 2) / 2 for k in FIVE]),
    "stars_as_floats": ([float(k + 1) for k in FIVE], [(k - 2) / 2 for k in FIVE]),
    "stars_in_words": (
        [f"{k + 1} star{'s' * (k > 0)}" for k in FIVE],
        [(k - 2) / 2 for k in FIVE],
    ),
    "four": ([2 * grade + 2 for grade in THREE], THREE),
    "zero_or_one": ([(grade + 1) / 2 for grade in THREE], THREE),
    "percent": ([f"{50 * (grade + 1)}%" for grade in THREE], THREE),
    "hundred": ([50 * (grade + 1) for grade in THREE], THREE),
    # Words without a known order are categories.
    "moods": (words("anger", "joy", "fear"), [None] * COUNT),
    "sides": ([1 + k % 2 for k in FIVE], [2 * (k % 2) - 1 for k in FIVE]),
    "valence": ([round(4 * grade + 5, 3) for grade in DECIMALS], DECIMALS),
    "booleans": (["true" if k % 2 else "false" for k in FIVE], [2 * (k % 2) - 1 for k in FIVE]),
}


def delimited(
    labels, delimiter=",", header=("text", "score"), before=(), texts=TEXTS, encoding="utf-8"
):
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    if header:
        writer.writerow([*["id"][: len(before)], *header])
    for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
        writer.writerow([*[i + 100][: len(before)], text, label])
    return out.getvalue().encode(encoding)


def plain(labels, delimiter, texts=TEXTS, encoding="utf-8", label_first=False):
    rows = zip(labels, texts, strict=True) if label_first else zip(texts, labels, strict=True)
    return "".join(f"{a}{delimiter}{b}\n" for a, b in rows).encode(encoding)


def objects(labels, row, one_a_line=True, indent=None):
    rows = [row(text, label) for text, label in zip(TEXTS, labels, strict=True)]
    if one_a_line:
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    return json.dumps(rows, indent=indent, ensure_ascii=False).encode()


def parquet(labels, names=("text", "score"), texts=TEXTS):
    out = io.BytesIO()
    pa.parquet.write_table(pa.table({names[0]: list(texts), names[1]: list(labels)}), out)
    return out.getvalue()


def excel(labels, names=("text", "score")):
    openpyxl = pytest.importorskip("openpyxl")
    book, out = openpyxl.Workbook(), io.BytesIO()
    for row in (names, *zip(TEXTS, labels, strict=True)):
        book.active.append(row)
    book.save(out)
    return out.getvalue()


def shape(name, make, labels, texts=TEXTS):
    return pytest.param(name, make, labels, texts, id=f"{name}-{labels}-{make.__name__}")


def named(make, **options):
    def made(labels):
        return make(labels, **options)

    made.__name__ = "-".join(f"{k}={v!r}"[:30] for k, v in options.items() if k != "row") or "plain"
    return made


def with_index(labels):
    frame = io.StringIO()
    for i, (text, label) in enumerate(zip(TEXTS, labels, strict=True)):
        frame.write(f'"{i + 1}","{text}",{label}\n')
    return b"text,score\n" + frame.getvalue().encode()


def with_pandas_index(labels):
    rows = zip(TEXTS, labels, strict=True)
    lines = [f'{i},"{text}",{label}\n' for i, (text, label) in enumerate(rows)]
    return (",sentence,label\n" + "".join(lines)).encode()


def twice_named(labels):
    rows = zip(TEXTS, labels, strict=True)
    lines = [f'x,"{text}",{label},y{i}\n' for i, (text, label) in enumerate(rows)]
    return ("note,headline,sentiment,note\n" + "".join(lines)).encode()


def stray_quotes(labels):
    rows = zip(TEXTS, labels, strict=True)
    return ("tweet\tsentiment\n" + "".join(f'"{t}\t{label}\n' for t, label in rows)).encode()


def sentiment140(labels):
    rows = zip(labels, TEXTS, strict=True)
    lines = [
        f'"{label}","{i + 9**9}","Mon Apr 06","NO_QUERY","u{i}","{t}"\n'
        for i, (label, t) in enumerate(rows)
    ]
    return "".join(lines).encode("latin-1")


STRAY = ['"' + text for text in TEXTS]
SHAPES = [
    shape("a.csv", named(delimited), "decimals"),
    shape("b.csv", named(delimited, encoding="utf-8-sig", header=("Text", "Score")), "decimals"),
    shape("c.csv", named(delimited, delimiter=";"), "commas"),
    shape("d.csv", named(delimited, encoding="cp1252", header=("Tweet", "Sentiment")), "words"),
    shape("e.csv", named(delimited, encoding="utf-16", header=("review", "rating")), "stars"),
    shape("f.csv", named(delimited, encoding="utf-16-le", header=("body", "label")), "markets"),
    shape("g.csv", named(delimited, delimiter="|", header=("news", "polarity")), "signs"),
    shape("h.csv", named(delimited, delimiter="\t", header=("title", "class")), "short"),
    shape("i.csv", named(delimited, before=(1,), header=("content", "target")), "four"),
    shape("j.csv", named(delimited, header=()), "Words"),
    shape("k.csv", named(delimited, header=(), delimiter=";"), "commas"),
    shape("l.csv", named(delimited, header=(), encoding="cp1252"), "stars"),
    shape("m.csv", named(delimited, header=("text", "stars")), "stars_as_floats"),
    shape("n.csv", named(delimited, header=("comment", "y")), "zero_or_one"),
    shape("o.csv", named(delimited, header=("message", "score")), "percent"),
    shape("p.csv", named(delimited, header=("phrase", "compound")), "hundred"),
    shape("q.csv", named(delimited, header=("sentence", "label")), "booleans"),
    shape("v.csv", named(delimited, header=("sentence", "label")), "sides"),
    shape("w.csv", named(delimited, header=()), "sides"),
    shape("x.csv", named(delimited, header=("word", "valence")), "valence"),
    shape("r.csv", named(delimited, texts=AWKWARD, delimiter=";"), "degrees", AWKWARD),
    shape("s.csv", with_pandas_index, "words"),
    shape("t.csv", with_index, "decimals"),
    shape("u.csv", twice_named, "words"),
    shape("training.csv", sentiment140, "four"),
    shape("yelp.csv", named(delimited, header=("review", "rating")), "stars_in_words"),
    shape("moods.csv", named(delimited, header=("utterance", "emotion")), "moods"),
    shape("a.tsv", named(delimited, delimiter="\t"), "decimals"),
    shape("b.tsv", named(plain, delimiter="\t", label_first=True), "words"),
    shape("c.tsv", stray_quotes, "words", STRAY),
    shape("d.tsv", named(delimited, delimiter="\t", encoding="utf-16"), "signs"),
    shape("all.txt", named(plain, delimiter="@", encoding="latin-1"), "words"),
    shape("b.txt", named(plain, delimiter="\t"), "decimals"),
    shape("c.txt", named(delimited, delimiter=";", header=("text", "emotion_score")), "signs"),
    shape("d.txt", named(plain, delimiter="|"), "words"),
    shape("a.jsonl", named(objects, row=lambda t, s: {"text": t, "score": s}), "decimals"),
    shape("b.ndjson", named(objects, row=lambda t, s: {"tweet": t, "label": s}), "Words"),
    shape(
        "c.json",
        named(objects, row=lambda t, s: {"headline": t, "sentiment": s}, one_a_line=False),
        "signs",
    ),
    shape(
        "d.json",
        named(
            objects,
            row=lambda t, s: {"id": 1, "review": t, "stars": s},
            one_a_line=False,
            indent=1,
        ),
        "stars",
    ),
    shape(
        "e.json",
        named(objects, row=lambda t, s: {"sentence": t, "info": [{"sentiment_score": str(s)}]}),
        "decimals",
    ),
    shape(
        "f.json",
        named(objects, row=lambda t, s: {"words": t.split(" "), "gold": {"label": s}}),
        "words",
    ),
    shape("a.parquet", named(parquet), "decimals"),
    shape("b.parquet", named(parquet, names=("sentence", "label")), "words"),
    shape("a.xlsx", named(excel), "decimals"),
    shape("b.xlsx", named(excel, names=("Comment", "Rating")), "stars"),
    shape("a.csv.gz", named(delimited, header=("Headline", "Label"), delimiter=";"), "words"),
    shape("b.jsonl.zst", named(objects, row=lambda t, s: {"text": t, "label": s}), "markets"),
]


def settings_of(command):
    """What the printed command would run."""
    found = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=found)
    program, *arguments = shlex.split(command)[2:]
    assert program == "experiments.main"
    with mock.patch.object(sys, "argv", [program, *arguments]):  # ml_collections asks it
        found([program, *arguments])
    return Config.of(found.config)


def test_there_are_forty_shapes():
    assert len(SHAPES) >= 40


@pytest.mark.parametrize(("name", "make", "labels", "texts"), SHAPES)
def test_the_command_of_the_dry_run_reads_the_file(tmp_path, name, make, labels, texts):
    written, meant = LABELS[labels]
    content = make(written)
    path = tmp_path / name
    if name.endswith(".gz"):
        content = gzip.compress(content)
    if name.endswith(".zst"):
        content = pa.compress(content, "zstd", asbytes=True)
    path.write_bytes(content)
    arguments = ["--config=configs/base.py", f"--config.train={path}", "--dry_run"]
    command = preview.command_of(arguments, guess(str(path), {}).keys)
    assert "dry_run" not in command
    config = settings_of(command)
    found = corpus.read_corpus(config)
    splits = found.rows
    if config.category_column:
        named_ = {
            text: config.category_names[category]
            for split, part in splits.items()
            for text, category in zip(part.texts, found.categories[split], strict=True)
        }
        assert [named_[text] for text in texts] == written
        assert config.tasks == ("classification",) and config.monitor == "f1_macro"
        return
    rows = {t: s for part in splits.values() for t, s in zip(part.texts, part.scores, strict=True)}
    assert rows.keys() == set(texts)
    np.testing.assert_allclose([rows[text] for text in texts], meant, rtol=0, atol=1e-12)
    # Predictions come back in the file's own range.
    if config.score_range and labels not in ("percent", "stars_in_words"):
        back = [cells.restore(rows[text], config.score_range) for text in texts]
        assert back == [float(label) for label in written]
