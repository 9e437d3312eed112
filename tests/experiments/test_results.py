"""The results in the repository: small, whole, and all that the README says of them follows."""

import copy
import json
import re
from pathlib import Path

import pytest

from experiments.sweeps import claims

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
README = (ROOT / "README.md").read_text("utf-8")


def results(name):
    return json.loads((RESULTS / name / "results.json").read_text("utf-8"))


def test_what_the_readme_says_of_results_is_what_they_say():
    names = claims.names(README)
    assert names
    for name in names:
        assert claims.placed(README, name) == claims.write(results(name)), (
            f"python -m experiments.reproduce --sweep=configs/sweeps/{name}.py --report_only "
            "--readme=README.md renews it"
        )


def test_nothing_else_of_that_section_claims_a_figure_of_a_sweep():
    section = README[README.index("## Does it help?") : README.index("## A run's folder")]
    rest = re.sub("<!-- results of.*?<!-- end -->", "", section, flags=re.DOTALL)
    assert not re.search(r"\d %|p [=<]|better|worse|\bhelps", rest)


def test_sentences_follow_the_numbers():
    found = copy.deepcopy(results(claims.names(README)[0]))
    found["comparisons"] = [
        one | {"difference": -0.01, "low": -0.015, "high": -0.005, "p_holm": 0.001}
        if (one["method"], one["metric"]) == ("dwa (paper)", "mse")
        else one | {"p_holm": 1.0}
        for one in found["comparisons"]
    ]
    text = claims.write(found)
    dataset = found["sweep"]["datasets"][0]
    assert f"* {dataset}: the MSE of dwa (paper) differs from that of constant .25/.75 by" in text
    assert "corrected p 0.001: it is better. The papers' 12.3 % less lies within" in text
    assert "Worse than constant .25/.75: none." in text
    assert text.count("**") == 2 * len(found["sweep"]["datasets"])


def test_what_gave_the_classification_up_is_named():
    found = copy.deepcopy(results(claims.names(README)[0]))
    for run in found["runs"]:
        if run["status"] != "finished":
            continue
        ended = 0.001 if run["method"] == "gradnorm" else 0.5
        run["weights"] = {when: {"share_classification": ended} for when in ("start", "end")}
        run["test"]["accuracy"] = ended
    lines = [line for line in claims.write(found).splitlines() if "regression alone." in line]
    dataset, line = found["sweep"]["datasets"][0], lines[0]
    assert len(lines) == len(found["sweep"]["datasets"])
    assert line.startswith(f"* On {dataset}, gradnorm ended with less than 1 % of the weight on")
    assert "whose accuracy is 0.00 there, beside 0.50 of constant .25/.75" in line


def test_a_baseline_with_a_learning_rate_of_its_own_is_told():
    found = copy.deepcopy(results(claims.names(README)[0]))
    methods = ("constant .25/.75", "constant .5/.5", "gradnorm")
    dataset, backbone = found["sweep"]["datasets"][0], found["sweep"]["backbones"][0]
    found["sweep"]["settings"]["learning_rate"] = 0.001

    def tuned(*chosen):
        found["tuned"] = [
            {"dataset": dataset, "backbone": backbone, "method": method, "chosen": keys}
            for method, keys in zip(methods, chosen, strict=True)
        ]
        return [line for line in claims.write(found).splitlines() if "for the trunk" in line]

    rate, of_weights = {"learning_rate": 0.002}, {"phi_learning_rate": 0.1}
    (line,) = tuned(rate, rate, of_weights)
    assert line.startswith(f"* On {dataset}, tuning gave constant .25/.75 a learning rate of 0.002")
    assert "as constant .5/.5 did; gradnorm had 0.001. Their differences" in line
    assert tuned({}, {}, of_weights) == tuned(rate, rate, rate) == []


def test_a_file_without_marks_is_refused(tmp_path):
    path = tmp_path / "README.md"
    with pytest.raises(ValueError, match=r"README.md: there is no such file"):
        claims.check_marks(path, "weightings")
    path.write_text("nothing\n")
    with pytest.raises(ValueError, match="has no line '<!-- results of weightings"):
        claims.place(path, "weightings", results("weightings"))
    assert path.read_text() == "nothing\n"


def test_they_are_small_and_every_picture_is_there_once():
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 15 * 2**20
    for page in RESULTS.rglob("report.html"):
        text = page.read_text("utf-8")
        assert page.stat().st_size <= 2 * 2**20 and "<svg" not in text
        shown = set(re.findall(r'src="(.*?)"', text))
        assert shown == {f"pictures/{path.name}" for path in (page.parent / "pictures").iterdir()}
