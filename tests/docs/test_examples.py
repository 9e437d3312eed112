"""The worked examples of the site: each beside something independent, then all in one run."""

import csv
import importlib
import io
import json
import re
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from dwa_jax import backbones, data, losses, stratify, weighting
from dwa_jax.finetune import saved
from dwa_jax.finetune.predictor import Predictor
from experiments import export
from tests import runs

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
NAMES = ("slaw", "ordinal", "symmetric", "gpt2", "all_of_my_own")
TEXTS = ["EUR/USD jumps after ECB", "the dollar falls", "pound"]


@pytest.fixture(scope="module")
def examples():
    """Imports the examples, which registers them, and takes them out again for other tests."""
    tables = (weighting.METHODS, losses.CLASSIFICATION_LOSSES, stratify.STRATIFIERS)
    tables = (*tables, backbones.FAMILIES)
    before = [dict(table) for table in tables]
    yield {name: importlib.import_module(name) for name in NAMES}
    for name in NAMES:
        del sys.modules[name]
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)


def replay_slaw(series, here, decay):
    """SLAW as its paper writes it: a and b average the squares and the losses."""
    a = b = np.zeros(len(series[0]))
    result = []
    for step, there in zip(np.asarray(series, np.float64), here, strict=True):
        a = np.where(there, decay * a + (1 - decay) * step**2, a)
        b = np.where(there, decay * b + (1 - decay) * step, b)
        inverse = there / np.maximum(np.sqrt(np.maximum(a - b**2, 0)), 1e-5)
        result.append(there.sum() * inverse / inverse.sum())
    return np.array(result)


def test_the_weighting_is_its_paper_s(examples):
    rng = np.random.default_rng(0)
    series = rng.uniform(0.2, 1.0, (6, 3)) * [1.0, 10.0, 0.1]
    here = np.ones((6, 3), bool)
    here[3, 1] = False
    method = weighting.get("slaw", 3, decay=0.9)
    weigh = jax.jit(method.weigh)
    variables, state = method.init(jax.random.key(0))
    found = []
    for step, present in zip(series, here, strict=True):
        signals = weighting.Signals(jnp.asarray(step), jnp.zeros((3, 3)), present=present)
        said = weigh(variables, state, signals)
        state = said.state
        found.append(said.coefficients)
    np.testing.assert_allclose(found, replay_slaw(series, here, 0.9), rtol=1e-3)
    # The task whose loss varies ten times less weighs ten times more.
    assert 5 < found[-1][2] / found[-1][0] < 20
    with pytest.raises(ValueError, match="decay=1 must be in"):
        weighting.get("slaw", decay=1)


def test_the_loss_is_the_distance_of_cumulative_distributions(examples):
    rng = np.random.default_rng(1)
    logits, categories = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    mask = np.array([1, 1, 0, 1, 1, 1.0])
    expected = []
    for row in np.flatnonzero(mask):
        odds = np.exp(logits[row])
        below = np.cumsum(odds / odds.sum())
        expected.append(sum((below[k] - (categories[row] <= k)) ** 2 for k in range(4)))
    batch = {"category": jnp.asarray(np.where(mask, categories, -1)), "category_mask": mask}
    statistics = losses.Statistics(0, jnp.array([2, 1, 1, 1.0]), None)
    loss = losses.CLASSIFICATION_LOSSES["earth_mover"]()

    def share(logits, part):
        rows = {name: value[part] for name, value in batch.items()}
        return loss.apply({}, logits[part], rows, statistics)

    halves = [share(jnp.asarray(logits), part) for part in (slice(0, 3), slice(3, 6))]
    np.testing.assert_allclose(sum(halves), np.mean(expected), rtol=1e-5)
    gradient = jax.grad(share)(jnp.asarray(logits), slice(0, 6))
    assert np.all(gradient[2] == 0) and np.all(np.abs(gradient).max(axis=1)[mask > 0] > 0)


