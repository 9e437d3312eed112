"""Training and loading from Python: the program's numbers, and nothing left behind."""

import csv
import dataclasses
import functools
import pickle
import threading

import jax
import matplotlib.figure
import numpy as np
import pyarrow as pa
import pytest

import dwa_jax
from dwa_jax import metrics
from dwa_jax.data import headlines
from dwa_jax.finetune import cautions, loop
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.predictor import Predictor
from tests import runs

pytestmark = pytest.mark.slow

TINY = {
    "epochs": 2,
    "batch_size": 16,
    "eval_batch_size": 16,
    "max_buckets": 1,
    "max_length": 32,
    "learning_rate": 1e-2,
    "warmup_steps": 1,
    "log_every": 2,
    "gradient_scope": "representation",  # quick to compile
    "scratch": {"vocab_size": 300, "width": 16, "layers": 1, "heads": 2, "feed_forward": 32},
}
TIMES = {"step_ms", "tokens_per_second", "seconds"}


@pytest.fixture(scope="module")
def rows():
    return headlines.generate(120, 3)


@pytest.fixture(scope="module")
def notes():
    """What the model's run tells."""
    return []


@pytest.fixture(scope="module")
def model(rows, notes):
    listener = dwa_jax.Listener()
    listener.note = notes.append
    return dwa_jax.train(rows.texts, rows.scores, listener=listener, **TINY)


def timeless(history):
    return [{k: v for k, v in record.items() if k not in TIMES} for record in history]


def test_what_would_mislead_a_reader_is_told_and_kept(model, notes):
    found = model.run.predictions
    told = cautions.of_predictions(
        "test",
        found.scores,
        found.categories,
        found.predicted_scores,
        found.predicted_categories,
    )
    assert told  # a model that has hardly begun to learn
    assert set(told) <= set(model.summary["notes"])
    assert {f"note: {note}" for note in told} <= set(notes)


def test_a_model_predicts_and_knows_how_it_came_about(model, rows):
    found = model(rows.texts[:3])
    assert isinstance(found, list) and len(found) == 3
    assert isinstance(found[0].score, float) and found[0].category in range(5)
    assert sum(found[0].probabilities) == pytest.approx(1)
    arrays = model.predict(rows.texts[:3])
    assert arrays.score.shape == (3,) and arrays.probabilities.shape == (3, 5)
    assert [one.score for one in found] == list(arrays.score)
    assert model.summary["test"]["mse"] > 0
    assert {record["kind"] for record in model.history} == {"step", "evaluation"}
    assert model.thresholds.shape == (4,) and np.all(np.diff(model.thresholds) > 0)
    assert model.config == Config.of(TINY, train="memory:")
    assert "dwa" in repr(model) and "<table>" in model._repr_html_()


def test_a_text_without_a_token_raises_and_one_that_is_cut_says_so(model):
    for text in ("", "\u200b\u200d"):
        with pytest.raises(ValueError, match="texts, row 0: the text .* has no token"):
            model([text])
    assert [one.truncated for one in model(["euro", "euro " * 40])] == [False, True]


def test_a_run_without_regression_has_no_numbers_of_scores(rows, tmp_path):
    epochs = []

    class Listening(dwa_jax.Listener):
        def epoch(self, record):
            epochs.append(record)

    categories = np.digitize(rows.scores, [-0.6, -0.2, 0.2, 0.6])
    options = TINY | {"epochs": 1, "monitor": "quadratic_weighted_kappa"}
    found = dwa_jax.train(
        rows.texts,
        categories=categories,
        tasks=("classification",),
        listener=Listening(),
        folder=tmp_path / "run",
        **options,
    )
    shown = ["epoch", "best", "accuracy", "f1_macro", "quadratic_weighted_kappa"]
    assert [list(record) for record in epochs] == [shown]
    (evaluation,) = [record for record in found.history if record["kind"] == "evaluation"]
    for record in (found.summary["test"], evaluation):
        assert not set(record) & set(metrics.OF_SCORES)
        assert not any(value is None for value in record.values())
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        header = next(csv.reader(file))
    assert header[:3] == ["text", "category", "predicted_category"]
    again = dwa_jax.load(tmp_path / "run").run.predictions
    assert np.isnan(again.scores).all() and np.isnan(again.predicted_scores).all()


def test_where_the_monitor_is_never_defined_the_last_epoch_is_kept_and_said(rows, monkeypatch):
    # As the correlation of a model that predicts one value.
    graded = loop.grade
    monkeypatch.setattr(loop, "grade", lambda *given: graded(*given) | {"pearson": np.nan})
    options = TINY | {"monitor": "pearson"}
    found = dwa_jax.train(rows.texts, rows.scores, listener=dwa_jax.Listener(), **options)
    assert found.summary["best_epoch"] == found.summary["epochs"] == 2
    assert "'pearson' was undefined after every epoch; the last" in found.summary["notes"][-1]


