"""What follows from shapes is found out once for equal shapes, and anew for others."""

import jax.numpy as jnp
import numpy as np

from dwa_jax.from_shapes import from_shapes


def test_equal_shapes_are_asked_once_and_values_never():
    asked = []

    @from_shapes
    def size(factor, tree):
        asked.append(tree)
        return factor * sum(leaf.size * leaf.dtype.itemsize for leaf in tree.values())

    ones = {"a": jnp.ones((2, 3)), "b": np.ones(4, np.int8)}
    zeros = {"a": jnp.zeros((2, 3)), "b": np.zeros(4, np.int8)}
    assert size((2,), (ones,)) == size((2,), (zeros,)) == 2 * (6 * 4 + 4)
    assert len(asked) == 1 and not hasattr(asked[0]["a"], "tolist")
    others = [
        ((3,), ones),
        ((2,), ones | {"a": jnp.ones((3, 2))}),
        ((2,), ones | {"a": jnp.ones((2, 3), jnp.bfloat16)}),
        ((2,), {"c": ones["a"], "b": ones["b"]}),
    ]
    assert [size(options, (tree,)) for options, tree in others] == [84, 56, 32, 56]
    assert len(asked) == 5
