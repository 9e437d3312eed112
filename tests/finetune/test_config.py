"""Keys: defaults in range, mistakes named with what would be right."""

import ml_collections
import numpy as np
import pytest

from configs import base
from dwa_jax.finetune.config import Config, changed, meanings


def test_every_default_is_in_its_range_and_every_key_has_a_meaning():
    # A key that is given is checked, also where its value is the default's.
    for key, _, meaning in meanings():
        assert meaning and Config.of({key: getattr(Config(), key)})
    assert Config.of(base.get_config()) == Config() and not changed(Config())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be a number of at least 1"),
        ({"epochs": 0}, "epochs=0 must be"),
        ({"epochs": 2.5}, "epochs=2.5 must be a whole number"),
        ({"dropout": 1}, "dropout=1 must be True or False"),
        ({"backbone": None}, "backbone=None must be a text"),
        ({"tasks": "regression"}, r"tasks='regression' must be several values, as in \(1, 2\)"),
        ({"num_classes": 1}, "num_classes=1 must be a number of at least 2"),
        ({"num_classes": 10**9}, "num_classes=1000000000 must be a number of at most 1000"),
        ({"lora_rank": -1}, "lora_rank=-1 must be"),
        ({"log_every": 0}, "log_every=0 must be"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be"),
        ({"learning_rate": "fast"}, "learning_rate='fast' must be a number"),
        ({"lora_dropout": 1.0}, r"lora_dropout=1.0 must be in \[0, 1\)"),
        ({"fractions": (0.5, 0.1, 0.1)}, "must be three numbers that sum to 1"),
        ({"fractions": (0.0, 0.0, 1.0)}, "the first above 0"),
        ({"gradient_scope": "head"}, "gradient_scope='head' is not one of trainable"),
        ({"fractions": (0.9, 0.1)}, "must be three numbers that sum to 1"),
        ({"dtype": "float16"}, "dtype='float16' is not one of float32, bfloat16"),
        ({"on_bad_row": "drop"}, "on_bad_row='drop' is not one of error, skip"),
        ({"preset": "papers"}, "preset='papers' is not one of paper, stable"),
        ({"score_range": (1.0,)}, "score_range"),
        ({"protocol": "dao"}, "protocol='dao' is not one of '', paper"),
        ({"protocol": "paper", "batch_size": 16}, "has a batch_size of 5 to 10, not 16"),
        ({"protocol": "paper", "test": "a.csv"}, "has no test split; test must be ''"),
        ({"protocol": "paper", "folds": 5}, "has one split; folds must be 0"),
        ({"scratch": {"heads": 3}}, "scratch.heads=3 does not divide scratch.width=128"),
        ({"scratch": {"height": 3}}, "there is no key 'scratch.height'; there are: vocab_size"),
        ({"learning_rat": 1.0}, "there is no key 'learning_rat'; the nearest is 'learning_rate'"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(changes, message):
    with pytest.raises(ValueError, match=message):
        Config.of(changes)
    with pytest.raises(ValueError, match=message):
        Config.of(None, **changes)


def test_a_configuration_comes_from_whatever_holds_one():
    wanted = Config(epochs=3, tasks=("regression",), learning_rate=1.0)
    # JSON has lists, numpy numbers of its own, and people write 1 for 1.0.
    mapping = {"epochs": np.int64(3), "tasks": ["regression"], "learning_rate": 1}
    assert Config.of(mapping) == wanted == Config.of(ml_collections.ConfigDict(mapping))
    assert Config.of(Config(epochs=3), tasks=("regression",), learning_rate=1.0) == wanted
    assert Config.of(wanted.to_dict()) == wanted
    assert changed(Config.of(scratch={"width": 64})) == {"scratch.width": 64}


def test_the_papers_protocol_takes_the_place_of_epochs_and_fractions():
    found = Config(protocol="paper", epochs=3, fractions=(0.5, 0.2, 0.3))
    assert (found.epochs, found.fractions) == (100, (0.9, 0.1, 0.0))
    assert (found.max_length, found.warmup_steps, found.seed) == (512, 100, 42)
    assert Config.of(found.to_dict()) == found
