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


def test_the_estimate_is_near_what_xla_counts():
    config = base.get_config()
    config.update({"generated_rows": 200, "batch_size": 64, "max_buckets": 1, "dropout": False})
    config.update({"lora_rank": 4, "weighting": "constant"})  # quick to compile
    config.scratch.update({"vocab_size": 300, "width": 64, "heads": 2, "feed_forward": 256})
    corpus = read_corpus(config)
    model = load_model(config, corpus, jax.random.key(0))
    batches = make_batches(config, corpus, model)[0]["train"]
    setup = make_setup(config, corpus, model, len(batches), jax.random.key(1))
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
