"""A run like an earlier one takes its step, traced and compiled; any other has one of its own."""

import jax
import pytest

from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import read_corpus
from dwa_jax.finetune.model import load_model
from dwa_jax.finetune.setup import make_setup

pytestmark = pytest.mark.slow

SHAPE = {"vocab_size": 300, "width": 8, "layers": 1, "heads": 2, "feed_forward": 8}
QUICK = {"generated_rows": 60, "batch_size": 16, "stratifier": "equal_width", "scratch": SHAPE}


def test_equal_choices_share_a_step_and_others_do_not():
    corpus = read_corpus(Config.of(QUICK))

    def step(steps=3, **changes):
        config = Config.of(QUICK, **changes)
        model = load_model(config, corpus, jax.random.key(config.seed))
        return make_setup(config, corpus, model, steps, jax.random.key(1)).step.program

    first = step()
    assert step(seed=7, eval_batch_size=8, log_every=3) is first
    # Rates and a run's length are arguments.
    assert step(4, epochs=2, learning_rate=0.5, weight_decay=0.0, clip_norm=2.0) is first
    others = [
        {"clip_norm": 0.0},
        {"weighting": "dwa(width=3)"},
        {"preset": "stable"},
        {"classification_loss": "cross_entropy"},
        {"gradient_scope": "representation"},
        {"scratch": SHAPE | {"heads": 1}},
    ]
    found = [step(**changes) for changes in others]
    assert len({id(one) for one in (first, *found)}) == 1 + len(others)
    # What weighs by the labels has those of its rows.
    by_labels = {"classification_loss": "class_balanced"}
    assert step(**by_labels) is not step(**by_labels)
