import numpy as np
import pytest

from dwa_jax.finetune import choices


def test_names_and_calls():
    assert choices.parse("dwa", "weighting") == ("dwa", {})
    assert choices.parse(" constant(weights=(0.75, 0.25)) ", "weighting") == (
        "constant",
        {"weights": (0.75, 0.25)},
    )


@pytest.mark.parametrize("text", ["", "dwa(", "dwa(0.1)", "a.b", "dwa(**{})", "1"])
def test_anything_else_is_one_clear_line(text):
    with pytest.raises(ValueError, match=r"^weighting=.* is not of the form name or name\("):
        choices.parse(text, "weighting")


def test_values_are_literals_and_never_run():
    with pytest.raises(ValueError, match="the value of floor is not a literal"):
        choices.parse("dwa(floor=exit())", "weighting")


def test_choose_names_what_there_is():
    registry = {"mse": lambda *, scale=1.0: scale}
    assert choices.make_choice(registry, "mse", {"scale": 2.0}, "loss") == 2.0
    with pytest.raises(ValueError, match="unknown name 'mae'; there are: mse"):
        choices.make_choice(registry, "mae", {}, "loss")
    with pytest.raises(ValueError, match="loss=mse: .*size"):
        choices.make_choice(registry, "mse", {"size": 1}, "loss")


def test_the_same_options_give_the_same_thing_and_others_another():
    registry = {"loss": lambda **options: object()}

    def made(**options):
        return choices.make_choice(registry, "loss", options, "loss")

    assert made(scale=1.0, of=(2, None)) is made(of=(2, None), scale=1.0)
    # Equal numbers of two types are two programs; labels are no literals.
    for one, other in ((1, 1.0), (True, 1), ((1,), [1]), (np.ones(2), np.ones(2))):
        assert made(scale=one) is not made(scale=other)
    before = made()
    registry["loss"] = lambda **options: object()
    assert made() is not before
