"""The program as its user meets it: a folder, its numbers, a mistake."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers

from configs import base
from dwa_jax import data
from dwa_jax.finetune.corpus import read_corpus
from experiments.terminal import overview
from experiments.terminal.console import Terminal
from tests import runs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PLOTS = {"score_distribution", "losses", "weights", "confusion", "predicted_vs_true"}
PLOTS |= {"score_panels", "reliability"}
STEP = {
    "step",
    "epoch",
    "loss_regression",
    "loss_classification",
    "loss_imbalance",
    "alpha",
    "beta",
    "learning_rate",
    "step_ms",
    "tokens_per_second",
    "padding_fraction",
} | {
    f"{name}_{task}"
    for name in ("lambda", "weight", "coefficient", "gradient_norm")
    for task in ("regression", "classification")
}
METRICS = {
    "mse",
    "mae",
    "rmse",
    "r2",
    "pearson",
    "spearman",
    "cosine",
    "accuracy",
    "precision_weighted",
    "recall_weighted",
    "f1_weighted",
    "f1_macro",
    "mse_by_class",
    "balanced_mse",
    "accuracy_by_class",
}
TINY = {
    "generated_rows": 300,
    "epochs": 2,
    "batch_size": 16,
    "max_buckets": 1,
    "max_length": 32,
    "learning_rate": 1e-3,
    "log_every": 5,
}
SHAPE = {"vocab_size": 300, "width": 16, "layers": 1, "heads": 2, "feed_forward": 32}


def tiny(**changes):
    config = base.get_config()
    config.update(TINY | changes)
    config.scratch.update(SHAPE)
    return config


def run(folder, **changes):
    return runs.run(tiny(**changes), folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return folder, run(folder)


def records(folder, kind):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def test_the_folder_holds_what_it_promises(finished):
    folder, _ = finished
    stored = json.loads((folder / "config.json").read_text())
    assert stored["config"]["epochs"] == 2 and stored["config"]["scratch"]["width"] == 16
    assert {"jax", "flax", "dwa_jax"} <= set(stored["versions"])
    steps = records(folder, "step")
    assert [record["step"] for record in steps] == [5, 10, 15, 20, 25, 30]
    assert all(set(record) >= STEP for record in steps)
    evaluations = records(folder, "evaluation")
    assert [record["epoch"] for record in evaluations] == [1, 2]
    assert set(evaluations[0]) >= METRICS
    summary = json.loads((folder / "summary.json").read_text())
    for split in ("validation", "test"):
        assert set(summary[split]) >= METRICS
    assert len(summary["thresholds"]) == 4 and summary["best_epoch"] in (1, 2)
    assert summary["machine_scored"] == {}
    assert summary["timing"]["seconds"] > 0 and summary["memory"]["process_bytes"] > 0
    pictures = list((folder / "plots").glob("*.png"))
    assert {path.stem for path in pictures} == PLOTS
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    # What predicting takes is kept, and little else.
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    weights = sizes[folder / "model.safetensors"]
    assert not (folder / "checkpoints").exists()
    assert weights < sum(sizes.values()) <= 1.2 * weights + 2**20


def test_the_end_shows_test_beside_validation_within_80_columns(finished, monkeypatch, capsys):
    _, summary = finished
    monkeypatch.setenv("COLUMNS", "80")
    overview.conclude(Terminal(), summary, Path("runs/tiny"))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert re.search(r"^ +test +validation", printed, re.M)
    mse = [f"{summary[split]['mse']:.4f}" for split in ("test", "validation")]
    assert re.search(rf"^ *mse +{mse[0]} +{mse[1]}", printed, re.M)
    assert f"{summary['best_epoch']} of 2, by the mse of validation" in printed
    assert re.search(r"peak memory +[0-9.]+ [MG]iB", printed)
    assert "runs/tiny/predictions.csv" in printed


def test_predictions_are_the_test_split_and_give_its_metrics(finished):
    folder, summary = finished
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    everything = data.headlines.generate(300, 42)
    expected = data.split(everything, fractions=(0.8, 0.1, 0.1), seed=42)["test"]
    assert [row["text"] for row in rows] == expected.texts
    true = np.array([float(row["score"]) for row in rows])
    predicted = np.array([float(row["predicted_score"]) for row in rows])
    np.testing.assert_allclose(((true - predicted) ** 2).mean(), summary["test"]["mse"])
    probabilities = np.array([[float(row[f"probability_{k}"]) for k in range(5)] for row in rows])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(
        probabilities.argmax(axis=1), [int(row["predicted_category"]) for row in rows]
    )
    hits = [row["category"] == row["predicted_category"] for row in rows]
    np.testing.assert_allclose(np.mean(hits), summary["test"]["accuracy"])


def test_thresholds_see_training_rows_only(finished):
    from dwa_jax import stratify

    _, summary = finished
    everything = data.headlines.generate(300, 42)
    train = data.split(everything, fractions=(0.8, 0.1, 0.1), seed=42)["train"]
    np.testing.assert_allclose(
        summary["thresholds"], stratify.das(train.scores, 5, spacing_penalty=0.01)
    )


def test_the_same_seed_gives_the_same_numbers(finished, tmp_path):
    _, summary = finished
    again = run(tmp_path / "again")
    assert again["test"] == summary["test"] and again["validation"] == summary["validation"]


def test_another_configuration_does_not_touch_the_folder(finished):
    folder, _ = finished
    before = (folder / "config.json").read_bytes()
    with pytest.raises(ValueError, match="another configuration's run .*epochs: 2 there, 1 now"):
        run(folder, epochs=1)
    with pytest.raises(ValueError, match="finished, without the checkpoints that more epochs take"):
        run(folder, epochs=3)
    assert (folder / "config.json").read_bytes() == before


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="not empty and holds no run"):
        run(tmp_path)


def test_early_stopping_keeps_the_best_epoch(tmp_path):
    # At a learning rate that wrecks the model, validation gets worse at once.
    summary = run(
        tmp_path / "run",
        epochs=6,
        patience=1,
        learning_rate=0.5,
        head_learning_rate=0.5,
        log_every=1000,
    )
    assert summary["epochs"] < 6 and summary["best_epoch"] == summary["epochs"] - 1
    values = [record["mse"] for record in records(tmp_path / "run", "evaluation")]
    np.testing.assert_allclose(summary["validation"]["mse"], min(values), rtol=1e-6)


def test_a_run_of_one_task_reads_categories_off_its_scores(tmp_path):
    from dwa_jax import stratify

    summary = run(tmp_path / "run", tasks=("regression",), weighting="single_task", epochs=1)
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert "probability_0" not in rows[0]
    scores = np.clip([float(row["predicted_score"]) for row in rows], -1, 1)
    np.testing.assert_array_equal(
        stratify.categorize(scores, np.array(summary["thresholds"])),
        [int(row["predicted_category"]) for row in rows],
    )


def test_every_other_way_to_train_runs_through_the_program(tmp_path, capsys):
    summary = run(
        tmp_path / "run",
        dtype="bfloat16",
        remat=True,
        unroll=2,
        freeze=("embeddings/word",),
        gradient_scope="last_layer",
        microbatches=2,
        preset="stable",
        proportions="moving_average",
        norm_of_cross_entropy=True,
        normalize_tweets=True,
        fractions=(0.9, 0.1, 0.0),
        max_length=12,
        epochs=1,
        pooling="mean",
        stratifier="equal_frequency",
    )
    assert summary["test"] is None and summary["predictions"] == "validation"
    assert np.isfinite(summary["validation"]["mse"])
    printed = capsys.readouterr().out
    assert "cut to 12 tokens" in printed
    last = records(tmp_path / "run", "step")[-1]
    assert min(last["weight_regression"], last["weight_classification"]) >= 0.1


def test_classification_alone(tmp_path):
    summary = run(
        tmp_path / "run",
        tasks=("classification",),
        weighting="single_task",
        classification_loss="cross_entropy",
        monitor="f1_macro",
        epochs=1,
    )
    assert np.isfinite(summary["test"]["accuracy"]) and "mse" not in summary["test"]
    with pytest.raises(ValueError, match="monitor='mse' needs the regression task"):
        run(tmp_path / "other", tasks=("classification",), weighting="single_task")


def _scored(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "score"])
        writer.writerows(zip(rows.texts, rows.scores, strict=True))
    return str(path)


def test_given_splits_and_the_texts_they_share(tmp_path):
    rows = data.headlines.generate(160, 5)
    train = _scored(tmp_path / "train.csv", rows.take(range(120)))
    # The test file repeats twenty training texts; validation is cut from what is left.
    test = _scored(tmp_path / "test.csv", rows.take(range(100, 160)))
    config = tiny(train=train, test=test)
    corpus = read_corpus(config)
    sizes = {split: len(part) for split, part in corpus.rows.items()}
    assert sizes["test"] == 60 and sizes["train"] + sizes["validation"] == 100
    held = {data.normalize_text(text) for text in corpus.rows["test"].texts}
    seen = corpus.rows["train"].texts + corpus.rows["validation"].texts
    assert not held & {data.normalize_text(text) for text in seen}
    assert any("20 rows left out" in note for note in corpus.notes)
    config = tiny(train=train, validation=test)
    corpus = read_corpus(config)
    assert {split: len(part) for split, part in corpus.rows.items()} == {
        "train": 100,
        "validation": 60,
        "test": 0,
    }


def test_skipped_rows_are_counted(tmp_path):
    path = tmp_path / "rows.csv"
    _scored(path, data.headlines.generate(60, 5))
    path.write_text(path.read_text() + "no score at all,high\n")
    corpus = read_corpus(tiny(train=str(path), on_bad_row="skip"))
    assert sum(map(len, corpus.rows.values())) == 60
    assert any("1 bad rows left out" in note and "high" in note for note in corpus.notes)


def test_a_run_is_not_continued_on_other_rows(tmp_path):
    path = tmp_path / "rows.csv"
    _scored(path, data.headlines.generate(120, 5))
    before = run(tmp_path / "run", train=str(path), epochs=1)
    # The same rows elsewhere, under another name of the column.
    moved = tmp_path / "moved.csv"
    moved.write_text(path.read_text().replace("text,score", "headline,score"))
    path.unlink()
    there = {"train": str(moved), "text_column": "headline", "epochs": 1}
    assert run(tmp_path / "run", **there)["test"] == before["test"]
    _scored(moved, data.headlines.generate(121, 5))
    there |= {"text_column": "text"}
    with pytest.raises(ValueError, match=r"a run on other rows: the data has changed.*moved\.csv"):
        run(tmp_path / "run", **there)
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(ValueError, match="a run on other rows: the data has changed"):
        run(tmp_path / "run", **there)


def test_a_choice_that_does_not_fit_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="class_inputs must be 0 or num_classes=5"):
        run(tmp_path / "run", weighting="dwa(class_inputs=3)")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """A small Qwen2 with random weights and a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("qwen")
    texts = data.headlines.generate(200, 0).texts
    tokenizer = data.headlines.tokenizer(texts, 300)
    tokenizer.save_pretrained(folder)
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
    )
    transformers.Qwen2Model(config).save_pretrained(folder)
    return folder


