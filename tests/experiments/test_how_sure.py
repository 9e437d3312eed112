"""Intervals, abstention and drift as a user meets them: programs and Python, of one run."""

import csv
import json
import runpy
import shutil
import signal
import sys

import numpy as np
import pytest

import dwa_jax
from dwa_jax.data import headlines
from dwa_jax.finetune.drift.drift_picture import draw_drift
from dwa_jax.finetune.uncertainty import conformal, reference
from experiments import predict, report, watch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(finished_run):
    return dwa_jax.load(finished_run)


@pytest.fixture(scope="module")
def texts():
    return headlines.generate(40, 9).texts


@pytest.fixture(scope="module")
def table(texts, tmp_path_factory):
    path = tmp_path_factory.mktemp("later") / "in.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    return path


@pytest.fixture(scope="module")
def of_old(finished_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("old") / "run"
    shutil.copytree(finished_run, folder)
    (folder / reference.FILE).unlink()
    return folder


def test_the_summary_says_how_often_the_test_rows_were_held(model):
    found = model.run.predictions
    ends = model.predict(found.texts).interval
    test = model.summary["test"]
    expected = conformal.grade_intervals(ends, found.scores)
    assert {name: test[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert "interval_coverage" not in model.summary["validation"]
    wide = 2 * conformal.smallest_above(
        np.abs(np.subtract(*model.run.reference.validation[2:4]).astype(float)), 0.9
    )
    inner = (ends > -1).all(axis=1) & (ends < 1).all(axis=1)
    assert (ends[:, 1] - ends[:, 0])[inner] == pytest.approx(wide, abs=1e-5)


def test_coverage_and_groups_can_be_asked_for_anew(model, texts):
    asked = dwa_jax.load(model.run.folder)
    narrow, wide = model.predict(texts).interval, None
    asked.coverage = 0.5
    assert (np.diff(asked.predict(texts).interval) < np.diff(narrow)).all()
    asked.coverage, asked.intervals = 0.9, "by_category"
    wide = asked.predict(texts).interval
    assert wide.shape == narrow.shape and (wide >= -1).all() and (wide <= 1).all()


def test_program_and_python_abstain_from_the_same_texts(model, texts, table, tmp_path):
    width = float(np.median(np.diff(model.predict(texts).interval)))
    out = tmp_path / "out.csv"
    options = [f"--workdir={model.run.folder}", f"--input={table}", f"--output={out}"]
    predict.predict(predict.parse([*options, f"--abstain={width}"]))
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = model(texts, abstain=width)
    assert [row["abstained"] for row in rows] == [str(int(one.abstained)) for one in found]
    assert [row["unlike"] for row in rows] == [str(int(one.unlike)) for one in found]
    lows = [float(row["interval_low"]) for row in rows]
    assert lows == pytest.approx([one.interval[0] for one in found], abs=1e-6)
    wide = [one.interval[1] - one.interval[0] > width * (1 + 1e-6) for one in found]
    assert [one.abstained for one in found] == [
        w or one.unlike for w, one in zip(wide, found, strict=True)
    ]
    alone = model(texts, abstain=float("inf"))
    assert [one.abstained for one in alone] == [one.unlike for one in alone]
    assert model(texts[:1])[0].abstained is None


@pytest.mark.parametrize("width", [0, -1.0, float("nan"), True, "0.5"])
def test_what_is_no_width_is_refused(model, width):
    with pytest.raises(ValueError, match="abstain=.* must be a width above 0"):
        model.predict(["pound"], abstain=width)


def test_a_run_of_an_earlier_version_predicts_without_intervals_and_says_so(
    of_old, model, texts, table, tmp_path, capsys
):
    old = dwa_jax.load(of_old)
    found = old(texts[:3])
    assert [one.score for one in found] == [one.score for one in model(texts[:3])]
    assert {(one.interval, one.unlike, one.abstained) for one in found} == {(None, None, None)}
    with pytest.raises(ValueError, match=f"{reference.FILE}.*train it again"):
        old.predict(texts, abstain=1.0)
    out = tmp_path / "out.csv"
    predict.predict(predict.parse([f"--workdir={of_old}", f"--input={table}", f"--output={out}"]))
    (note,) = [line for line in capsys.readouterr().err.splitlines() if "intervals" in line]
    assert note.startswith("note: ") and "interval_low" not in out.read_text().splitlines()[0]
    with pytest.raises(ValueError, match="train it again"):
        watch.main(watch.parse([f"--workdir={of_old}", f"--input={table}"]))


def test_a_saved_model_keeps_what_it_judges_by(model, texts, tmp_path):
    kept = dwa_jax.load(model.save(tmp_path / "kept"))
    np.testing.assert_array_equal(kept.predict(texts).interval, model.predict(texts).interval)


def test_the_page_of_a_run_says_how_sure_it_is(finished_run, tmp_path):
    page = report.write([finished_run], tmp_path / "page.html").read_text("utf-8")
    assert "<h2" in page and "How sure" in page and "Reliability diagram" in page
    assert "intervals that hold the score" in page


def test_watch_ends_with_3_for_texts_of_another_kind_and_2_for_a_mistake(
    model, tmp_path, monkeypatch, capsys
):
    def ended(path, *more):
        options = [f"--workdir={model.run.folder}", f"--input={path}", *more]
        monkeypatch.setattr(sys, "argv", ["watch", *options])
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with pytest.raises(SystemExit) as end:
                runpy.run_path(watch.__file__, run_name="__main__")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return end.value.code, capsys.readouterr()

    other = tmp_path / "other.csv"
    other.write_text("text\n" + "zwölf Boxkämpfer jagen Viktor quer über den Sylter Deich\n" * 60)
    status, told = ended(other, f"--output={tmp_path / 'out'}")
    assert status == 3 and "alarm: length" in told.out
    assert max(map(len, told.out.splitlines())) <= 80
    found = json.loads((tmp_path / "out" / "drift.json").read_text())
    assert found["texts"] == 60 and "length" in found["alarms"]
    assert (tmp_path / "out" / "drift.png").exists()
    status, told = ended(tmp_path / "nothing.csv")
    assert status == 2 and told.err.count("\n") == 1 and "nothing.csv" in told.err


def test_watch_says_nothing_of_texts_of_the_same_kind(model, table):
    seen = watch.main(watch.parse([f"--workdir={model.run.folder}", f"--input={table}"]))
    assert not seen.alarms and watch.status_of(seen) == 0
    figure = draw_drift(model.run.reference, seen)
    assert figure.get_suptitle() == "no alarm" and len(figure.axes) == 6


def test_watch_sees_errors_grow_over_time(model, tmp_path):
    rows = headlines.generate(200, 11)
    scores = np.where(np.arange(200) < 100, rows.scores, -np.sign(rows.scores))
    path = tmp_path / "scored.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "score", "day"])
        # From the last to the first, which --time_column turns around.
        for i in range(199, -1, -1):
            out.writerow([rows.texts[i], scores[i], 1 + i])
    options = [f"--workdir={model.run.folder}", f"--input={path}", "--time_column=day"]
    seen = watch.main(watch.parse(options))
    errors = [part["mae"] for part in seen.windows]
    assert len(errors) == 8 and max(errors[:4]) < min(errors[4:])
    assert "error" in seen.alarms
