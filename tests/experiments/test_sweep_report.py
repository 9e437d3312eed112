"""The report of a sweep, written from results made up here."""

import copy
import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from experiments.pages import document, formatting
from experiments.sweeps import as_papers, report
from tests.experiments.pages import Page

BASELINE = "constant"
BETTER, WORSE, UNSURE = "dwa, stratifier kmeans", "dwa & das <literal>", "gradnorm | alpha=1.5"
REGRESSION = "regression_alone"
ERROR = "ValueError: epochs=0, expected at least 1 | see <log>"
FIXED = [-0.6, -0.2, 0.2, 0.6]
QUANTILES = [-0.41, -0.08, 0.17, 0.52]


def _run(dataset, backbone, method, seed, random):
    mse = 0.0432 * random.uniform(0.9, 1.1)
    by_class = [mse * k for k in (3, 1.2, 0.7, 1.1, 2.5)]
    test = {"mse": mse, "mae": 0.16, "r2": 0.71, "accuracy": 0.61, "f1_macro": 0.58}
    common = {"accuracy": 0.64, "f1_macro": 0.6, "balanced_mse": 1.7 * mse}
    also = {"headlines": {"mse": 3 * mse, "r2": 0.3, "accuracy": 0.4}}
    final = {"lambda_regression": 0.4, "alpha": 0.0, "beta": 0.41, "loss_regression": 0.01}
    return {
        "id": f"{dataset}-{backbone}-{method}-{seed}",
        "dataset": dataset,
        "backbone": backbone,
        "method": method,
        "seed": seed,
        "status": "finished",
        "error": None,
        "test": test,
        "common": common | {"mse_by_class": by_class},
        "also_tested": also if dataset == "fx" else {},
        "thresholds": QUANTILES if method == BETTER else FIXED,
        "best_epoch": 3,
        "epochs": 5,
        "skipped_steps": 0,
        "final": final,
        "batch_size": 8,
        "split": "test",
        "weights": {
            "start": {"share_classification": 0.5, "alpha": 0.1},
            "end": {"share_classification": 0.03 + 0.01 * seed, "alpha": 0.0},
        },
        "histograms": dict.fromkeys(("train", "true", "predicted"), [1, 2, 3, 4] * 10),
    }


def _curves(random):
    step = list(range(0, 2000, 4))
    found = {}
    for name, start, end in (
        ("lambda_regression", 0.5, 0.3),
        ("lambda_classification", 0.5, 0.7),
        ("weight_regression", 0.5, 0.9),
        ("weight_classification", 0.5, 0.1),
        ("alpha", 0.1, 0),
        ("beta", 0.5, 0.4),
        ("loss_regression", 0.3, 0.01),
        ("loss_classification", 1.6, 0.4),
        ("gradient_norm_regression", 2.0, 0.2),
    ):
        mean = end + (start - end) * np.exp(-np.array(step) / 500)
        mean = mean + 0.02 * random.normal(size=len(step))
        found[name] = {"step": step, "mean": [None, *mean.tolist()[1:]]}
        found[name] |= {"low": (mean - 0.05).tolist(), "high": (mean + 0.05).tolist()}
    return found