def test_lora_on_hugging_face_weights_and_files_with_different_labels(qwen, tmp_path, capsys):
    scored, classed = tmp_path / "scored.csv", tmp_path / "classed.jsonl"
    rows = data.headlines.generate(80, 3)
    with scored.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["headline", "points", "label"])
        writer.writerows(
            [text, 50 + 50 * y, ""] for text, y in zip(rows.texts, rows.scores, strict=True)
        )
    with classed.open("w") as file:
        for i in range(40):
            line = {"headline": f"class {i % 3} it is, number {i}", "points": None, "label": i % 3}
            file.write(json.dumps(line) + "\n")
    summary = run(
        tmp_path / "run",
        backbone=str(qwen),
        lora_rank=12,
        lora_alpha=24.0,
        epochs=1,
        train=f"{scored},{classed}",
        text_column="headline",
        score_column="points",
        category_column="label",
        score_range=(0.0, 100.0),
        num_classes=3,
        batch_size=8,
        head_learning_rate=0.04,
    )
    assert summary["parameters"]["trained"]["trunk"] < summary["parameters"]["total"] / 2
    assert np.isfinite(summary["test"]["mse"])
    assert sum(map(sum, summary["test"]["confusion"])) == 12
    printed = capsys.readouterr().out
    assert "rank 12 exceeds the full rank of" in printed and "attention/key" in printed
    assert "an update can move a score by 0.51, so long are this model's vectors" in " ".join(
        printed.split()
    )
    assert re.search(r"trained +[0-9,]+ of [0-9,]+ parameters \([0-9.]+%\): LoRA rank 12", printed)
    assert re.search(r"classes +0 +\[-1, .*1 +\(.*2 +\(", printed, re.S)
    assert re.search(r"the largest is [0-9.]+ times the smallest", printed)
    assert re.search(
        r"memory +about [0-9.]+ [KM]iB of arrays in the largest step, a device", printed
    )
    assert re.search(r"the process about [0-9.]+ [MG]iB", printed)


