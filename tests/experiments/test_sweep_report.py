"""The report of a sweep, written from results made up here."""

import copy
import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from experiments.pages import formatting
from experiments.sweeps import report
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
        {"dataset": d, "backbone": backbone, "method": m, "metric": metric}
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
        },
        "runs": runs,
        "comparisons": comparisons,
        "curves": {f"{d}/{backbone}/{BETTER}": _curves(random) for d in datasets},
        "distributions": {
            datasets[0]: {
                "edges": np.linspace(-1, 1, 41).tolist(),
                "counts": counts,
                "thresholds": {BASELINE: FIXED, BETTER: QUANTILES},
            }
        },
        "papers": [
            {"what": "improvement in MSE", "figure": "12.36 %", "source": "arXiv 2408.11856"}
        ],
    }


def make_timing(results):
    """Seconds and bytes of every run that finished."""
    time = {"seconds": 123.456, "train_seconds": 100.0, "peak_bytes": 1.5 * 2**30}
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


def test_the_page_loads_nothing(page, source):
    assert all(target.startswith("#") for target in page.loads)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed"}
    assert "http://" not in source and "https://" not in source
    assert "@import" not in source
    assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", source))


def test_ids_are_unique_and_what_pictures_refer_to_is_there(page, source):
    assert len(set(page.ids)) == len(page.ids)
    referred = {target[1:] for target in page.loads} | set(re.findall(r"url\(#(.*?)\)", source))
    assert referred and referred <= set(page.ids)


def test_pictures_follow_the_scheme_of_the_page(source):
    drawn = " ".join(re.findall(r"<svg.*?</svg>", source, re.DOTALL))
    assert "currentColor" in drawn
    assert "#000000" not in drawn and "#ffffff" not in drawn


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
    # An accuracy that rises is better.
    assert ("better", "+0.006 [+0.002, +0.010]") in marked
    assert ("worse", "−0.003 [−0.005, −0.001]") in marked


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
    assert "for at most 4 comparisons at a time" in source


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
