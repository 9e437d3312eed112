"""Cross-validation: every row predicted once by a run that has not seen it, and its report."""

import csv
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

import dwa_jax
from dwa_jax.data import headlines, normalize_text
from dwa_jax.finetune import cross_validation, run_folder, stored
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import divide, read_rows
from dwa_jax.finetune.predictions_file import (
    SplitPredictions,
    read_predictions,
    write_predictions,
)
from experiments import report
from experiments.terminal import preview
from experiments.terminal.console import Terminal

TINY = {
    "epochs": 1,
    "batch_size": 16,
    "eval_batch_size": 16,
    "max_length": 32,
    "max_buckets": 1,
    "pad_to_multiple_of": 32,  # all folds meet one shape
    "warmup_steps": 1,
    "stratifier": "equal_width",
    "gradient_scope": "representation",
    "scratch": {"vocab_size": 300, "width": 16, "layers": 1, "heads": 2, "feed_forward": 32},
}
SILENT = dwa_jax.Listener()


def texts_and_scores():
    rows = headlines.generate(60, 3)
    # Some texts come twice, in another case.
    texts = [*rows.texts, *(text.upper() for text in rows.texts[:6])]
    return texts, [*rows.scores, *rows.scores[:6]]


class Killed(dwa_jax.Listener):
    """Ends the run after so many epochs."""

    def __init__(self, epochs):
        self.left, self.notes = epochs, []

    def note(self, text):
        self.notes.append(text)

    def epoch(self, record):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def timeless(summary):
    return {key: value for key, value in summary.items() if key not in ("timing", "memory")}


@pytest.mark.slow
def test_killed_in_the_second_fold_and_continued_it_ends_as_if_nothing_had_happened(tmp_path):
    texts, scores = texts_and_scores()
    whole = dwa_jax.train(texts, scores, folds=2, listener=SILENT, **TINY)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        dwa_jax.train(texts, scores, folds=2, folder=folder, listener=Killed(2), **TINY)
    assert (run_folder.fold_folder(folder, 1) / "summary.json").exists()
    assert not (folder / "summary.json").exists()
    again = Killed(0)
    model = dwa_jax.train(texts, scores, folds=2, folder=folder, listener=again, **TINY)
    assert any("fold 1: " in note and "finished" in note for note in again.notes)

    predictions = model.run.predictions
    assert predictions.texts == texts
    assert sorted(set(predictions.folds)) == [1, 2]
    for name in SplitPredictions._fields[1:]:
        np.testing.assert_array_equal(
            getattr(predictions, name), getattr(whole.run.predictions, name)
        )
    assert timeless(model.summary) == timeless(whole.summary)
    errors = predictions.predicted_scores - np.array(scores)
    assert model.summary["test"]["mse"] == pytest.approx(np.mean(errors**2))
    folds = model.summary["folds"]
    of_fold = [np.mean(errors[predictions.folds == fold] ** 2) for fold in (1, 2)]
    assert [one["test"]["mse"] for one in folds["each"]] == pytest.approx(of_fold)
    assert folds["metrics"]["mse"]["mean"] == pytest.approx(np.mean(of_fold))
    best = min((1, 2), key=lambda fold: folds["each"][fold - 1]["validation"]["mse"])
    assert folds["kept"] == best

    # What is kept is that fold's model, from the folder of all folds, of that fold, and saved.
    some = texts[:3]
    kept = dwa_jax.load(run_folder.fold_folder(folder, best))
    saved = dwa_jax.load(model.save(tmp_path / "saved"))
    loaded = dwa_jax.load(folder)
    assert model(some) == kept(some) == saved(some) == loaded(some) == whole(some)
    assert loaded.summary == saved.summary == model.summary
    assert loaded.config == model.config
    for damaged in ([], {}, folds | {"kept": 3}, folds | {"metrics": {"mse": {"mean": "x"}}}):
        with pytest.raises(ValueError, match="s.json is damaged: folds"):
            stored.check_summary(model.summary | {"folds": damaged}, Path("s.json"), 5)
    page = report.write([folder]).read_text("utf-8")
    assert "over 2 folds" in page and f"fold {best}" in page


