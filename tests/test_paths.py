import pytest

from dwa_jax import paths

TREE = {"layers": {"query": {"kernel": 1, "bias": 2}, "norm": {"scale": 3}}, "head": {"kernel": 4}}


def test_first_rule_that_matches_wins_and_others_get_the_default():
    found = paths.assign(TREE, [(r"query/kernel$", "a"), (r"kernel$", "b")], default="-")
    assert found == {
        "layers": {"query": {"kernel": "a", "bias": "-"}, "norm": {"scale": "-"}},
        "head": {"kernel": "b"},
    }


def test_a_rule_that_matches_nothing_is_an_error_that_shows_paths():
    with pytest.raises(ValueError, match=r"'quary' matches no parameter.*head/kernel"):
        paths.assign(TREE, [("quary", True)])


def test_what_is_no_regular_expression_is_named():
    with pytest.raises(ValueError, match=r"'\*query' is not a regular expression"):
        paths.assign(TREE, [("*query", True)])


def test_partition_and_combine_are_inverse():
    chosen = paths.assign(TREE, [("kernel", True)], default=False)
    kernels, rest = paths.partition(TREE, chosen)
    assert kernels == {"layers": {"query": {"kernel": 1}}, "head": {"kernel": 4}}
    assert paths.combine(kernels, rest) == TREE


def test_combine_refuses_two_leaves_at_one_path():
    with pytest.raises(ValueError, match="'head/kernel'"):
        paths.combine(TREE, {"head": {"kernel": 5}})
