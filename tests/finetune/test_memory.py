"""The estimate before compilation, beside XLA's own count after it."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import base
from dwa_jax import lora, sharding
from dwa_jax.finetune import memory
from dwa_jax.finetune.corpus import read_corpus
from dwa_jax.finetune.model import load_model
from dwa_jax.finetune.setup import make_batches, make_setup

pytestmark = pytest.mark.slow


def prepared(**changes):
    config = base.get_config()
    config.update({"generated_rows": 200, "max_buckets": 1, "dropout": False} | changes)
    config.scratch.update({"vocab_size": 300, "width": 64, "heads": 2, "feed_forward": 256})
    corpus = read_corpus(config)
    model = load_model(config, corpus, jax.random.key(0))
    batches = make_batches(config, corpus, model)[0]["train"]
    return (
        config,
        model,
        batches,
        make_setup(config, corpus, model, len(batches), jax.random.key(1)),
    )


def test_the_way_to_inner_products_is_that_of_all_devices_rows():
    # A device's own rows of the second are those of the first.
    found = []
    for rows in (2, 4):
        config, model, batches, setup = prepared(batch_size=rows)
        assert setup.mesh.size == 2
        trained = lora.count(setup.state.theta), lora.count(setup.state.psi)
        needs = memory.estimate(config, model, setup, batches.shapes)
        found.append((needs["gradients"] - 4 * sum(trained)) / (4 * trained[0]))
    # Recorded: both tasks' cotangents of half of the outputs, which are fewer than the parameters;
    # whole gradients: another one.
    assert 0 < found[0] < 1 and found[1] == 1


def test_the_estimate_is_near_what_xla_counts():
    # Quick to compile.
    config, model, batches, setup = prepared(batch_size=64, lora_rank=4, weighting="constant")
    found = memory.estimate(config, model, setup, batches.shapes)
    state = setup.state
    theta, psi = lora.count(state.theta), lora.count(state.psi)
    trained = theta + psi + lora.count(state.phi)
    assert found["parameters"] == 4 * (trained + lora.count(state.frozen))
    # Two moments each, and three counts of updates.
    assert found["optimizer"] == 4 * (2 * trained + 3)
    assert found["gradients"] == 4 * (theta + psi)
    compared = dataclasses.replace(setup, uses_gramian=True)
    both = memory.estimate(config, model, compared, batches.shapes)
    assert both == found | {"gradients": 4 * (2 * theta + psi)}
    batch = next(batches.epoch(0))
    del batch["row"]
    step = setup.step.lower(state, sharding.shard_rows(batch, setup.mesh))
    xla = step.compile().memory_analysis()
    total = xla.argument_size_in_bytes + xla.temp_size_in_bytes
    np.testing.assert_allclose(sum(found.values()), total, rtol=0.25)


def test_a_process_holds_what_it_has_and_what_a_step_brings(monkeypatch):
    monkeypatch.setattr(memory, "_held", lambda: 10**9)
    needs = {"parameters": 1, "optimizer": 20, "gradients": 300, "activations": 4000}
    elsewhere = memory.process_bytes(needs, on_host=False)
    assert elsewhere == 10**9 + 21 + 600 * 2**20
    assert memory.process_bytes(needs, on_host=True) == elsewhere + 4300
    monkeypatch.undo()
    # The kernel counts the two apart, and some pages late.
    assert 2**26 < memory._held() <= memory.peak()["process_bytes"] + 2**24
