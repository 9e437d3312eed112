"""A run that goes on with another configuration: what may differ, longer runs, moved weights."""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import dwa_jax
from dwa_jax.finetune import plots, run_folder, saved
from dwa_jax.finetune.config import Config, Scratch, later
from dwa_jax.finetune.run_records import MetricsFile
from tests.experiments import trained_runs

# Another value of each type, and of keys with a range of their own.
OTHER = {
    **{"dtype": "bfloat16", "pooling": "mean", "preset": "stable", "proportions": "dataset"},
    **{"gradient_scope": "last_layer", "gradient_norms": "trees", "on_bad_row": "skip"},
    **{"label_with": "vader", "fractions": (0.9, 0.1, 0.0), "score_range": (0.0, 1.0)},
    **{"scratch": Scratch(width=64), "lora_dropout": 0.5, "num_classes": 3},
    **{"category_names": tuple("abcde"), "extension_schedule": "restart", "fold": 2},
    **{"protocol": "paper", "coverage": 0.8, "intervals": "by_length"},
    **{"adam_mean_dtype": "bfloat16", "mesh": "data=-1,fsdp=2"},
}


def other(field):
    value = getattr(Config(), field.name)
    if field.name in OTHER:
        return OTHER[field.name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 3
    return ("x",) if isinstance(value, tuple) else f"{value}x"


def begun(folder, **more):
    """A folder in which an epoch has ended."""
    folder.mkdir(exist_ok=True)
    MetricsFile(folder / "metrics.jsonl").write({"kind": "evaluation", "step": 6, "epoch": 1})
    about = {"config": Config().to_dict(), "data": "rows", "versions": run_folder.versions()}
    run_folder.write_json(folder / "config.json", about | more)
    return folder


@pytest.mark.parametrize("field", dataclasses.fields(Config), ids=lambda field: field.name)
def test_what_a_key_may_become(tmp_path, field):
    """Each key as it says of itself; of the rows and weights that a run may find elsewhere too."""
    folder = begun(tmp_path / "run")
    config = Config.of(**{"folds": 3 if field.name == "fold" else 0, field.name: other(field)})
    before = (folder / "config.json").read_bytes()
    if later(field.name) in ("any", "more", "extending", "same rows"):
        (note,) = run_folder.open_folder(folder, config, "rows", {})
        assert f"{field.name}: " in note and " there, " in note
        stored = json.loads((folder / "config.json").read_text())
        assert Config.of(stored["config"]) == config and stored["data"] == "rows"
        assert run_folder.open_folder(folder, config, "rows", {}) == []
        with pytest.raises(ValueError, match="a run on other rows"):
            run_folder.open_folder(folder, config, "other rows", {})
    else:
        with pytest.raises(ValueError, match=rf"{field.name}.*: .* there, .* now"):
            run_folder.open_folder(folder, config, "rows", {})
        assert (folder / "config.json").read_bytes() == before


def test_many_keys_may_change_and_those_that_shape_the_model_may_not():
    kinds = {field.name: later(field.name) for field in dataclasses.fields(Config)}
    free = {key for key, kind in kinds.items() if kind == "any"}
    page = (Path(__file__).parents[2] / "docs" / "using.md").read_text("utf-8")
    (row,) = re.findall(r"^\| (.*) \| anything \|$", page, re.MULTILINE)
    assert free == set(re.findall(r"`(\w+)`", row))
    assert free >= {
        *("eval_batch_size", "log_every", "writers", "patience", "max_bad_steps"),
        *("checkpoint_every", "checkpoint_minutes", "keep_checkpoints"),
    }
    assert all(kinds[key] == "same" for key in ("seed", "batch_size", "learning_rate", "scratch"))


def test_a_run_is_never_made_shorter_and_its_schedule_stays_once_it_is_in_use(tmp_path):
    folder = begun(tmp_path / "run")
    with pytest.raises(ValueError, match="epochs: 10 there, 9 now"):
        run_folder.open_folder(folder, Config(epochs=9), "rows", {})
    longer = Config(epochs=20, extension_schedule="restart")
    run_folder.open_folder(folder, longer, "rows", {})
    assert run_folder.lengths(folder, longer)[1:] == [(20, "restart")]
    with pytest.raises(ValueError, match="extension_schedule: 'restart' there, 'stretch' now"):
        run_folder.open_folder(folder, Config(epochs=20), "rows", {})
    longest = Config(epochs=25)
    run_folder.open_folder(folder, longest, "rows", {})
    assert run_folder.lengths(folder, longest) == [
        (10, "restart"),
        (20, "restart"),
        (25, "stretch"),
    ]
    (folder / "config.json").write_text(
        (folder / "config.json").read_text().replace('"restart"', '"never"')
    )
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        run_folder.lengths(folder, longest)


class _Copy(dwa_jax.Listener):
    """Copies a run's folder as it is before the last of its epochs is saved."""

    def __init__(self, folder, to, epoch):
        self._folder, self._to, self._epoch = folder, to, epoch

    def epoch(self, record):
        if record["epoch"] == self._epoch:
            shutil.copytree(self._folder, self._to)


@pytest.mark.slow
def test_a_longer_run_is_the_shorter_one_up_to_its_end(tmp_path):
    rows = dwa_jax.data.headlines.generate(60, seed=0)
    options = {
        **{"tasks": ("regression",), "weighting": "single_task", "stratifier": "equal_width"},
        **{"batch_size": 16, "eval_batch_size": 8, "max_buckets": 1, "max_length": 16},
        **{"learning_rate": 1e-2, "log_every": 1, "listener": dwa_jax.Listener()},
        "scratch": {"vocab_size": 300, "width": 8, "layers": 1, "heads": 2, "feed_forward": 16},
    }

    def train(name, **keys):
        given = options | keys
        return dwa_jax.train(rows.texts, rows.scores, folder=tmp_path / name, **given)

    def records(name):
        timed = ("step_ms", "tokens_per_second", "seconds")
        found = MetricsFile(tmp_path / name / "metrics.jsonl").read()
        return [{k: v for k, v in record.items() if k not in timed} for record in found]

    # As if it had been killed there.
    copies = _Copy(tmp_path / "one", tmp_path / "two", 2)
    train("one", epochs=2, keep_checkpoints=True, listener=copies)
    short = records("one")
    longer = {"epochs": 3, "extension_schedule": "restart"}
    # Other keys that may change change on the way.
    one = train("one", **longer, checkpoint_every=2, max_bad_steps=3, unroll=1)
    assert records("one")[: len(short)] == short
    # Extended before the end that it was to have, it is the same run.
    two = train("two", **longer)
    assert records("two") == records("one") and two.summary["epochs"] == 3
    np.testing.assert_array_equal(one.predict(rows.texts).score, two.predict(rows.texts).score)
    # The best epoch of all, whichever part it is of, and no checkpoint left.
    best = min(r["mse"] for r in records("two") if r["kind"] == "evaluation")
    assert two.summary["validation"]["mse"] == best
    assert not (tmp_path / "two" / "checkpoints").exists()
    # It can be begun from, which the refusal says.
    with pytest.raises(ValueError, match=r"keep_checkpoints=True .* --config\.backbone="):
        train("two", **longer | {"epochs": 4})
    again = dwa_jax.load(tmp_path / "two").predict(rows.texts).score
    np.testing.assert_array_equal(again, two.predict(rows.texts).score)


@pytest.mark.slow
def test_a_run_finds_its_weights_where_they_were_moved_and_takes_no_others(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    place = trained_runs.backbone("bert", tmp_path / "bert")
    trained = trained_runs.make("bert", place)
    trained.folder, trained.metrics = None, []
    monkeypatch.setattr(plots, "draw", lambda *given: {})
    saved.write(trained, tmp_path / "run")
    ours = dwa_jax.load(tmp_path / "run").predict(trained_runs.TEXTS).score
    os.rename(place, tmp_path / "moved")
    with pytest.raises(
        ValueError, match=r"backbone=.*bert.* elsewhere now, say so: backbone=FOLDER"
    ):
        dwa_jax.load(tmp_path / "run")
    found = dwa_jax.load(tmp_path / "run", backbone=tmp_path / "moved")
    np.testing.assert_array_equal(found.predict(trained_runs.TEXTS).score, ours)
    monkeypatch.chdir(tmp_path)
    assert dwa_jax.load("run", backbone="moved").config.backbone == str(tmp_path / "moved")
    # One matrix of another model's suffices.
    from safetensors.numpy import load_file, save_file

    shutil.copytree(tmp_path / "moved", tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    name = next(name for name in weights if name.endswith("layer.1.output.dense.weight"))
    weights[name] = weights[name].copy()
    weights[name][1, 3] += 1e-3
    save_file(weights, tmp_path / "other" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"backbone='.*other' has other weights than those"):
        dwa_jax.load(tmp_path / "run", backbone="other")
    # So does a run that goes on.
    folder = begun(tmp_path / "begun", weights=trained.digests)
    config = Config(backbone=str(tmp_path / "moved"))
    (note,) = run_folder.open_folder(folder, config, "rows", trained.digests)
    assert "backbone: 'scratch' there" in note
    with pytest.raises(ValueError, match="began from other weights than those of backbone="):
        run_folder.open_folder(folder, config, "rows", {"backbone": "another"})