@pytest.mark.parametrize("num_classes", [2, 3, 4, 5])
def test_the_stratifier_treats_both_signs_alike(examples, num_classes):
    scores = np.random.default_rng(2).uniform(-0.4, 1.0, 400)
    thresholds = stratify.fit("symmetric", scores, num_classes)
    np.testing.assert_allclose(thresholds, -thresholds[::-1])
    np.testing.assert_allclose(stratify.fit("symmetric", -scores, num_classes), thresholds)
    both = np.concatenate([scores, -scores])
    counts = stratify.stratum_counts(both, thresholds)
    assert np.abs(counts - 800 / num_classes).max() <= 4


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory):
    """A small random GPT-2 with a classifier, as transformers writes it."""
    words = data.headlines.tokenizer(TEXTS, 280)
    config = transformers.GPT2Config(
        vocab_size=len(words), n_embd=16, n_layer=2, n_head=2, n_positions=48, num_labels=1
    )
    torch.manual_seed(3)
    model = transformers.GPT2ForSequenceClassification(config)
    with torch.no_grad():
        for value in model.parameters():
            value += 0.1 * torch.randn(value.shape)
    folder = tmp_path_factory.mktemp("gpt2")
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def test_the_backbone_is_that_of_transformers(examples, gpt2_folder):
    module, params = backbones.load(gpt2_folder)
    assert isinstance(module, examples["gpt2"].Gpt2)
    rng = np.random.default_rng(4)
    ids = rng.integers(0, module.config.vocab_size, (3, 9)).astype(np.int32)
    mask = np.ones_like(ids)
    mask[1, 6:] = 0
    weights = rng.normal(size=(3, 9, 16)).astype(np.float32) * mask[:, :, None]

    @jax.jit
    def ours(params):
        def total(params):
            hidden = module.apply({"params": params}, ids, mask)
            return jnp.sum(hidden * weights), hidden

        return jax.grad(total, has_aux=True)(params)

    gradient, hidden = ours(params)
    model = transformers.GPT2Model.from_pretrained(gpt2_folder).eval()
    theirs = model(input_ids=torch.tensor(ids).long(), attention_mask=torch.tensor(mask))
    theirs = theirs.last_hidden_state
    (theirs * torch.tensor(weights)).sum().backward()
    real = mask == 1
    np.testing.assert_allclose(hidden[real], theirs.detach().numpy()[real], atol=2e-5)
    named = backbones.to_huggingface(module.config, gradient)
    expected = {name: value.grad.numpy() for name, value in model.named_parameters()}
    assert set(named) == set(expected)
    for name, value in expected.items():
        allowed = 1e-4 * np.abs(value).max() + 1e-5
        np.testing.assert_allclose(named[name], value, atol=allowed, err_msg=name)
    source = json.loads((gpt2_folder / "config.json").read_text())
    config = examples["gpt2"].read(source)
    assert examples["gpt2"].read(examples["gpt2"].write(config)) == config
    with pytest.raises(backbones.BackboneError, match="scale_attn_by_inverse_layer_idx True"):
        examples["gpt2"].read(source | {"scale_attn_by_inverse_layer_idx": True})