def make_results(methods=(BASELINE, BETTER, WORSE, UNSURE, REGRESSION), datasets=("fx", "news")):
    """Made-up results of every shape that the report has to bear."""
    random = np.random.default_rng(0)
    seeds, backbone = [0, 1, 2, 3, 4], "minilm"
    runs = [_run(d, backbone, m, s, random) for s in seeds for d in datasets for m in methods]
    for run in runs:
        if run["method"] == REGRESSION:
            run["test"]["accuracy"] = run["test"]["f1_macro"] = None
            run["common"] = None
    broken = [run for run in runs if run["method"] == UNSURE and run["dataset"] == datasets[0]][-2:]
    for run, status, error in zip(broken, ("failed", "missing"), (ERROR, None), strict=True):
        kept = {key: run[key] for key in ("id", "dataset", "backbone", "method", "seed")}
        run.clear()
        run.update(kept, status=status, error=error)
    settled = {
        BETTER: (-0.0031234567891, -0.0049, -0.0012, 0.0004, 0.0012),
        WORSE: (0.0061, 0.0022, 0.0103, 0.0002, 0.0006),
        # The interval excludes 0, but not after correction.
        UNSURE: (-0.0011, -0.0021, -0.0001, 0.03, 0.06),
    }
    comparisons = [
        {"dataset": d, "backbone": backbone, "method": m, "metric": metric, "same_as": None}
        | dict(zip(("difference", "low", "high", "p", "p_holm"), values, strict=True))
        | {"seeds": seeds, "by_seed": [values[0] + 0.001 * (s - 2) for s in seeds]}
        for d in datasets
        for m in methods
        if m != BASELINE
        for values in [settled.get(m, (0.0, -0.001, 0.001, 0.9, 1.0))]
        for metric in ("mse", "balanced_mse", "accuracy_common", "accuracy")
        if (m, metric) != (BETTER, "accuracy")
    ]
    comparisons[-1] |= dict.fromkeys(("difference", "low", "high", "p", "p_holm"))
    comparisons[-1]["by_seed"] = [None] * len(seeds)
    counts = random.integers(5, 60, 40).tolist()
    return {
        "title": "Does the weighting matter?",
        "question": "Whether adapting the weights beats constant ones, on two datasets.",
        "command": "python -m experiments.reproduce --table=2",
        "versions": {"jax": "0.10.2"},
        "commit": None,
        "sweep": {
            "baseline": BASELINE,
            "methods": list(methods),
            "datasets": list(datasets),
            "backbones": [backbone],
            "seeds": seeds,
            "axis": {"label": "rank", "of": {m: 2**i for i, m in enumerate(methods)}},
            "settings": {"epochs": 5, "stratifier": "das(spacing_penalty=0.1)"},
            "papers": "",
            "papers_rows": {BASELINE: "Constant", BETTER: "DWA"},
            "full": "",
            "tuning_seeds": [0],
        },
        "runs": runs,
        "tuned": [
            {
                "dataset": datasets[0],
                "backbone": backbone,
                "method": BETTER,
                "candidates": [
                    {"keys": {"phi_learning_rate": rate}, "error": error, "runs": 1}
                    for rate, error in ((0.001, 0.0421), (0.025, None))
                ],
                "chosen": {"phi_learning_rate": 0.001},
            }
        ],
        "comparisons": comparisons,
        "curves": {f"{d}/{backbone}/{BETTER}": _curves(random) for d in datasets},
        "distributions": {
            datasets[0]: {
                "edges": np.linspace(-1, 1, 41).tolist(),
                "counts": counts,
                "thresholds": {BASELINE: FIXED, BETTER: QUANTILES},
            }
        },
        "cheap": [
            {"dataset": datasets[0], "backbone": backbone, "seed": seed, "name": name}
            | {"mse": mse + 0.01 * seed, "balanced_mse": 2 * mse, "r2": None, "accuracy": 0.25}
            for seed in (0, 1)
            for name, mse in (("VADER", 0.31), ("ridge on TF-IDF", 0.11))
        ],
        "papers": [
            {"what": "improvement in MSE", "figure": "12.36 %", "source": "arXiv 2408.11856"}
        ],
    }


def make_timing(results):
    """Seconds and bytes of every run that finished."""
    time = {"seconds": 123.456, "train_seconds": 100.0, "peak_bytes": 1.5 * 2**30}
    time |= {"step_ms": 20.0, "memory_of": "process"}
    finished = [run["id"] for run in results["runs"] if run["status"] == "finished"]
    return {"runs": dict.fromkeys(finished, time), "machine": "2 cores"}


@pytest.fixture(scope="module")
def results():
    return make_results()


@pytest.fixture(scope="module")
def folder(results, tmp_path_factory):
    path = tmp_path_factory.mktemp("report")
    # As it comes from a file.
    report.write(json.loads(json.dumps(results)), make_timing(results), path)
    return path


@pytest.fixture(scope="module")
def source(folder):
    return (folder / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def page(source):
    page = Page()
    page.feed(source)
    page.close()
    return page


def test_the_page_is_balanced_and_also_well_formed_xml(page, source):
    assert page.open == []
    ElementTree.fromstring(source.split("\n", 1)[1])


def test_the_page_loads_its_pictures_and_nothing_else(page, source, folder):
    pictures = {target for target in page.loads if not target.startswith("#")}
    assert pictures == {f"pictures/{path.name}" for path in (folder / "pictures").iterdir()}
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "svg"}
    assert "http://" not in source and "https://" not in source
    assert "@import" not in source and "url(" not in source
    assert len(source) < 2**17