def command(folder, *options):
    arguments = [f"--config.{key}={value}" for key, value in TINY.items()]
    arguments += [f"--config.scratch.{key}={value}" for key, value in SHAPE.items()]
    return [
        sys.executable,
        "-m",
        "experiments.main",
        "--config=configs/demo.py",
        f"--workdir={folder}",
        *arguments,
        *options,
    ]


def error_line(folder, *options):
    result = subprocess.run(command(folder, *options), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (
            "--config.learning_rat=1",
            ["there is no key 'learning_rat'; the nearest is 'learning_rate'"],
        ),
        ("--config.zebra=1", ["there is no key 'zebra'; --help lists them"]),
        ("--config.epochs=many", ["--config.epochs=many: invalid", ": 'many'"]),
        ("--config.train=nowhere.csv", ["nowhere.csv"]),
        ("--config.backbone=nobody/nothing", ["nobody/nothing", "folder"]),
        ("--config.weighting=dwaa", ["dwaa", "dwa"]),
        ("--config.monitor=mze", ["mze", "mse"]),
    ],
)
def test_a_mistake_ends_in_one_line(tmp_path, option, words):
    line = error_line(tmp_path / "run", option)
    assert all(word in line for word in words), line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("absent.py", None, ["absent.py", "no such file", "configs/demo.py"]),
        ("broken.py", "def get_config(:\n", ["cannot be loaded", "SyntaxError"]),
        ("wrong.py", "def get_config():\n    return dict(a=nothing)\n", ["nothing"]),
    ],
)
def test_a_configuration_that_cannot_be_read_is_one_line(tmp_path, name, text, words):
    if text is not None:
        (tmp_path / name).write_text(text)
    line = error_line(tmp_path / "run", f"--config={tmp_path / name}")
    assert all(word in line for word in words), line


