"""What a message repeats of a stranger's file harms neither a terminal nor a log."""

import json

import pytest

from dwa_jax.messages import one_line, quoted, shown


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("model.layers.0", "model.layers.0"),
        ("a\x1b[31mb\nc", "a\\x1b[31mb\\nc"),
        (["é", 1], "['é', 1]"),
        ("x" * 300, "x" * 197 + "..."),
    ],
)
def test_a_name_is_shown_as_it_is_and_any_other_value_as_python_would(value, expected):
    assert shown(value) == expected


def test_a_quoted_value_is_bounded_before_it_is_written_out():
    assert quoted("it's\n") == '"it\'s\\n"'
    assert quoted("x" * 10**8) == "'" + "x" * 56 + "..."
    assert quoted(10**5000) == "<int>"
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    assert quoted(nested) == "<list>"
    while nested:  # or the interpreter would do so recursively
        nested = nested[0]


def test_what_python_advises_is_not_repeated_and_depth_is_said():
    with pytest.raises(ValueError, match="set_int_max") as caught:
        json.loads("9" * 5000)
    said = one_line(caught.value)
    assert "5000 digits" in said and "set_int" not in said
    assert one_line(RecursionError("maximum recursion depth")) == "it is nested too deeply"


def test_an_error_is_one_line_and_never_none():
    assert one_line(ValueError("two\n   lines")) == "two lines"
    assert one_line(ValueError()) == "ValueError"
    assert one_line(ValueError("\u202e" + "x" * 500), 20) == "\\u202e" + "x" * 16 + "..."