def test_no_text_is_in_both_of_train_and_test_and_the_held_out_fold_chooses_no_epoch():
    texts, scores = texts_and_scores()
    uncut = read_rows(Config(train="memory:"), {"train": dwa_jax.data.from_columns(texts, scores)})
    tested = []
    for fold in range(1, 6):
        rows = divide(Config(train="memory:", folds=5, fold=fold, **TINY), uncut).rows
        sides = [set(map(normalize_text, rows[name].texts)) for name in rows]
        assert len(set.union(*sides)) == sum(map(len, sides)) == 60
        assert len(rows["validation"]) == pytest.approx(66 * 0.8 / 9, abs=2)
        tested += rows["test"].origin
    assert sorted(tested) == [("texts", i) for i in range(66)]


def test_the_interval_is_the_corrected_one_of_nadeau_and_bengio():
    values, ratio = [0.50, 0.61, 0.55, 0.70, 0.58], 1 / 4
    found = cross_validation.over_folds([*values, None], ratio)
    variance = (1 / 5 + ratio) * np.var(values, ddof=1)
    low, high = scipy.stats.t.interval(0.95, 4, np.mean(values), np.sqrt(variance))
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["standard_deviation"] == pytest.approx(np.std(values, ddof=1))
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert cross_validation.over_folds([0.5], ratio)["low"] is None
    assert cross_validation.over_folds([None], ratio)["mean"] is None


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"folds": 1}, "folds must be 0 or at least 2"),
        ({"folds": 3, "fold": 4}, "fold at most that"),
        ({"folds": 3, "time_column": "day"}, "holds out every row in turn, and time_column says"),
        ({"folds": 3, "test": "t.csv"}, "and test says what else is held out"),
        ({"folds": 3, "validation": "v.csv", "split_column": "s"}, "validation and split_column"),
    ],
)
def test_what_contradicts_folds_is_one_line(keys, told):
    with pytest.raises(ValueError, match=told) as caught:
        Config(**keys)
    assert "\n" not in str(caught.value)


def test_what_one_fold_would_refuse_is_refused_before_the_first_trains(tmp_path):
    rows = ["text,score", *(f"text {i},{int(i == 0)}" for i in range(40))]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    config = Config.of(TINY, train=str(tmp_path / "a.csv"), folds=4, monitor="r2", num_classes=2)
    with pytest.raises(ValueError, match=r"fold \d of 4: monitor='r2' is undefined: the \d valid"):
        cross_validation.complete(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_folds_without_their_checkpoints_are_not_made_longer_by_name_only(tmp_path):
    rows = headlines.generate(60, 3)
    lines = [f'"{text}",{score}' for text, score in zip(rows.texts, rows.scores, strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(["text,score", *lines]))
    config = Config.of(TINY, train=str(tmp_path / "a.csv"), folds=2)
    folder = tmp_path / "run"
    for fold, place in ((0, folder), *((k, run_folder.fold_folder(folder, k)) for k in (1, 2))):
        place.mkdir(parents=True)
        about = {"config": Config.of(config, fold=fold).to_dict(), "data": "rows", "versions": {}}
        run_folder.write_json(place / "config.json", about)
        run_folder.write_json(place / "summary.json", {"epochs": 1, "best_epoch": 1})
    before = (folder / "config.json").read_bytes()
    with pytest.raises(ValueError, match="folds/1 holds this run, finished, without the checkpoin"):
        cross_validation.complete(Config.of(config, epochs=2), folder)
    assert (folder / "config.json").read_bytes() == before


def test_the_dry_run_tells_the_rows_of_every_fold(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = Config.of(TINY, generated_rows=60, folds=3)
    assert preview.preview(config, Terminal()) == config
    printed = capsys.readouterr().out
    assert "rows of fold 1" in printed and "fold 3" in printed
    assert printed.count("test 20") == 2
    assert not list(tmp_path.iterdir())


def test_predictions_without_scores_have_no_columns_of_them(tmp_path):
    nothing, found = np.full(3, np.nan), np.array([0, 2, 1])
    odds = np.full((3, 3), 1 / 3)
    rows = SplitPredictions(["a", "b", "c"], nothing, nothing, found, found, odds, found + 1)
    write_predictions(tmp_path / "p.csv", rows)
    with (tmp_path / "p.csv").open(newline="") as file:
        header = next(csv.reader(file))
    assert header[:3] == ["text", "category", "predicted_category"] and header[-1] == "fold"
    again = read_predictions(tmp_path / "p.csv", 3)
    for one, other in zip(rows[1:], again[1:], strict=True):
        np.testing.assert_array_equal(one, other)
