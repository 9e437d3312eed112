"""Exports are opened where they are meant to be opened: in transformers and in PEFT."""

import csv
import dataclasses
import functools
import json
import os
import re
import sys
import warnings

import numpy as np
import pytest

from dwa_jax import backbones
from dwa_jax.finetune import card, saved
from dwa_jax.finetune.exports import opened, to_onnx
from dwa_jax.finetune.predictions_file import SplitPredictions
from dwa_jax.finetune.predictor import Predictor
from experiments import export
from experiments.terminal import command
from tests.experiments import trained_runs
from tests.experiments.trained_runs import FAMILIES, TEXTS, THRESHOLDS

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """family -> a run."""

    @functools.cache
    def get(family):
        folder = trained_runs.backbone(family, tmp_path_factory.mktemp(family))
        return trained_runs.make(family, folder)

    return get


@pytest.fixture(scope="module")
def ours(runs):
    """family -> the run's own predictions of the texts."""
    return functools.cache(lambda family: Predictor(runs(family)).predict(TEXTS))


def logits(model, folder):
    """What plain transformers makes of the texts: right-padded, of unequal lengths."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    assert len(set(inputs["attention_mask"].sum(1).tolist())) > 2
    with torch.no_grad():
        return model.eval()(**inputs).logits.numpy()


def check(score, odds, ours):
    np.testing.assert_allclose(score[:, 0], ours.score, atol=TOLERANCE)
    odds = np.exp(odds) / np.exp(odds).sum(1, keepdims=True)
    np.testing.assert_allclose(odds, ours.probabilities, atol=TOLERANCE)
    # Predictions that differ from text to text, or agreement would say little.
    assert np.ptp(ours.score) > 0.05 and np.ptp(ours.probabilities, axis=0).max() > 0.02


def run_the_card(out, monkeypatch):
    """What the card's own lines give, in the export's folder."""
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text("utf-8"), re.DOTALL)
    names = {}
    monkeypatch.chdir(out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        exec(code, names)
    return names


def check_the_card(out, run, monkeypatch):
    names = run_the_card(out, monkeypatch)
    ours = Predictor(run).predict(names["texts"])
    np.testing.assert_allclose(np.asarray(names["scores"]), ours.score, atol=TOLERANCE)
    odds = np.asarray(names["probabilities"])
    np.testing.assert_allclose(odds, ours.probabilities, atol=TOLERANCE)


def open_task(folder, **options):
    opened = transformers.AutoModelForSequenceClassification.from_pretrained
    model, info = opened(folder, output_loading_info=True, **options)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    return model


def open_peft(backbone, folder, outputs, pad_token_id=None):
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PEFT's own use of transformers
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            backbone, num_labels=outputs
        )
        if pad_token_id is not None:
            model.config.pad_token_id = pad_token_id
        # PEFT warns of tensors that find no place, and warnings are errors.
        return peft.PeftModel.from_pretrained(model, folder)


def encode(folder):
    """What plain sentence-transformers makes of the texts."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    assert model.max_seq_length == 32
    return model.encode(TEXTS)


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_gives_our_predictions(runs, ours, family, tmp_path):
    out = export.export(runs(family), "transformers", tmp_path / "out", check=False)
    regression = open_task(out / "regression")
    classification = open_task(out / "classification")
    check(
        logits(regression, out / "regression"),
        logits(classification, out / "classification"),
        ours(family),
    )
    assert regression.config.num_labels == 1 and regression.config.problem_type == "regression"
    config = classification.config
    assert config.num_labels == 3 and config.thresholds == THRESHOLDS
    assert config.id2label[1] == "1 (-0.400, +0.250]" and config.pad_token_id == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_gives_our_predictions_before_and_after_merging(
    runs, ours, family, tmp_path, monkeypatch
):
    run = runs(family)
    out = export.export(run, "peft", tmp_path / "out", check=False)
    models = {}
    for task, outputs in {"regression": 1, "classification": 3}.items():
        models[task] = open_peft(
            run.config.backbone, out / task, outputs, run.tokenizer.pad_token_id
        )
    check(*[logits(models[task], out / task) for task in models], ours(family))
    merged = {task: model.merge_and_unload() for task, model in models.items()}
    assert not any("lora" in name for name, _ in merged["regression"].named_modules())
    check(*[logits(merged[task], out / task) for task in merged], ours(family))
    check_the_card(out, run, monkeypatch)