def test_nothing_is_kept_that_was_not_asked_for(rows, tmp_path, monkeypatch):
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    options = jax.config.values.copy()
    dwa_jax.train(rows.texts, rows.scores, listener=dwa_jax.Listener(), **TINY | {"epochs": 1})
    assert list(place.iterdir()) == []
    assert jax.config.values == options


def test_the_numbers_are_the_programs_bit_for_bit(model, rows, tmp_path):
    with (tmp_path / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "score"), *zip(rows.texts, rows.scores, strict=True)])
    folder = tmp_path / "run"
    summary = runs.run(Config.of(TINY, train=str(tmp_path / "rows.csv")), folder)
    for split in ("validation", "test", "thresholds", "score_histogram", "best_epoch"):
        assert summary[split] == model.summary[split]
    loaded = dwa_jax.load(folder)
    assert timeless(loaded.history) == timeless(model.history)
    theirs, ours = loaded.predict(rows.texts), model.predict(rows.texts)
    for one, other in zip(theirs, ours, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_second_training_and_one_in_a_thread_give_the_same(model, rows):
    found = {}

    def train(name):
        found[name] = dwa_jax.train(rows.texts, rows.scores, listener=dwa_jax.Listener(), **TINY)

    thread = threading.Thread(target=train, args=("thread",))
    thread.start()
    train("again")
    thread.join()
    for other in found.values():
        assert timeless(other.history) == timeless(model.history)
        np.testing.assert_array_equal(
            other.predict(rows.texts).score, model.predict(rows.texts).score
        )


def test_a_saved_model_is_the_same_model(model, rows, tmp_path):
    model.save(tmp_path / "kept")
    again = dwa_jax.load(tmp_path / "kept")
    for one, other in zip(again.predict(rows.texts), model.predict(rows.texts), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.summary == model.summary and again.history == model.history
    names = {"score_distribution", "losses", "weights", "confusion", "predicted_vs_true"}
    names |= {"score_panels", "reliability"}
    for one in (model, again):
        figures = one.figures()
        assert set(figures) == names
        assert all(isinstance(figure, matplotlib.figure.Figure) for figure in figures.values())
    again.save(tmp_path / "copy")
    again.save(tmp_path / "copy")  # its own
    (tmp_path / "copy" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"'mine.txt', which no export wrote"):
        model.save(tmp_path / "copy")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        again.save(tmp_path / "full")
    for name, write in (
        ("mine", model.save),
        ("out", functools.partial(model.export, check=False)),
    ):
        write(tmp_path / name)
        changed = tmp_path / name / ("summary.json" if name == "mine" else "README.md")
        changed.write_text("by hand")
        with pytest.raises(ValueError, match="not as an export wrote it; .* or overwrite=True"):
            write(tmp_path / name)
        assert changed.read_text() == "by hand"
        assert write(tmp_path / name, overwrite=True) == tmp_path / name
        assert changed.read_text() != "by hand"
        (tmp_path / name / "mine.txt").write_text("mine")
        with pytest.raises(ValueError, match=r"'mine.txt', which no export wrote"):
            write(tmp_path / name, overwrite=True)


def test_a_pickled_model_is_the_same_model(model, rows):
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        again.predict(rows.texts).probabilities, model.predict(rows.texts).probabilities
    )


def test_a_run_in_a_folder_is_continued_or_read(rows, tmp_path):
    said = []

    class Ears(dwa_jax.Listener):
        def note(self, text):
            said.append(text)

    class Tired(dwa_jax.Listener):
        def epoch(self, record):
            raise KeyboardInterrupt

    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        dwa_jax.train(rows.texts, rows.scores, folder=folder, listener=Tired(), **TINY)
    first = dwa_jax.train(rows.texts, rows.scores, folder=folder, listener=Ears(), **TINY)
    second = dwa_jax.train(rows.texts, rows.scores, folder=folder, listener=Ears(), **TINY)
    assert first.summary["test"] == second.summary["test"]
    assert any("finished" in line for line in said)
    with pytest.raises(ValueError, match="holds a run on other rows: the data has changed since"):
        dwa_jax.train(rows.texts, -rows.scores, folder=folder, **TINY)
    with pytest.raises(ValueError, match="without the checkpoints that more epochs take"):
        dwa_jax.train(rows.texts, rows.scores, folder=folder, **TINY | {"epochs": 3})


def test_columns_of_tables_and_labels_that_are_missing(rows):
    texts = pa.chunked_array([rows.texts])
    scores = [None if i % 3 == 0 else float(score) for i, score in enumerate(rows.scores)]
    categories = ["low" if score < 0 else "high" for score in rows.scores[:110]] + [None] * 10
    model = dwa_jax.train(
        texts,
        pa.array(scores),
        categories=np.array(categories, object),
        validation=(rows.texts[:20], rows.scores[:20], categories[:20]),
        listener=dwa_jax.Listener(),
        **TINY | {"epochs": 1, "num_classes": 2, "category_names": ("low", "high")},
    )
    assert model(["Euro gains"])[0].name in ("low", "high")
    assert model.summary["rows"]["validation"]["count"] == 20
    assert model.summary["rows"]["train"]["count"] <= 100  # those of validation are left out


def test_scores_come_back_in_the_range_that_they_were_given_in(model, rows):
    assert model(rows.texts[:1])[0].in_range is None
    config = Config.of(model.config, score_range=(0, 10))
    ranged = Predictor(dataclasses.replace(model.run, config=config))
    found = ranged.predict(rows.texts)
    np.testing.assert_allclose(found.in_range, 5 * (found.score + 1), rtol=1e-6)
    assert [one.in_range for one in ranged(rows.texts)] == found.in_range.tolist()


@pytest.mark.parametrize("name", [None, 3, b"x", "", "x\0"])
def test_what_can_be_no_folder_is_said(model, rows, name):
    for use in (
        dwa_jax.load,
        model.save,
        model.export,
        lambda name: dwa_jax.train(rows.texts, rows.scores, folder=name or "", **TINY),
    ):
        with pytest.raises((TypeError, ValueError), match=r"folder=.* (must be|can be no)"):
            use(name)
    with pytest.raises(ValueError, match="holds no run"):
        dwa_jax.load("~nobody-of-that-name/run")


def test_what_is_no_text_or_no_listener_is_said(model, rows):
    for size in (0, 2.5, "8", True):
        with pytest.raises(ValueError, match="batch_size=.* must be a whole number of at least 1"):
            Predictor(model.run, size)
    for text, words in (("\ud800", "half a surrogate pair"), ("a\0b", "a NUL character")):
        with pytest.raises(ValueError, match=f"texts, row 1: the text .* holds {words}"):
            model(["a", text])
    with pytest.raises(TypeError, match="listener must be a dwa_jax.Listener, got 'x'"):
        dwa_jax.train(rows.texts, rows.scores, listener="x")


@pytest.mark.parametrize(
    ("arguments", "keys", "message"),
    [
        ((["a", "b"], [0.1]), {}, "columns of one length are needed; there are 2 texts, 1 scores"),
        ((["a"], [2.0]), {}, r"texts, row 0: score 2.0 is outside \[-1, 1\]"),
        ((["a", 7], [0.0, 0.0]), {}, "texts, row 1: the text 7 is of type int"),
        (("a text", [0.0]), {}, r"texts must be a list or a column, got str; of a table .* train="),
        ((["a"], [0.0]), {"pooling": "x"}, "pooling='x' is not one of '', first, last, mean"),
        (
            (list("abcdefghijkl"), 6 * [0.0, 1.0]),
            {},
            r"2 distinct scores \(0, 1\) .* num_classes=2 at most",
        ),
        ((["a"],), {"categories": ["up"]}, r"category 'up' is not .* \(see category_names\)"),
        ((["a"], ["0,5"]), {"percent": True}, r"not a number \(see decimal_comma\)"),
        ((["a"], [0.0]), {"encoding": "utf-8"}, "encoding is a key for files, and texts are"),
        ((["a"], [0.0]), {"on_bad_row": "skip"}, "on_bad_row is a key for files, and texts are"),
        ((["a"], ["x"]), {"category_names": ("x", "y")}, "has 2 names, and num_classes is 5"),
        ((["a"], None), {}, "texts need scores, categories or both"),
        ((None, [0.0]), {}, "labels or splits are given without texts"),
        ((["a"], [0.0]), {"epoch": 3}, "there is no key 'epoch'; the nearest is 'epochs'"),
        ((["a"], [0.0]), {"batch_size": "8"}, "batch_size='8' must be a whole number"),
        ((["a"], [0.0]), {"train": "x.csv"}, "train='x.csv' names files, and rows are given too"),
        ((["a"], [0.0]), {"writers": "tensorboard"}, "need a folder to write in"),
        ((None,), {"train": "x.csv", "test": "y.csv"}, "x.csv: no such file"),
        ((["a"], [0.0]), {"validation": "y.csv"}, "y.csv: no such file"),
        ((["a"], [0.0]), {"validation": 0.1}, r"validation must be \(texts, scores\)"),
    ],
)
def test_a_mistake_is_one_line(arguments, keys, message):
    with pytest.raises(ValueError, match=message) as error:
        dwa_jax.train(*arguments, **keys)
    assert "\n" not in str(error.value)