def test_all_of_them_train_predict_and_are_exported(examples, gpt2_folder, tmp_path):
    config = examples["all_of_my_own"].get_config()
    config.update(
        {"backbone": str(gpt2_folder), "generated_rows": 160, "epochs": 1, "batch_size": 16}
        | {"max_length": 32, "max_buckets": 1, "log_every": 1, "lora_rank": 2}
        | {"learning_rate": 1e-2, "warmup_steps": 0}
    )
    summary = runs.run(config, tmp_path / "run")
    rows = data.split(data.headlines.generate(160, config.seed), seed=config.seed)["train"]
    expected = stratify.fit("symmetric", rows.scores, 5)
    np.testing.assert_allclose(summary["thresholds"], expected)

    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [record for record in map(json.loads, lines) if record["kind"] == "step"]
    assert len(steps) == 8
    series = [[step["loss_regression"], step["loss_imbalance"]] for step in steps]
    found = [[step["coefficient_regression"], step["coefficient_classification"]] for step in steps]
    here = np.ones((8, 2), bool)
    np.testing.assert_allclose(found, replay_slaw(series, here, 0.95), rtol=1e-2)

    predictions = Predictor.load(tmp_path / "run")(TEXTS)
    run = saved.load(tmp_path / "run")
    assert max(np.abs(v).max() for v in jax.tree.leaves(run.theta["lora"])) > 0
    export.export(run, "transformers", tmp_path / "out", made_by="a test")
    folder = tmp_path / "out" / "regression"
    model = transformers.GPT2ForSequenceClassification.from_pretrained(folder).eval()
    for text, ours in zip(TEXTS, predictions, strict=True):
        ids = torch.tensor([run.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            assert abs(model(ids).logits.item() - ours.score) < 1e-4


def test_the_engine_alone_trains_three_tasks_of_a_model_that_is_not_ours():
    path = EXAMPLES / "engine_alone.py"
    assert len(path.read_text().splitlines()) < 60
    printed = io.StringIO()
    with redirect_stdout(printed):
        example = runpy.run_path(str(path), run_name="__main__")
    assert printed.getvalue().count("losses") == 5
    first = np.array(printed.getvalue().split("[", 1)[1].split("]", 1)[0].split(), float)
    assert np.all(example["g"].losses < 0.3 * first)

    params, batch = example["params"], example["draw"](jax.random.key(5))

    @jax.jit
    def each(theta, psi):
        def task(theta, psi, number):
            h = example["trunk"](theta, batch)
            return example["task_losses"](h, psi, (), batch)[0][number]

        return [jax.grad(task, argnums=(0, 1))(theta, psi, number) for number in range(3)]

    tasks = each(params["theta"], params["psi"])
    g = example["step"](params, example["state"], example["moments"], batch)[3]
    c = g.weighed.coefficients
    # The floor of 0.05 on w, and weights that start at 1 instead of 1/9.
    assert abs((c / g.weighed.metrics["lambda"]).sum() - 9) < 1e-3 and np.ptp(c) > 0.1
    for found, argument in ((g.theta, 0), (g.psi, 1)):
        mixed = jax.tree.map(
            lambda *parts: sum(w * part for w, part in zip(c, parts, strict=True)),
            *[task[argument] for task in tasks],
        )
        for ours, expected in zip(jax.tree.leaves(found), jax.tree.leaves(mixed), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-6)
    norms = [
        np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(theta)))
        for theta, _ in tasks
    ]
    np.testing.assert_allclose(g.norms, norms, rtol=1e-4)


def test_intervals_are_counted_and_printed(tmp_path, capsys):
    rows = data.headlines.generate(100, 3)
    file = tmp_path / "rows.csv"
    with file.open("w", newline="") as table:
        csv.writer(table).writerows([("text", "score"), *zip(rows.texts, rows.scores, strict=True)])
    example = importlib.import_module("interval_coverage")
    example.main([str(file)], seeds=(0,), epochs=1)
    first, last = capsys.readouterr().out.splitlines()
    (held,) = re.findall(r"marginal held ([\d.]+)", first)
    assert last == f"marginal, over 1 runs: {held}" and 0.5 < float(held) <= 1
    assert first.startswith("rows calibration error 0.")


def test_alarms_are_counted_of_samples_and_of_other_texts(tmp_path, capsys):
    files = []
    for name, texts in [("rates", data.headlines.generate(100, 3)), ("deich", None)]:
        files.append(str(tmp_path / f"{name}.csv"))
        rows = texts or data.headlines.generate(100, 4)
        words = rows.texts if texts else [f"zwölf Boxkämpfer jagen {i} " * 3 for i in range(100)]
        with open(files[-1], "w", newline="", encoding="utf-8") as table:
            csv.writer(table).writerows([("text", "score"), *zip(words, rows.scores, strict=True)])
    example = importlib.import_module("watch_alarms")
    example.main(files, samples=4, size=60, epochs=1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0].startswith("rates: 4 samples of 60 of its training rows: ")
    for line in lines[::2]:
        # Three or more of four have a probability of 5e-4.
        assert int(re.search(r"alarm in (\d) of 4", line)[1]) <= 2
    for line in lines[1::2]:
        assert "alarm in 1 of 1" in line and "length" in line