def test_a_decoder_whose_texts_end_with_what_pads_is_given_another_padding(tmp_path):
    folder = trained_runs.backbone("llama", tmp_path / "backbone")
    words = transformers.AutoTokenizer.from_pretrained(folder)
    assert words("pound")["input_ids"][-1] == words.eos_token_id
    words.pad_token = words.eos_token
    words.save_pretrained(folder)
    with pytest.warns(UserWarning, match="padding is '<pad>', not '</s>' as the tokenizer has it"):
        run = trained_runs.make("llama", folder)
    out = export.export(run, "transformers", tmp_path / "out", check=False)
    opened = open_task(out / "regression")
    assert opened.config.pad_token_id == run.tokenizer.pad_token_id != run.tokenizer.eos_token_id
    # Padded and not, as whoever opens it does.
    mine = Predictor(run).predict(TEXTS).score
    np.testing.assert_allclose(logits(opened, out / "regression")[:, 0], mine, atol=1e-4)


def test_a_mean_that_transformers_knows_is_exported(runs, tmp_path, monkeypatch):
    folder = runs("modernbert").config.backbone
    run = trained_runs.make("modernbert", folder, pooling="mean")
    ours = Predictor(run).predict(TEXTS)
    assert np.abs(ours.score - Predictor(runs("modernbert")).predict(TEXTS).score).max() > 1e-3
    for form in ("transformers", "peft"):
        out = export.export(run, form, tmp_path / form, check=False)
        check_the_card(out, run, monkeypatch)


@pytest.mark.parametrize("family", FAMILIES)
def test_sentence_transformers_gives_our_predictions(runs, ours, family, tmp_path, monkeypatch):
    run = runs(family)
    # Where attention is causal, the first token is the same vector for every text.
    for pooling in ("last", "mean") if run.pooling == "last" else ("first", "last", "mean"):
        changed = run
        if pooling != run.pooling:
            changed = saved.Trained(**{**vars(run), "pooling": pooling})
        expected = ours(family) if changed is run else Predictor(changed).predict(TEXTS)
        out = export.export(changed, "sentence_transformers", tmp_path / pooling, check=False)
        score, odds = encode(out / "regression"), encode(out / "classification")
        assert score.shape == (len(TEXTS), 1) and odds.shape == (len(TEXTS), 3)
        check(score, odds, expected)
        np.testing.assert_allclose(score[:, 0], expected.score, atol=1e-5)
    assert "Opened with" not in (out / "README.md").read_text()
    check_the_card(out, changed, monkeypatch)


# Learned positions, positions turned, windows, norms of queries; and unlike heads.
@pytest.mark.parametrize("family", ["distilbert", "mistral", "modernbert", "qwen3"])
def test_onnxruntime_gives_our_predictions(runs, ours, family, tmp_path, monkeypatch):
    run = runs(family)
    out = export.export(run, "onnx", tmp_path / "out", check=False)
    found = to_onnx.outputs(run, out, TEXTS)
    check(found["regression"], found["classification"], ours(family))
    # Of 8 bits: another file, with other numbers, and near.
    near = to_onnx.outputs(run, out, TEXTS, to_onnx.QUANTIZED)
    score = ours(family).score
    near = near["regression"][:, 0]
    assert (near != found["regression"][:, 0]).all()
    assert np.corrcoef(near, score)[0, 1] > 0.9
    check_the_card(out, run, monkeypatch)
    if family == "distilbert":
        # How near is told where the run's own predictions are known.
        told, far = [], np.abs(near - score)
        predicted = SplitPredictions(TEXTS, score, score, *[ours(family).category] * 2, None)
        known = saved.Trained(**{**vars(run), "predictions": predicted})
        export.export(known, "onnx", tmp_path / "again", note=told.append)
        start = f"on {len(TEXTS)} texts of the run, model_int8.onnx's scores differ by "
        assert told[1].startswith(f"{start}{far.mean():.3f} on average and {far.max():.3f} at most")
        assert told[1][2:] in (tmp_path / "again" / "README.md").read_text()