def test_what_there_is_without_fine_tuning_stands_beside_what_there_is_with_it(page, folder):
    rows = [row for row in page.rows if row and row[0] in ("VADER", f"fine-tuned: {BASELINE}")]
    # Of the one dataset that has them.
    assert [row[:2] for row in rows] == [["VADER", "2"], [f"fine-tuned: {BASELINE}", "5"]]
    assert rows[0][2].startswith("0.31") and rows[0][4] == formatting.DASH
    assert (folder / "report.md").read_text("utf-8").count("Without fine-tuning") == 1


def test_every_method_and_unfinished_run_appears(page, results):
    first = [row[0] for row in page.rows]
    for method in results["sweep"]["methods"]:
        assert method in first
    broken = [run for run in results["runs"] if run["status"] != "finished"]
    listed = {row[0]: row[1:] for row in page.rows}
    assert len(broken) == 2
    for run in broken:
        assert listed[run["id"]] == [run["status"], run["error"] or "–"]


def _main_rows(page, dataset=0):
    heads = [i for i, row in enumerate(page.rows) if row[:3] == ["method", "seeds", "MSE"]]
    return {row[0]: row for row in page.rows[heads[dataset] + 1 :][:5]}


def test_the_main_table_holds_mean_and_deviation_over_seeds(page, results):
    mses = [
        run["test"]["mse"]
        for run in results["runs"]
        if run["method"] == BETTER and run["dataset"] == "fx"
    ]
    row = _main_rows(page)[BETTER]
    assert row[1:3] == ["5/5", f"{np.mean(mses):.5f} ± {np.std(mses, ddof=1):.5f}"]
    assert row[3:5] == ["−0.00312 [−0.00490, −0.00120]", "0.001"]
    assert row[-2:] == ["123", "1.50 GiB"]
    assert _main_rows(page)[UNSURE][1] == "3/5"


def test_only_what_survives_the_correction_is_marked(page):
    marked = {(kind, text) for kind, text in page.strong}
    assert ("better", "−0.00312 [−0.00490, −0.00120]") in marked
    assert ("worse", "+0.00610 [+0.00220, +0.01030]") in marked
    assert not any("−0.00110" in text for _, text in marked)  # p_holm = 0.06
    # Other metrics describe; only the one that is tested is marked.
    assert not any(text.startswith(("+0.006 [", "−0.003 [")) for _, text in marked)


def test_labels_other_than_the_baselines_carry_a_dagger(page):
    rows = _main_rows(page)
    assert rows[BETTER][8].startswith("0.610† ±") and "†" in rows[BETTER][10]
    assert "†" not in rows[BETTER][9]
    assert not any("†" in cell for cell in rows[WORSE])


def test_missing_values_are_dashes(page, folder):
    assert _main_rows(page)[REGRESSION][8:11] == ["–", "–", "–"]
    text = (folder / "report.html").read_text("utf-8") + (folder / "report.md").read_text("utf-8")
    words = re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)
    assert not re.search(r"\b(nan|NaN|None|null|inf)\b", words)


def test_no_number_is_longer_than_a_reader_wants(page):
    cells = [cell for row in page.rows for cell in row if "arXiv" not in cell]
    assert not re.search(r"\d\.\d{6}", " ".join(cells))


def test_other_files_axis_thresholds_and_papers_are_there(page, source):
    assert ["trained on", "method", "own test split", "headlines"] in page.rows
    assert ["improvement in MSE", "12.36 %", "arXiv 2408.11856"] in page.rows
    assert "on other data" in source
    for heading in ("Against rank", "Scores and thresholds", "How the weights moved"):
        assert heading in source
    assert "with 8 tests a difference in MSE of" in source
    tried = "phi_learning_rate=0.001: 0.04210; phi_learning_rate=0.025: –"
    assert ["fx", BETTER, tried, "phi_learning_rate=0.001", "2"] in page.rows
    ended = next(row for row in page.rows if row[0] == BETTER and "→" in row[1])
    assert ended[1:] == ["0.500 → 0.050 ± 0.016", "0.100 → 0.000 ± 0.000"]


