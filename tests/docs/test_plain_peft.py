"""A run with one loss is what torch and PEFT make of the same start, number for number."""

import math

import plain_peft
import pytest

import dwa_jax
from dwa_jax.finetune.listener import Listener
from tests.experiments import trained_runs

pytestmark = pytest.mark.slow


def test_a_regression_alone_is_plain_peft_s(tmp_path):
    model = dwa_jax.train(
        backbone=str(trained_runs.backbone("llama", tmp_path / "backbone")),
        folder=tmp_path / "run",
        listener=Listener(),
        generated_rows=80,
        fractions=(0.6, 0.2, 0.2),
        tasks=("regression",),
        weighting="single_task",
        lora_rank=2,
        lora_alpha=4.0,
        dropout=False,
        learning_rate=1e-2,
        head_learning_rate=3e-2,
        # Clips some of the steps.
        clip_norm=0.05,
        epochs=3,
        max_length=24,
        max_buckets=1,
        log_every=1,
    )
    found = plain_peft.train(tmp_path / "run")
    steps = [record for record in model.history if record["kind"] == "step"]
    assert found["first_loss"] == pytest.approx(steps[0]["loss_regression"], rel=1e-5)
    assert 0 < sum(step["gradient_norm"] > 0.05 for step in steps) < len(steps)
    assert found["best_epoch"] == model.summary["best_epoch"]
    for split in ("validation", "test"):
        for name in ("mse", "r2"):
            ours = model.summary[split][name]
            assert math.isclose(found[split][name], ours, rel_tol=1e-3, abs_tol=1e-4), name
    assert model.summary["test"]["mse"] != pytest.approx(steps[0]["loss_regression"], rel=0.01)
