"""The papers' tables and figures: their numbers as printed, their rows as our sweeps' methods."""

import json
import statistics
from pathlib import Path

import pytest

from dwa_jax.finetune.config import Config
from experiments import reproduce
from experiments.sweeps import papers

ROOT = Path(__file__).parents[2]
PRINTED = ROOT.parent / "shared" / "papers" / "tables.json"
NAMES = {"Adaptive $\\lambda$": "Adaptive lambda", "Adaptive $w$": "Adaptive w"}
NAMES |= {"Proposed Method": "DAS"}


def load(name):
    return reproduce.load(ROOT / f"configs/sweeps/{name}.py")


def printed():
    """Every row of the tables as {(table, method, model, dataset): numbers}."""
    if not PRINTED.exists():
        pytest.skip("the papers' tables are not here: ../shared/papers/tables.json")
    tables, found = json.loads(PRINTED.read_text("utf-8")), {}
    for row in tables["table2"]["rows"]:
        for method in ("Constant", "DWA"):
            found["2", method, row["model"], row["dataset"]] = row[method.lower()]
    for row in tables["table3"]["rows"]:
        found["3", f"LoRA, rank {row['rank']}", row["model"], row["dataset"]] = row
    for table in ("4", "5"):
        for row in tables[f"table{table}"]["rows"]:
            method = NAMES.get(row["method"], row["method"])
            found[table, method, "Twitter RoBERTa-Large", row["dataset"]] = row
    return found


def test_the_papers_numbers_are_those_that_they_print():
    expected = printed()
    ours = {row[:4]: row for table in "2345" for row in papers.rows(table)}
    assert {key for key in ours if key[1] != "full"} == set(expected) and len(expected) == 78
    for key, numbers in expected.items():
        for name in papers.PaperRow._fields[4:]:
            assert getattr(ours[key], name) == numbers.get(name), (key, name)


def test_the_ratios_are_those_of_the_nine_cells_of_table_2():
    gain, time = papers.ratios()
    assert (round(gain, 1), round(time, 2)) == (12.3, 1.62)
    of = {
        method: [r for r in papers.rows("2") if r.method == method]
        for method in ("Constant", "DWA")
    }
    pairs = zip(of["Constant"], of["DWA"], strict=True)
    gains = [100 * (dwa.acc / constant.acc - 1) for constant, dwa in pairs]
    assert statistics.fmean(gains) == pytest.approx(1.41, abs=0.005)
    assert [item["figure"] for item in papers.STATEMENTS[:3]] == ["12.36 %", "1.41 %", "1.62 times"]


# What each table is of: the configuration's keys by method, and what the papers call the row.
ASKED = {
    "2": ({"constant", "dwa"}, {"Constant", "DWA"}),
    "3": ({"dwa"}, {"full", *(f"LoRA, rank {r}" for r in (128, 256, 384, 512))}),
    "4": ({"dwa"}, {"DAS", "Method 1", "Method 2", "Method 3"}),
    "5": (
        {"constant", "adaptive_lambda", "adaptive_w", "dwa"},
        {"Constant", "Adaptive lambda", "Adaptive w", "DWA"},
    ),
    "a11": (set(), set()),
    "a12": ({"constant", "dwa"}, {"Constant", "DWA"}),
    "a13": ({"dwa", "gradnorm", "uncertainty"}, set()),
}


@pytest.mark.parametrize("number", list(papers.TABLES))
def test_a_table_runs_what_the_papers_table_of_that_name_has(number):
    sweep = load(papers.TABLES[number])
    weightings, rows = ASKED[number]
    used = {
        run.keys["weighting"].partition("(")[0] for run in sweep.runs() if run.keys.get("weighting")
    }
    used |= {keys["weighting"].partition("(")[0] for keys in sweep.methods.values() if keys}
    assert used == weightings
    assert set(sweep.papers_rows.values()) == rows
    # Every row of the papers' table has its method here, and none is left over.
    assert (
        rows - {"full"} == {row.method for row in papers.rows(number)} - {"full"} or number == "a12"
    )
    assert sweep.papers == f"table {number}" and len(sweep.seeds) == 10


def test_what_single_tables_vary():
    ranks = [run.keys["lora_rank"] for run in load("table3").runs()[:5]]
    assert ranks == [0, 128, 256, 384, 512]
    assert load("table3").full == "full"
    cuts = {keys.get("stratifier", "das") for keys in load("table4").methods.values()}
    assert len(cuts) == 4 and "das" in cuts
    assert set(load("table2").settings.items()) >= {("lora_rank", 0)}
    a11 = load("table_a11")
    assert list(a11.backbones.values()) == [
        "configs/roberta_large.py",
        "configs/twitter_roberta_large.py",
    ]
    headlines, tweets = load("table_a12").datasets.values()
    assert headlines["train"].endswith("semeval_headlines.csv") and "label_with" not in headlines
    assert (tweets["label_with"], tweets["score_column"]) == ("vader", "")
    assert "dwa (paper)" not in load("figure3").axis[1]
    assert load("figure6").settings["log_every"] == 1


def test_every_sweep_is_of_keys_and_values_that_can_be():
    for path in sorted((ROOT / "configs" / "sweeps").glob("[a-z]*.py")):
        if "def get_sweep(" not in path.read_text("utf-8"):
            continue
        sweep = reproduce.load(path)
        variants = [*sweep.methods.values()]
        variants += [keys for choices in sweep.candidates.values() for keys in choices]
        variants += sweep.shared
        for keys in variants:
            Config.of(**{**sweep.settings, **keys})
        for keys in sweep.datasets.values():
            Config.of(**keys)
        assert set(sweep.candidates) | set(sweep.ends_of) <= set(sweep.methods)
        assert set(sweep.papers_rows) <= set(sweep.methods)
        assert sweep.axis is None or set(sweep.axis[1]) <= set(sweep.methods)


def test_learned_weights_have_rates_to_choose_among_and_the_trunk_one_rate_for_all():
    for name in ("weightings", "attribution", "table_a13"):
        sweep = load(name)
        rates = [
            keys.get("learning_rate", sweep.settings["learning_rate"]) for keys in sweep.shared
        ]
        assert rates == [1e-3, 2e-3]
        own = {key for choices in sweep.candidates.values() for keys in choices for key in keys}
        assert own <= {"phi_learning_rate", "regression_loss"}
        for method in ("gradnorm", "uncertainty"):
            if method in sweep.methods:  # GradNorm's own paper has .025
                rates = [keys.get("phi_learning_rate") for keys in sweep.candidates[method]]
                assert rates == [None, 0.025, 0.1]  # the default, 1e-3, without a word
