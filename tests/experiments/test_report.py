"""The page on runs: from folders made here, from a trained one, and opened in a browser."""

import csv
import html
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter

import numpy as np
import pytest
import sklearn.metrics

from dwa_jax.finetune.run_records import MetricsFile
from experiments import report
from experiments.reports import pictures
from tests.experiments import pages, run_folders
from tests.experiments.run_folders import make

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
SCRIPT = '<script>alert(1)</script><img src=x onerror="alert(2)">'
LONG = "W" * 700  # nothing in it where a line could break
ODD = "one & two\x07<b> $x_1$"
GRADNORM = ("gradient_norm_regression", "gradient_norm_classification", "gradient_norm")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Runs of every kind that the page has to bear."""
    place = tmp_path_factory.mktemp("runs")
    given = run_folders.rows()
    given.texts[1], given.texts[2] = f"{SCRIPT} {ODD}", LONG
    given.scores[1:3] = 1.0, -1.0
    weights = ("weight_regression", "weight_classification")
    three = {"thresholds": (-0.3, 0.3), "split": "validation", "tasks": ("classification",)}
    made = {
        "odd": make(place / "dwa <i>$a$ & b", given, quantities=(*weights, *GRADNORM), far=(1, 2)),
        "constant": make(place / "constant", given, quantities=weights, seed=2),
        "alone": make(place / "alone", given, quantities=(), seed=3, tasks=("regression",)),
        "classes": make(
            place / "classes",
            given,
            category_names=("down", "still", "up"),
            seed=4,
            **three,
        ),
        "begun": make(place / "begun", finished=False, steps=400, seed=5),
        "empty": make(place / "empty", finished=False, steps=0),
        "other": make(place / f"other{'x' * 60}", run_folders.rows(seed=1), seed=6),
    }
    with (made["begun"] / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "step": 40')  # in the middle of a line
    # A loss that was not finite is null there.
    run_folders.log_again(
        made["constant"], lambda r: r | ({"loss_regression": None} if r["step"] == 20 else {})
    )
    return made


@pytest.fixture(scope="module")
def sources(folders, tmp_path_factory):
    place = tmp_path_factory.mktemp("pages")
    several = [folders[name] for name in ("odd", "constant", "alone", "classes", "begun", "other")]
    paths = {
        "one": report.write([folders["odd"]], place / "one.html"),
        "several": report.write(several, place / "several.html"),
        "empty": report.write([folders["empty"]], place / "empty.html"),
        "classes": report.write([folders["classes"]], place / "classes.html"),
    }
    return paths


@pytest.fixture(scope="module")
def read(sources):
    return {name: pages.read(path.read_text("utf-8")) for name, path in sources.items()}


def _csv(folder):
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["one", "several", "empty", "classes"])
def test_the_page_is_whole_and_loads_nothing(sources, read, name):
    source, page = sources[name].read_text("utf-8"), read[name]
    assert page.open == []
    ElementTree.fromstring(source.split("\n", 1)[1])
    assert all(target.startswith("#") for target in page.loads)
    assert not page.tags & {"script", "link", "img", "image", "iframe", "object", "embed", "base"}
    assert "http://" not in source and "https://" not in source and "@import" not in source
    referred = re.findall(r"url\((.*?)\)", source)
    assert all(target.startswith("#") for target in referred)
    assert len(set(page.ids)) == len(page.ids)
    assert {target[1:] for target in [*page.loads, *referred]} <= set(page.ids)
    assert "default-src 'none'" in source
    assert not re.search(r"\b(nan|NaN|None|null|inf)\b", page.words)


def test_hostile_texts_and_names_are_text(read, sources):
    for name in ("one", "several"):
        assert any(SCRIPT in row[1] for row in read[name].rows if len(row) > 1)
        assert "one & two\N{REPLACEMENT CHARACTER}<b> $x_1$" in read[name].words
        assert "dwa <i>$a$ & b" in read[name].words
        assert not {"i", "b", "script", "img"} & read[name].tags
    # In a picture as well, where a dollar would begin a formula.
    drawn = re.findall(r"<text.*?</text>", sources["several"].read_text("utf-8"), re.DOTALL)
    assert any("1 dwa &lt;i&gt;$a$ &amp; b" in text for text in drawn)


def test_the_worst_rows_are_those_of_the_largest_errors(folders, read):
    rows = [row for row in _csv(folders["odd"]) if row["score"]]
    rows.sort(key=lambda row: -abs(float(row["predicted_score"]) - float(row["score"])))
    shown = read["one"].table("error", "text")
    assert len(shown) == 20
    for row, cells in zip(rows[:20], shown, strict=True):
        text, numbers = cells[1], [float(cell.replace("−", "-")) for cell in (cells[0], *cells[2:])]
        expected = html.unescape(row["text"]).replace("\x07", "\N{REPLACEMENT CHARACTER}")
        assert text == expected or (text == LONG[:400] + "…" and expected == LONG)
        true, predicted = float(row["score"]), float(row["predicted_score"])
        classes = [int(row["category"]), int(row["predicted_category"])]
        assert numbers == pytest.approx([predicted - true, true, predicted, *classes], abs=6e-4)


def test_without_regression_the_surest_mistakes_are_the_worst(folders, read):
    wrong = [
        (float(row[f"probability_{row['predicted_category']}"]), row)
        for row in _csv(folders["classes"])
        if row["category"] and row["category"] != row["predicted_category"]
    ]
    wrong.sort(key=lambda pair: -pair[0])
    names = ("0 down", "1 still", "2 up")
    shown = read["classes"].table("probability", "text")
    assert len(shown) == min(20, len(wrong)) > 10
    for (probability, row), cells in zip(wrong[:20], shown, strict=True):
        assert float(cells[0]) == pytest.approx(probability, abs=6e-4)
        assert cells[2:] == [names[int(row[key])] for key in ("category", "predicted_category")]
    assert "Predicted and true scores" not in read["classes"].words
    assert "Errors by class" not in read["classes"].words


def test_the_confusion_is_that_of_the_predictions(folders, read):
    (label,) = [text for text in read["one"].labels if text.startswith("Confusion")]
    rows = [row for row in _csv(folders["odd"]) if row["category"]]
    true, predicted = (
        [int(row[key]) for row in rows] for key in ("category", "predicted_category")
    )
    expected = sklearn.metrics.confusion_matrix(true, predicted, labels=range(5))
    found = re.findall(r"true \d: ([\d, ]+)", label)
    assert [[int(count) for count in row.split(",")] for row in found] == expected.tolist()


def test_the_error_of_each_class_and_its_rows(folders, read):
    squared, counts = Counter(), Counter()
    for row in _csv(folders["odd"]):
        if row["score"]:
            squared[row["category"]] += (float(row["predicted_score"]) - float(row["score"])) ** 2
            counts[row["category"]] += 1
    second = [rows for rows in read["one"].tables if rows[0][0] == "class"][1]
    shown = dict(second[1:])
    assert shown.keys() == counts.keys()
    for k, cell in shown.items():
        assert float(cell.split()[0]) == pytest.approx(squared[k] / counts[k], rel=1e-3)
        assert cell.split()[1:] == [str(counts[k]), "rows"]


def test_what_the_runs_differ_in(read):
    rows = {row[0]: row[1:] for row in read["several"].table("key")}
    assert rows["num_classes"] == ["5", "5", "5", "3", "5", "5"]
    assert rows["tasks"][2:4] == ['["regression"]', '["classification"]']
    assert set(rows) == {"num_classes", "tasks", "category_names"}
    rows = {row[0]: row[1] for row in read["classes"].table("key")}
    assert rows["num_classes"] == "3" and "seed" not in rows


def test_an_unfinished_run_is_shown_as_far_as_it_went(folders, read):
    page = read["several"]
    assert "5 begun is not finished" in page.words
    rows = {row[0]: row[1:] for row in page.table("")}
    assert rows["state"][4] == "not finished: at step 4000 of epoch 21"
    assert rows["epochs"][3:5] == ["2, best 2", "26 of 2 evaluated"]
    results = {row[0]: row[1:] for row in page.table("metric")}
    assert results["graded on"][4] == "validation split after epoch 26"
    assert results["graded on"][3:6:2] == ["validation split", "test split"]
    records = MetricsFile(folders["begun"] / "metrics.jsonl").read()
    mse = [record["mse"] for record in records if record["kind"] == "evaluation"][-1]
    assert float(results["MSE"][4]) == pytest.approx(mse, abs=6e-5)
    assert results["MSE"][3] == "–"
    assert "is not finished" in read["empty"].words
    assert "Nothing is logged yet." in read["empty"].words


def test_what_cannot_be_compared_is_said(read):
    words = read["several"].words
    assert "4 classes has no test split" in words
    assert re.search(r"Other rows than those of 1 dwa .* were predicted by 6 otherx+: ", words)
    assert re.search(r"The same rows as in 1 dwa .* other true classes in 4 classes: ", words)


def test_a_picture_names_the_runs_that_have_its_quantity(read):
    labels = {text.partition(", over steps: ")[0]: text for text in read["several"].labels}
    gradient = labels["gradient norm, regression"].partition(": ")[2]
    assert gradient.startswith("1 dwa") and "," not in gradient
    weight = labels["w, learned or constant weights"].partition(": ")[2]
    assert weight.startswith("1 dwa") and weight.endswith("2 constant")
    regression = labels["loss, regression"].partition(": ")[2]
    assert [name[:1] for name in regression.split(", ")] == ["1", "2", "3", "5", "6"]
    assert "Not logged by 4 classes." in read["several"].words


def test_a_missing_value_is_a_gap_and_many_records_are_averaged():
    (look,) = pictures.looks(["run"])

    def moves(values):
        series = pictures.Series(look, range(len(values)), values)
        svg = pictures.draw_curves("curve", "loss", [series], alone=True)
        (line,) = re.findall(
            rf'<path d="([^"]*)"[^>]*stroke: {look.colour}[^>]*stroke-w', svg, re.I
        )
        return line.count("M"), line.count("L")

    assert moves([1.0, 2.0, np.nan, 4.0, 3.0]) == (2, 2)
    noise = np.random.default_rng(0).normal(size=5 * pictures.POINTS)
    assert pictures.POINTS / 2 < moves(noise)[1] < pictures.POINTS  # less what is nearly straight


def test_a_trained_run_has_a_page_of_its_own_numbers(finished_run, tmp_path):
    page = pages.read(report.write([finished_run], tmp_path / "page.html").read_text("utf-8"))
    summary = json.loads((finished_run / "summary.json").read_text("utf-8"))
    results = {row[0]: row[1] for row in page.table("metric")}
    assert float(results["MSE"]) == pytest.approx(summary["test"]["mse"], rel=1e-3)
    assert float(results["accuracy"]) == pytest.approx(summary["test"]["accuracy"], abs=6e-4)
    titles = {label.partition(",")[0] for label in page.labels}
    assert {"loss", "λ", "w", "α of the imbalance loss", "gradient norm", "Confusion"} <= titles
    thresholds = [row[1] for row in page.table("class")[:5]]
    for value, text in zip(summary["thresholds"], thresholds, strict=False):
        assert f"{value:+.3f}]".replace("-", "−") in text


def test_where_the_page_goes_and_what_it_does_not_replace(folders, tmp_path, monkeypatch, capsys):
    one, two = folders["alone"], folders["empty"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "report_page", lambda runs: "<p>dwa_jax experiments.report</p>")

    def program(*arguments):
        monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
        try:
            report.command.run(report.main)
        except SystemExit as end:
            assert end.code == 2
        captured = capsys.readouterr()
        return captured.out + captured.err

    assert program(f"--workdir={one}") == f"wrote {one / 'report.html'}\n"
    (one / "report.html").unlink()
    for arguments in (
        [f"--workdir={one}", two],
        ["--workdir", one, two],
        [f"--workdir={one}", f"--workdir={two}"],
    ):
        assert program(*arguments) == "wrote report.html\n"
        (tmp_path / "report.html").unlink()
    (tmp_path / "report.html").write_text("mine")
    assert program(f"--workdir={one}", two) == (
        "error: report.html is there already and no report of runs, or was changed since; "
        "give another --output, or --overwrite\n"
    )
    assert (tmp_path / "report.html").read_text() == "mine"
    assert "is a folder" in program(f"--workdir={one}", f"--output={tmp_path}")
    assert "no folder" in program(f"--workdir={one}", f"--output={tmp_path}/no/page.html")
    assert "twice" in program(f"--workdir={one}", one)
    assert program() == "error: the following arguments are required: --workdir\n"
    assert f"{tmp_path} holds no run" in program(f"--workdir={tmp_path}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html"]


def test_its_own_page_is_replaced(folders, tmp_path):
    path = report.write([folders["empty"]], tmp_path / "page.html")
    first = path.read_text("utf-8")
    report.write([folders["empty"]], path)
    assert path.read_text("utf-8") == first
    # One that was edited since is somebody's.
    edited = first.replace("</main>", "old</main>")
    path.write_text(edited, "utf-8")
    with pytest.raises(ValueError, match="or was changed since"):
        report.write([folders["empty"]], path)
    assert path.read_text("utf-8") == edited
    report.write([folders["empty"]], path, overwrite=True)
    assert path.read_text("utf-8") == first


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.json", "{", "config.json is damaged"),
        ("config.json", '{"config": {}}', "config.json is damaged: it has no config"),
        ("metrics.jsonl", "[]\n", "line 1 of .*metrics.jsonl is damaged"),
        ("summary.json", '{"predictions": "test"}', "summary.json is damaged: thresholds must be"),
        (
            "predictions.csv",
            "text,score\na,1\n",
            "predictions.csv is damaged at line 1: its columns",
        ),
        ("predictions.csv", None, "predictions.csv is damaged at line 3: could not convert"),
    ],
)
def test_a_damaged_file_is_named(folders, tmp_path, file, text, message):
    shutil.copytree(folders["constant"], tmp_path / "run")
    path = tmp_path / "run" / file
    if text is None:
        lines = path.read_text("utf-8").splitlines(keepends=True)
        lines[2] = re.sub(r",[^,]*\n", ",x\n", lines[2])
        text = "".join(lines)
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        report.write([tmp_path / "run"])
    assert not (tmp_path / "run" / "report.html").exists()


_PROBE = """<!DOCTYPE html><html><body>{frames}<pre id="found"></pre><script>
window.onload = () => {{
  const found = [...document.querySelectorAll("iframe")].map((frame) => {{
    const page = frame.contentDocument, root = page.documentElement;
    page.querySelectorAll("details").forEach((box) => box.open = true);
    const sizes = [...page.querySelectorAll("figure svg")].map((svg) => {{
      const box = svg.getBoundingClientRect();
      return [box.width, box.height, svg.querySelectorAll("path").length];
    }});
    const texts = [...page.querySelectorAll("svg text")];
    return {{
      width: root.clientWidth, scroll: root.scrollWidth, height: root.scrollHeight,
      sizes: sizes, texts: texts.map((text) => text.getBoundingClientRect().width),
      scripts: page.scripts.length,
      words: page.body.innerText, font: getComputedStyle(page.body).fontSize,
    }};
  }});
  document.getElementById("found").textContent = JSON.stringify(found);
}};
</script></body></html>
"""


def test_a_browser_shows_the_pages_at_a_phones_width_too(sources, tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"there is no browser: none of {', '.join(BROWSERS)} is on the PATH")
    # What it has to find, so that finding nothing means something.
    bad = (
        "<!DOCTYPE html><div style='width: 500px'>wide</div><script>console.error('seen')</script>"
    )
    (tmp_path / "bad.html").write_text(bad)
    shown = [(sources[name], width) for name in ("one", "several") for width in (360, 1280)]
    shown.append((tmp_path / "bad.html", 360))
    style = "height: 900px; border: 0"
    frames = "".join(
        f'<iframe src="{path.as_uri()}" style="width: {width}px; {style}"></iframe>'
        for path, width in shown
    )
    probe = tmp_path / "probe.html"
    probe.write_text(_PROBE.format(frames=frames), "utf-8")
    options = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic"
    options += " --no-first-run --disable-background-networking --disable-component-update"
    options += " --disable-sync --hide-scrollbars --allow-file-access-from-files"
    options += " --enable-logging=stderr --dump-dom"
    command = [browser, *options.split(), f"--user-data-dir={tmp_path / 'profile'}", probe.as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', ended.stdout, re.DOTALL)
    *good, bad = json.loads(html.unescape(found))
    assert bad["scroll"] >= 500 > bad["width"] == 360
    said = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    assert len(said) == 1 and "seen" in said[0]
    for (path, width), page in zip(shown, good, strict=False):
        assert page["width"] == page["scroll"] == width, path
        assert page["height"] > 3000 and page["font"] == "16px" and page["scripts"] == 0
        assert len(page["sizes"]) == path.read_text("utf-8").count("<svg") > 10
        for wide, high, paths in page["sizes"]:
            assert 250 < wide <= width and high > 100 and paths > 5
        assert page["texts"] and min(page["texts"]) > 0
        assert SCRIPT in page["words"] and "W" * 400 in page["words"]