def test_without_what_makes_a_graph_a_line_says_what_to_install(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"needs onnxscript: pip install \"dwa_jax\[onnx\]\""):
        export.export(runs("bert"), "onnx", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_tweets_are_normalized_before_what_was_written_is_opened(runs, tmp_path):
    told, folder = [], runs("roberta").config.backbone
    run = trained_runs.make("roberta", folder, rank=0, normalize_tweets=True)
    texts = ["@who EUR/USD jumps http://x.y/z", "pound"]
    run.predictions = saved.SplitPredictions(texts, *[None] * 5)
    out = export.export(run, "", tmp_path / "out", note=told.append)
    assert "on 2 texts it differs from the run by at most" in told[0]
    assert "replace each word that starts with `@`" in (out / "README.md").read_text()


def test_what_differs_from_the_run_or_does_not_open_is_not_left_behind(runs, tmp_path, monkeypatch):
    run, real = runs("bert"), backbones.save_tensors

    def wrong(path, tensors):
        real(path, {n: v + 0.01 if v.shape == (1, 16) else v for n, v in tensors.items()})

    with monkeypatch.context() as patch:
        patch.setattr(backbones, "save_tensors", wrong)
        for form in ("transformers", "peft", "sentence_transformers"):
            with pytest.raises(ValueError, match=r"differs from the run by .*e-0\d on 3 texts"):
                export.export(run, form, tmp_path / "out")
        patch.setattr(backbones, "save_tensors", lambda path, tensors: None)
        with pytest.raises(ValueError, match=r"^transformers [\d.]+ cannot open what was written"):
            export.export(run, "transformers", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_where_nothing_opens_it_no_numbers_are_claimed(runs, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(opened, "_installed", lambda package: package != "torch")
    out = export.export(runs("llama"), "peft", tmp_path / "out", note=told.append)
    assert told == ["not opened: peft and torch are not installed here"]
    text = (out / "README.md").read_text()
    assert "Opened with" not in text and "within" not in text


def test_a_run_in_bfloat16_is_compared_in_float32_and_peft_opens_its_base_so(tmp_path, monkeypatch):
    folder = trained_runs.backbone("llama", tmp_path / "backbone")
    model = transformers.AutoModel.from_pretrained(folder).to(torch.bfloat16)
    model.save_pretrained(folder)
    run = trained_runs.make("llama", folder, dtype="bfloat16")
    for form in ("transformers", "peft"):
        out = export.export(run, form, tmp_path / form)
        text = (out / "README.md").read_text()
        assert "computed in float32. The run computed in bfloat16" in text
        names = run_the_card(out, monkeypatch)
        assert names["regression"].dtype == torch.float32
    assert "dtype=torch.float32" in text
    wide = trained_runs.make("llama", folder)
    ours = Predictor(wide).predict(names["texts"])
    np.testing.assert_allclose(names["scores"].numpy(), ours.score, atol=TOLERANCE)


def test_without_a_format_what_fits_is_written(runs, tmp_path, capsys, monkeypatch):
    folder = runs("bert").config.backbone
    run = trained_runs.make("bert", folder, pooling="mean")
    monkeypatch.setattr(export.saved, "load", lambda path, backbone: run)
    export.main([f"--workdir={tmp_path}", f"--output={tmp_path / 'out'}", "--no-check"])
    assert "for sentence_transformers; README.md" in capsys.readouterr().out
    assert (tmp_path / "out" / "regression" / "modules.json").exists()
    assert export.fitting(runs("bert")) == "transformers"


@pytest.mark.parametrize("form", export.FORMATS)
def test_from_training_to_the_opened_export(finished_run, form, tmp_path, monkeypatch, capsys):
    folder, out = finished_run, tmp_path / "out"
    run = saved.load(folder)
    ours = Predictor(run).predict(TEXTS)
    export.main([f"--workdir={folder}", f"--format={form}", f"--output={out}"])
    text = (out / "README.md").read_text()
    assert "weights.png" in text and (out / "weights.png").exists() and "license" in text
    assert f"--format={form}" in text and "--config.lora_rank=2" in text
    assert f"{run.thresholds[1]:.6f}" in text and "weight_regression" in text
    with (folder / "predictions.csv").open(newline="") as file:
        tested = [int(row["category"]) for row in csv.DictReader(file)]
    counts = [len(tested), *np.bincount(tested, minlength=5)]
    assert f"| test | {' | '.join(map(str, counts))} |" in text
    check_the_card(out, run, monkeypatch)
    # Readable by whom the umask lets, and by transformers 4, which knows no TokenizersBackend.
    os.umask(mask := os.umask(0))
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~mask}
    alone = out if form == "onnx" else out / "regression"
    about = json.loads((alone / "tokenizer_config.json").read_text())
    assert about["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "Opened with" in text and "note: opened with" in capsys.readouterr().out
    if form == "sentence_transformers":
        score, odds = (encode(out / task.name) for task in run.tasks)
    elif form == "onnx":
        found = to_onnx.outputs(run, out, TEXTS)
        score, odds = found["regression"], found["classification"]
    elif form == "transformers":
        models = {task.name: open_task(out / task.name) for task in run.tasks}
    else:
        models = {
            task.name: open_peft(out / "base", out / task.name, task.outputs) for task in run.tasks
        }
    if form in ("transformers", "peft"):
        score, odds = (logits(models[task.name], out / task.name) for task in run.tasks)
    np.testing.assert_allclose(score[:, 0], ours.score, atol=TOLERANCE)
    odds = np.exp(odds) / np.exp(odds).sum(1, keepdims=True)
    np.testing.assert_allclose(odds, ours.probabilities, atol=TOLERANCE)


def test_a_trunk_that_trained_itself_and_names_of_categories(tmp_path):
    folder = trained_runs.backbone("roberta", tmp_path / "backbone")
    run = trained_runs.make(
        "roberta",
        folder,
        rank=0,
        tasks=("classification",),
        category_column="label",
        category_names=("bad", "so-so", "good"),
    )
    out = export.export(run, "transformers", tmp_path / "out")
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == ["classification"]
    model = open_task(out / "classification")
    assert model.config.id2label == {0: "bad", 1: "so-so", 2: "good"}
    odds = logits(model, out / "classification")
    odds = np.exp(odds) / np.exp(odds).sum(1, keepdims=True)
    np.testing.assert_allclose(odds, Predictor(run).predict(TEXTS).probabilities, atol=TOLERANCE)
    with pytest.raises(ValueError, match=r"without LoRA.*another format"):
        export.export(run, "peft", tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


def test_a_pooling_without_counterpart_is_refused_and_writes_nothing(runs, tmp_path):
    run = runs("bert")
    changed = saved.Trained(**{**vars(run), "pooling": "mean"})
    with pytest.raises(ValueError, match="pooling='mean' has no counterpart.*pooling='first' can"):
        export.export(changed, "transformers", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_no_folder_of_others_is_touched(runs, tmp_path):
    run, out = runs("llama"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="something else than an export"):
        export.export(run, "transformers", out, check=False)
    assert (out / "thesis.tex").read_text() == "years of work"
    (out / "thesis.tex").unlink()
    export.export(run, "transformers", out, check=False)  # an empty one is nobody's
    export.export(run, "peft", out, check=False)  # its own earlier one
    assert (out / "regression" / "adapter_model.safetensors").exists()
    assert not (out / "regression" / "model.safetensors").exists()
    (out / "regression" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"regression/notes\.txt.*which no export wrote"):
        export.export(run, "peft", out, check=False)
    assert (out / "regression" / "notes.txt").read_text() == "mine"
    with pytest.raises(ValueError, match="is no folder"):
        export.export(run, "peft", out / "README.md", check=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_in_between_leaves_what_was_there(runs, tmp_path, monkeypatch, failure):
    def fail(*args, **options):
        raise failure

    run, out = runs("llama"), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(card, "write", fail)  # the last thing written
        with pytest.raises(type(failure)):
            export.export(run, "transformers", out, check=False)
    assert not list(tmp_path.iterdir())
    export.export(run, "transformers", out, check=False)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(card, "write", fail)
        with pytest.raises(type(failure)):
            export.export(run, "peft", out, check=False)
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_export_left_is_cleared_away(runs, tmp_path):
    run, out = runs("llama"), tmp_path / "out"
    export.export(run, "peft", out, check=False)
    # As a kill leaves them: half of a new one, or the old one out of the way.
    partial = tmp_path / ".out.dwa_jax-0123456789abcdef.partial"
    partial.mkdir()
    (partial / export.MARKER).write_text(json.dumps({"files": None}))
    (partial / "half").write_text("")
    out.rename(tmp_path / ".out.dwa_jax_export.json.previous")
    export.export(run, "peft", out, check=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_command_says_in_one_line_what_is_wrong(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(command.signal, "signal", lambda *args: None)
    argv = [f"--workdir={folder}", "--format=peft", f"--output={tmp_path / 'out'}"]
    with pytest.raises(SystemExit) as stopped:
        command.run(lambda: export.main(argv))
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said == f"error: {folder} holds no run: there is no config.json\n"
    with pytest.raises(SystemExit):
        export.parse([*argv, "--fromat=peft"])
    assert capsys.readouterr().err == "error: unrecognized arguments: --fromat=peft\n"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_card_names_a_base_model_of_the_hub_alone(runs):
    def header(backbone):
        run = runs("qwen2")
        config = dataclasses.replace(run.config, backbone=backbone)
        changed = saved.Trained(**{**vars(run), "config": config})
        text = card.write(changed, "peft", made_by="", license="mit", curve=False)
        return text.split("---")[1]

    assert 'base_model: "Qwen/Qwen2-0.5B"' in header("Qwen/Qwen2-0.5B")
    for folder in (str(runs("qwen2").folder), "/models/of/mine", "scratch"):
        assert "base_model" not in header(folder) and 'license: "mit"' in header(folder)


def test_the_card_tells_the_command_that_trained(runs):
    command = card.training_command(runs("qwen2"))
    assert "--config.num_classes=3" in command and "--config.eval_batch_size=4" in command
    assert "--config.seed" not in command
