import pytest

from configs import base
from dwa_jax.finetune import validation


def test_the_defaults_are_valid():
    assert validation.check(base.get_config()) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be a number of at least 1"),
        ({"epochs": 0}, "epochs=0 must be"),
        ({"num_classes": 1}, "num_classes=1 must be a number of at least 2"),
        ({"lora_rank": -1}, "lora_rank=-1 must be"),
        ({"log_every": 0}, "log_every=0 must be"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be"),
        ({"lora_dropout": 1.0}, r"lora_dropout=1.0 must be in \[0, 1\)"),
        ({"fractions": (0.5, 0.1, 0.1)}, "must be three numbers that sum to 1"),
        ({"fractions": (0.0, 0.0, 1.0)}, "the first above 0"),
        ({"gradient_scope": "head"}, "gradient_scope='head' is not one of trainable"),
        ({"fractions": (0.9, 0.1)}, "must be three numbers that sum to 1"),
        ({"dtype": "float16"}, "dtype='float16' is not one of float32, bfloat16"),
        ({"on_bad_row": "drop"}, "on_bad_row='drop' is not one of error, skip"),
        ({"score_range": (1.0,)}, "score_range"),
        ({"scratch": {"heads": 3}}, "scratch.heads=3 does not divide scratch.width=128"),
    ],
)
def test_a_number_out_of_range_is_named_with_what_would_be_right(changes, message):
    config = base.get_config()
    config.update(changes)
    with pytest.raises(ValueError, match=message):
        validation.check(config)