def _table(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["text,score", "a,0.1", "b,high"], r"line 3|row 3|:3"),
        (["text,score", "a,0.1", "b,1.5"], "1.5"),
        (["text,points", "a,0.1"], "score.*points"),
        (["text,score", '" ",0.1'], "empty"),
        (["text,score", *[f"t{i},0.5" for i in range(30)]], "distinct|unique"),
        (["text,score", "a,0.1", "b,0.2"], "validation is empty"),
    ],
)
def test_bad_tables_are_named_with_file_and_row(tmp_path, lines, message):
    path = _table(tmp_path / "bad.csv", lines)
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", train=path)
    assert not (tmp_path / "run").exists()


def test_weights_that_cannot_be_used_are_named(qwen, tmp_path):
    def damaged(name, change):
        folder = tmp_path / name
        folder.mkdir()
        for path in qwen.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        change(folder)
        return str(folder)

    def truncate(folder):
        path = folder / "model.safetensors"
        os.truncate(path, path.stat().st_size // 2)

    def rename(folder):
        path = folder / "config.json"
        path.write_text(path.read_text().replace('"qwen2"', '"gpt_neox"'))

    with pytest.raises(ValueError, match="model.safetensors"):
        run(tmp_path / "run", backbone=damaged("truncated", truncate))
    with pytest.raises(ValueError, match="gpt_neox.*qwen2"):
        run(tmp_path / "run", backbone=damaged("renamed", rename))
