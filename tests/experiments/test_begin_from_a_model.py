"""A backbone that is a trained model brings its heads and thresholds, or it is said why not.

Axes: N texts, K categories.
"""

import csv
import dataclasses
import functools
import json
import shutil
import warnings
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import dwa_jax
from dwa_jax import data, training
from dwa_jax.finetune import inherited, saved
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.export import export
from dwa_jax.finetune.listener import Listener
from dwa_jax.finetune.predictor import Predictor
from tests.experiments import trained_runs
from tests.experiments.trained_runs import FAMILIES, TEXTS, THRESHOLDS

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


class Notes(Listener):
    """Keeps what it is told."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def begin(**keys):
    """A model that a run would start from, and what is told of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = saved.begin_model(Config.of(**keys), None, jax.random.key(5))
    return model, [str(item.message) for item in caught]


def same(ours, theirs, tolerance=0):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), ours, theirs)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(family, changes) -> a run that trained its trunk."""

    @functools.cache
    def get(family, **changes):
        folder = trained_runs.backbone(family, tmp_path_factory.mktemp(family))
        return trained_runs.make(family, folder, rank=0, **changes)

    return get


@pytest.fixture(scope="module")
def exports(runs, tmp_path_factory):
    """(family, form) -> the folder of its export."""

    @functools.cache
    def get(family, form, **changes):
        folder = tmp_path_factory.mktemp(family) / form
        return export(runs(family, **changes), form, folder, check=False)

    return get


@pytest.mark.parametrize("form", ["transformers", "sentence_transformers"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_export_comes_back_whole(family, form, runs, exports):
    run, folder = runs(family), exports(family, form)
    model, told = begin(backbone=str(folder), num_classes=3)
    same(model.heads, run.psi)
    same(model.params, run.theta["params"])
    assert model.pooling == run.pooling
    assert told == [
        f"the head for {task} starts from that of backbone={folder}" for task in run.psi
    ]


def test_the_folder_of_one_task_has_one_head(runs, exports):
    folder = exports("bert", "transformers") / "regression"
    model, told = begin(backbone=str(folder), num_classes=3)
    same(model.heads, {"regression": runs("bert").psi["regression"]})
    assert told[1] == (f"backbone={folder} has no head for classification, which starts afresh")


def test_what_heads_were_trained_on_is_pooled_unless_another_is_asked_for(exports):
    folder = exports("llama", "sentence_transformers", pooling="mean")
    assert begin(backbone=str(folder), num_classes=3)[0].pooling == "mean"
    model, told = begin(backbone=str(folder), num_classes=3, pooling="last")
    assert model.pooling == "last" and not model.heads
    assert "regression and classification, are not taken" in told[0]
    assert "pooling='mean', this is pooling='last'" in told[0]


def test_other_categories_and_other_tasks_are_said(exports):
    folder = exports("roberta", "transformers")
    model, told = begin(backbone=str(folder), num_classes=4)
    assert list(model.heads) == ["regression"]
    assert "has 3 outputs, here there are 4; it starts afresh" in told[1]
    model, told = begin(backbone=str(folder), num_classes=3, tasks=("classification",))
    assert list(model.heads) == ["classification"]
    assert told[1].startswith("the head for regression") and told[1].endswith("no such task here")


def test_an_export_for_peft_says_how_it_is_begun_from(runs, tmp_path):
    folder = trained_runs.backbone("qwen2", tmp_path / "backbone")
    out = export(trained_runs.make("qwen2", folder), "peft", tmp_path / "out", check=False)
    with pytest.raises(ValueError, match=r"export for PEFT.*lora_adapter='.*out/regression'"):
        begin(backbone=str(out))
    shutil.rmtree(out)


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_head_of_anyone_s_classifier_is_taken(outputs, tmp_path):
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=300,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=20,
            num_labels=outputs,
        )
    ).eval()
    with torch.no_grad():
        for value in model.parameters():
            value += 0.2 * torch.randn(value.shape)
    model.save_pretrained(tmp_path)
    words = trained_runs.tokenizer()
    words.save_pretrained(tmp_path)
    task = "regression" if outputs == 1 else "classification"
    begun, told = begin(backbone=str(tmp_path), num_classes=3, tasks=(task,))
    assert told == [f"the head for {task} starts from that of backbone={tmp_path}"]
    made = training.Task(task, outputs, None, "")
    predict = training.make_predict(begun.module, [made], pooling=begun.pooling)
    state = SimpleNamespace(theta={"params": begun.params}, frozen={}, psi=begun.heads)
    (ids,) = data.encode(words, TEXTS[:1]).ids
    batch = {"input_ids": ids[None], "attention_mask": np.ones_like(ids)[None]}
    with torch.no_grad():
        theirs = model(torch.tensor(batch["input_ids"])).logits.numpy()
    np.testing.assert_allclose(predict(state, batch)[task], theirs, atol=1e-5)


def test_a_trunk_without_a_head_is_no_news(tmp_path):
    folder = trained_runs.backbone("bert", tmp_path)
    model, told = begin(backbone=str(folder))
    assert model.heads == {} and told == []


def test_a_damaged_head_is_said(exports, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(exports("llama", "sentence_transformers"), folder)
    path = folder / "regression" / "2_Dense" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="2_Dense.*not a readable safetensors file"):
        begin(backbone=str(folder))


@pytest.fixture(scope="module")
def source(finished_run, tmp_path_factory):
    """Forms of one run with LoRA -> folder; and the rows that it was tested on, as files."""
    place = tmp_path_factory.mktemp("source")
    model = dwa_jax.load(finished_run)
    model.save(place / "save")
    for form in ("transformers", "sentence_transformers"):
        model.export(place / form, format=form, check=False)
    with (finished_run / "predictions.csv").open(newline="") as file:
        test = [(row["text"], float(row["score"])) for row in csv.DictReader(file)]
    return {"run": finished_run, "save": place / "save"} | {
        form: place / form for form in ("transformers", "sentence_transformers")
    }, test


def again(source, form, folder=None, **changes):
    """A training at learning rate 0 on other rows, from another seed, tested on the same ones."""
    folders, test = source
    notes = Notes()
    other = data.headlines.generate(40, 9)
    known = {text for text, _ in test}
    train = [pair for pair in zip(other.texts, other.scores, strict=True) if pair[0] not in known]
    keys = {"learning_rate": 0.0, "head_learning_rate": 0.0, "seed": 7, "epochs": 1}
    keys |= {"batch_size": 16, "eval_batch_size": 8, "max_buckets": 1, "max_length": 32}
    keys |= {"gradient_scope": "representation", "dropout": False}  # quick to compile
    model = dwa_jax.train(
        *zip(*train, strict=True),
        validation=tuple(zip(*test, strict=True)),
        test=tuple(zip(*test, strict=True)),
        folder=folder,
        listener=notes,
        **(keys | {"backbone": str(folders[form])} | changes),
    )
    return model, notes.notes


@pytest.mark.parametrize("form", ["run", "save", "transformers", "sentence_transformers"])
def test_at_learning_rate_0_metrics_are_those_of_the_source(form, source):
    folders, _ = source
    before = json.loads((folders["run"] / "summary.json").read_text())
    model, notes = again(source, form)
    for name, value in before["test"].items():
        # Intervals come from validation rows, of which this run has others.
        if isinstance(value, float) and not name.startswith("interval_"):
            assert model.summary["test"][name] == pytest.approx(value, abs=1e-4), name
    assert before["test"]["mse"] > 0 and len(before["test"]) > 8
    np.testing.assert_allclose(model.thresholds, before["thresholds"])
    assert model.summary["thresholds_from"] == str(folders[form])
    told = " ".join(notes)
    assert "the head for regression starts from" in told and "are taken; a stratifier" in told


def test_a_run_on_top_of_a_run_with_lora_is_kept_read_exported_and_continued(source, tmp_path):
    folders, test = source
    texts = [text for text, _ in test][:5]
    changes = {"lora_rank": 2, "learning_rate": 1e-2, "pooling": "first"}
    changes |= {"stratifier": "equal_width"}
    model, notes = again(source, "run", tmp_path / "new", **changes)
    assert "are not taken: stratifier='equal_width' fits others" in " ".join(notes)
    np.testing.assert_allclose(model.thresholds, [-0.6, -0.2, 0.2, 0.6])
    assert model.summary["thresholds_from"] == ""
    ours = model.predict(texts)
    before = Predictor.load(folders["run"]).predict(texts)
    assert np.abs(ours.score - before.score).max() > 1e-6
    read = dwa_jax.load(tmp_path / "new").predict(texts)
    np.testing.assert_allclose(read.score, ours.score, atol=1e-6)
    # Nobody else has its backbone: it comes along, and the export is opened on it.
    told = []
    export(model.run, "peft", tmp_path / "out", note=told.append)
    assert (tmp_path / "out" / "base" / "model.safetensors").exists()
    assert told[0].startswith("opened with peft")
    (tmp_path / "new" / "summary.json").unlink()
    continued, _ = again(source, "run", tmp_path / "new", **changes)
    np.testing.assert_allclose(continued.predict(texts).score, ours.score, atol=1e-6)


def test_a_run_that_began_from_itself_is_refused(source, tmp_path):
    folder = tmp_path / "circle"
    shutil.copytree(source[0]["run"], folder)
    about = json.loads((folder / "config.json").read_text())
    about["config"]["backbone"] = str(folder)
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="began from itself"):
        saved.load(folder)


def test_thresholds_of_an_export_are_read_from_each_of_its_folders(exports):
    for form in ("transformers", "sentence_transformers"):
        folder = exports("bert", form)
        for place in (folder, folder / "classification"):
            assert inherited.inherited_thresholds(str(place)) == THRESHOLDS
    assert inherited.inherited_thresholds("scratch") is None
    assert inherited.inherited_thresholds("some/model") is None


def test_thresholds_behind_a_link_of_a_run_are_not_read(tmp_path):
    (tmp_path / "private").write_text(json.dumps({"thresholds": [0.5]}))
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"config": {}}))
    (folder / "summary.json").symlink_to(tmp_path / "private")
    assert inherited.inherited_thresholds(str(folder)) is None
    (folder / "summary.json").unlink()
    (tmp_path / "private").rename(folder / "summary.json")
    assert inherited.inherited_thresholds(str(folder)) == [0.5]


def test_a_head_that_was_for_scores_of_another_range_is_told_at_the_first_step(runs, tmp_path):
    run = runs("llama")
    far = dataclasses.replace(run, psi=jax.tree.map(lambda leaf: 50 * leaf, run.psi))
    heard = Notes()
    texts = [f"{text} {i}" for i in range(4) for text in TEXTS]
    dwa_jax.train(
        texts,
        np.linspace(-0.9, 0.9, len(texts)),
        backbone=str(export(far, "transformers", tmp_path / "far", check=False)),
        listener=heard,
        epochs=1,
        num_classes=3,
        max_buckets=1,
        fractions=(0.8, 0.2, 0.0),
    )
    assert sum("the regression's first loss is" in note for note in heard.notes) == 1