@pytest.mark.parametrize("number", ["2", "5", "a13"])
def test_a_table_of_the_papers_has_their_rows_beside_ours(number, results, tmp_path):
    own = copy.deepcopy(results)
    own["sweep"] |= {"papers": f"table {number}", "full": BASELINE}
    page = Page()
    for block in as_papers.blocks(own, make_timing(own), tmp_path):
        page.feed(document.page("t", [block], "m"))
    here = [row for row in page.rows if row and row[0] == "here"]
    theirs = [row for row in page.rows if row and row[0] == "papers"]
    assert len(here) == 10 and here[0][1:5] == [BASELINE, "minilm", "fx", "3.0"]
    assert here[0][-4:] == ["1536", "100", "100 %", "8"]
    assert len(theirs) == {"2": 18, "5": 6, "a13": 0}[number]
    if number == "2":
        cell = ["papers", "Constant", "Twitter RoBERTa-Large", "NEU", "72", "0.0231", "–"]
        assert theirs[0] == [*cell, "75.89", "75.84", "75.76", "21892", "71594", "–", "–"]
    (last,) = [row for row in page.rows if row[0] == "papers, mean of nine cells"]
    assert last[1:] == ["12.3 %", "1.62"]


@pytest.mark.parametrize("number", ["2", "3", "6"])
def test_a_figure_of_the_papers_is_drawn(number, results, tmp_path):
    own = copy.deepcopy(results)
    own["sweep"]["papers"] = f"figure {number}"
    own["sweep"] |= {"datasets": ["fx"], "methods": [BASELINE, BETTER]}
    for curves in own["curves"].values():
        values = {f"weight_{task}": [0.5, 0.3] for task in ("regression", "classification")}
        curves["by_epoch"] = values
    as_papers.blocks(own, make_timing(own), tmp_path)
    # Every method's panels, DWA's point beside the axis, the one method with curves.
    found = list(tmp_path.glob(f"*-figure{number}.png"))
    assert len(found) == {"2": 2, "3": 1, "6": 1}[number]


def test_markdown_tables_keep_their_columns(folder, results):
    text = (folder / "report.md").read_text("utf-8")
    widths = None
    for line in text.splitlines():
        if not line.startswith("|"):
            widths = None
            continue
        columns = len(re.findall(r"(?<!\\)\|", line))
        assert widths in (None, columns), line
        widths = columns
    for name in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (folder / name).stat().st_size > 1000
    assert len(list((folder / "pictures").iterdir())) == text.count("![")


def test_a_sweep_of_which_nothing_finished_still_has_a_report(tmp_path, results):
    empty = copy.deepcopy(results) | {"comparisons": [], "curves": {}, "distributions": {}}
    empty |= {"papers": []}
    for run in empty["runs"]:
        run |= {"status": "missing", "error": None}
    report.write(empty, {"runs": {}, "machine": "2 cores"}, tmp_path)
    page = Page()
    page.feed((tmp_path / "report.html").read_text("utf-8"))
    assert _main_rows(page)[BASELINE][1:] == ["0/5", *["–"] * 11]
    assert "0 of 50 runs finished, 50 missing" in report.summary_section(empty)


def test_the_console_table(results):
    lines = report.summary_section(results).splitlines()
    assert lines[0] == "fx, minilm"
    (line,) = [line for line in lines[:7] if BETTER in line]
    assert line.split()[-2:] == ["*", "0.001"]
    assert "48 of 50 runs finished, 1 failed, 1 missing." in lines[-1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0432, "0.04320"),
        (0.5, "0.5000"),
        (12.3456, "12.35"),
        (123456.0, "123456"),
        (None, "–"),
        (float("nan"), "–"),
        (-0.25, "−0.2500"),
    ],
)
def test_numbers_have_four_digits(value, text):
    assert formatting.fixed(value, formatting.places(value)) == text


def test_a_difference_that_rounds_to_nothing_has_no_sign():
    assert formatting.signed(-0.0000001, 4) == formatting.signed(0.0000001, 4) == "0.0000"
    assert formatting.signed(0.0021, 4) == "+0.0021"
