"""A trunk cut below its last layer, for gradients of that layer alone.

Axes: B batch, T tokens, D width, L layers.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax

from dwa_jax.backbones.config import BackboneError
from dwa_jax.backbones.layers import Trunk

# Where a last layer lies that is held apart from the stack of the others.
APART = "last_layer"


class Split(NamedTuple):
    """The functions of `split_last_layer`."""

    lower: Callable
    last: Callable
    upper: Callable


def split_last_layer(module: Trunk) -> Split:
    """Cuts a trunk into everything below its last layer, and that layer.

    With `last_variables = {"params": last(params)}`, and "lora" likewise where there
    are low-rank updates, this equals `module.apply(variables, ids, mask)`::

        upper(variables, last_variables, lower(variables, ids, mask), ids, mask)

    GradNorm (Chen et al. 2018) takes its gradients there.

    Args:
      module: from `build` or `load`, with at least one layer.

    Returns:
      Three functions, whose options are `deterministic` and `rngs`, as in `module.apply`.

      * lower(variables, input_ids, attention_mask, **options) -> (B, T, D).
      * last(tree) -> the last layer's leaves of a "params" or "lora" tree, unstacked. A tree
        may hold them under `APART` instead of in its stack, which then is not cut.
      * upper(variables, last_variables, x, input_ids, attention_mask, positions=None,
        **options) -> (B, T, D) last hidden states, after the final norm where there is
        one; at `positions` (B,) alone (B, 1, D), for the price of one token a row where
        the layer does not need all of them.

    Raises:
      BackboneError: a trunk without layers.
    """
    count = module.config.num_layers
    if count < 1:
        raise BackboneError("a trunk without layers has no last layer")
    first = module.config.first_layer
    below = module.clone(config=dataclasses.replace(module.config, num_layers=count - 1))
    top = dataclasses.replace(module.config, num_layers=1, first_layer=first + count - 1)
    alone = module.clone(config=top, single=True)

    def lower(variables, input_ids, attention_mask, **options):
        variables = {
            name: tree if name == "probes" else _below(tree) for name, tree in variables.items()
        }
        return below.apply(variables, input_ids, attention_mask, method="lower", **options)

    def last(tree):
        if APART in tree:
            return tree[APART]
        return jax.tree.map(lambda leaf: leaf[-1], dict(tree).get("layers", {}))

    def upper(variables, last_variables, x, input_ids, attention_mask, positions=None, **options):
        del input_ids  # no layer looks at them; the signature serves trunks whose layers do
        variables = {
            name: {**variables.get(name, {}), "layers": tree}
            for name, tree in last_variables.items()
        }
        return alone.apply(variables, x, attention_mask, positions, method="top", **options)

    return Split(lower, last, upper)


def _below(tree):
    if APART in tree or "layers" not in tree:
        return {name: part for name, part in tree.items() if name != APART}
    return {**tree, "layers": jax.tree.map(lambda leaf: leaf[:-1], tree["layers"])}
