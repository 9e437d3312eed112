"""The trunk as a function of its trainable parameters: tokens to pooled hidden states.

Shared parameters come in two nested dicts with the same two top keys: "params" and,
where there is LoRA, "lora". `theta` holds the leaves that train, `frozen` the others.
Axis letters: B rows, T tokens, D width, L layers.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dwa_jax import backbones, heads, lora, paths
from dwa_jax.backbones.products import is_cpu, turns
from dwa_jax.backbones.split import APART
from dwa_jax.from_shapes import from_shapes
from dwa_jax.passes import SplitTrunk
from dwa_jax.records import RecordedTrunk, Site


def split_parameters(
    params: dict, adapter: lora.Lora | None = None, *, freeze: Sequence[str] = ()
) -> tuple[dict, dict]:
    """Decides which parameters train.

    Args:
      params: the backbone's parameters.
      adapter: with LoRA factors, only those train.
      freeze: regular expressions over the paths of parameters that stay as they are,
        where there is no LoRA.

    Returns:
      (theta, frozen), nested dicts that `variables` joins again.

    Raises:
      ValueError: a pattern matches nothing, or nothing is left to train.
    """
    if adapter is not None:
        return {"lora": adapter.factors}, {"params": params}
    frozen_mask = paths.assign(params, [(pattern, True) for pattern in freeze], default=False)
    frozen, theta = paths.partition(params, frozen_mask)
    if not theta:
        raise ValueError(f"the patterns {list(freeze)} freeze every parameter of the trunk")
    return {"params": theta}, ({"params": frozen} if frozen else {})


def joined_variables(theta: dict, frozen: dict, lora_scale: float = 1.0) -> dict:
    """Joins trained and frozen leaves into what the backbone's `apply` takes."""
    joined = paths.combine(theta, frozen)
    if "lora" in joined:
        joined["lora"] = lora.scaled(joined["lora"], lora_scale)
    return joined


def _keywords(key):
    if key is None:
        return {"deterministic": True}
    return {"deterministic": False, "rngs": {"dropout": key}}


def make_trunk(
    module: backbones.Trunk, *, pooling: str, lora_scale: float = 1.0
) -> Callable[[dict, dict, dict, jax.Array | None], jax.Array]:
    """Makes (theta, frozen, batch, key) -> (B, D) pooled hidden states.

    Args:
      module: a backbone.
      pooling: one of `heads.POOLINGS`.
      lora_scale: what U V is multiplied by.

    Returns:
      A function whose batch holds input_ids and attention_mask (B, T), and whose key
      drives dropout; None turns dropout off.
    """

    if _cut_in_two(module, pooling):

        def short(theta, frozen, batch, key=None):
            split = make_split_trunk(module, frozen, pooling=pooling, lora_scale=lora_scale)
            return split(theta, (batch, key))

        return short

    def trunk(theta, frozen, batch, key=None):
        ids, mask = batch["input_ids"], batch["attention_mask"]
        hidden: Any = module.apply(
            joined_variables(theta, frozen, lora_scale), ids, mask, **_keywords(key)
        )
        return heads.pool(hidden, mask, pooling)

    return trunk


class WorkingCopy(NamedTuple):
    """How a step holds the trained parameters while it works on them.

    Attributes:
      apart: (theta) -> the same, as the trunk's functions take it.
      joined: (a gradient of that, theta) -> the gradient of theta, in its dtypes.
    """

    apart: Callable[[dict], dict]
    joined: Callable[[dict, dict], dict]


def make_working_copy(module: backbones.Trunk, *, pooling: str) -> WorkingCopy:
    """Makes the form of theta that a step differentiates.

    On a GPU matrices come in the dtype that the trunk computes in, so that every task's gradient
    takes half of the memory where that is a half one, and is rounded no more than the product
    that it comes from; and the last layer comes apart from the others, which are cut off the
    stack once a step, in the pass that casts them, instead of once a pass. A CPU works on theta.

    Args:
      module: a backbone.
      pooling: one of `heads.POOLINGS`.
    """
    if is_cpu(module.platform):
        return WorkingCopy(lambda theta: theta, lambda gradient, theta: gradient)
    in_two = _cut_in_two(module, pooling)

    def last_of(path):
        collection, *rest = path.split("/")
        return "/".join([collection, APART, *rest[1:]]) if in_two and rest[0] == "layers" else None

    def apart(theta):
        found = {}
        for path, leaf in paths.flatten(theta).items():
            dtype = module.dtype if path.endswith("/kernel") else leaf.dtype
            if last := last_of(path):
                found[path], found[last] = leaf[:-1].astype(dtype), leaf[-1].astype(dtype)
            else:
                found[path] = leaf.astype(dtype)
        return paths.unflatten(found)

    def joined(gradient, theta):
        given, found = paths.flatten(gradient), {}
        for path, leaf in paths.flatten(theta).items():
            one = given[path].astype(leaf.dtype)
            if last := last_of(path):
                one = jnp.concatenate([one, given[last].astype(leaf.dtype)[None]])
            found[path] = one
        return paths.unflatten(found)

    return WorkingCopy(apart, joined)


def make_recorded_trunk(
    module: backbones.Trunk, frozen: dict, *, pooling: str, lora_scale: float = 1.0
) -> RecordedTrunk:
    """Makes the trunk of `make_trunk` so that it hands out what passes through its matrices.

    Args:
      module: a backbone.
      frozen: the shared parameters that do not train.
      pooling: one of `heads.POOLINGS`.
      lora_scale: what U V is multiplied by.

    Returns:
      A `RecordedTrunk` whose batch is (rows, key). Its sites are the matrices and tables
      that train; norms, LoRA's factors and whatever else a module may hold are no sites.
    """
    plain = make_trunk(module, pooling=pooling, lora_scale=lora_scale)
    run = _make_recording(module, frozen, pooling, lora_scale)

    def sites(theta, batch):
        rows = {name: batch[0][name] for name in ("input_ids", "attention_mask")}
        return _sites((module, pooling), (theta, frozen, rows))

    return RecordedTrunk(lambda theta, batch: plain(theta, frozen, *batch), sites, run)


def _cut_in_two(module, pooling):
    # The last layer is then run for one token a row.
    return pooling != "mean" and module.config.num_layers > 1


def _make_recording(module, frozen, pooling, lora_scale):
    # (theta, probes, batch) -> (h, inputs), see `RecordedTrunk.run`.
    split = make_split_trunk(module, frozen, pooling=pooling, lora_scale=lora_scale)

    def run(theta, probes, batch):
        rows, key = batch
        probes = {"whole": {}, "lower": {}, "upper": {}} | paths.unflatten(probes)
        if _cut_in_two(module, pooling):
            x, below = split.lower(theta, batch, probes["lower"])
            h, above = split.upper(split.last(theta), x, batch, probes["upper"])
            return h, paths.flatten({"lower": below, "upper": above})
        ids, mask = rows["input_ids"], rows["attention_mask"]
        joined = joined_variables(theta, frozen, lora_scale)
        hidden, sown = module.apply(
            {**joined, "probes": probes["whole"]},
            ids,
            mask,
            mutable=["records"],
            **_keywords(key),
        )
        return heads.pool(hidden, mask, pooling), paths.flatten({"whole": sown.get("records", {})})

    return run


@from_shapes
def _sites(module, pooling, theta, frozen, rows):
    # Without dropout and LoRA's scale, which change no shape.
    def inputs(theta, frozen, rows):
        return _make_recording(module, frozen, pooling, 1.0)(theta, {}, (rows, None))[1]

    depth = module.config.num_layers
    leaves = paths.flatten(theta.get("params", {}))
    is_apart = APART in theta.get("params", {})
    found = []
    for name, shape in jax.eval_shape(inputs, theta, frozen, rows).items():
        piece, place = name.split("/", 1)
        place, kind = place.rsplit("/", 1)
        if piece == "upper" and is_apart:
            place = place.replace("layers/", f"{APART}/", 1)
        path = f"{place}/{'kernel' if kind == 'dense' else 'embedding'}"
        if path not in leaves:
            continue
        layers: tuple[int, ...] | None = None
        if place.startswith("layers/"):
            of_piece = {"whole": range(depth), "lower": range(depth - 1)}
            layers = tuple(of_piece.get(piece, [depth - 1]))
        outputs = leaves[path].shape[-1]
        found.append(
            Site(
                name=name,
                kind=kind,
                path=f"params/{path}",
                bias=f"params/{place}/bias" if f"{place}/bias" in leaves else None,
                layers=layers,
                stacked=layers is not None and piece != "upper",
                given=shape.shape,
                outputs=outputs,
                dtype=module.dtype,
                turned=kind == "dense" and turns(shape.shape[-1], outputs, module.platform),
            )
        )
    return tuple(found)


def make_split_trunk(
    module: backbones.Trunk, frozen: dict, *, pooling: str, lora_scale: float = 1.0
) -> SplitTrunk:
    """Makes the same trunk in two pieces, for the gradient scope "last_layer".

    Args:
      module: a backbone.
      frozen: the shared parameters that do not train.
      pooling: one of `heads.POOLINGS`.
      lora_scale: what U V is multiplied by.

    Returns:
      A `SplitTrunk` whose batch is (rows, key).
    """
    lower, last, upper = backbones.split_last_layer(module)

    below = ("layers", APART, "embeddings")

    def top(collections):
        # The last layer, and what comes after it: a decoder's final norm.
        return {
            name: {
                "layer": last(tree),
                "after": {key: tree[key] for key in tree if key not in below},
            }
            for name, tree in collections.items()
        }

    # With probes each of the two also returns what its matrices were given.
    def run_lower(theta, batch, probes=None):
        rows, key = batch
        joined, options = joined_variables(theta, frozen, lora_scale), _keywords(key)
        if probes is not None:
            joined, options = {**joined, "probes": probes}, {**options, "mutable": ["records"]}
        found = lower(joined, rows["input_ids"], rows["attention_mask"], **options)
        return found if probes is None else (found[0], found[1].get("records", {}))

    def run_upper(top_theta, x, batch, probes=None):
        rows, key = batch
        ids, mask = rows["input_ids"], rows["attention_mask"]
        joined = joined_variables(top_theta, top(frozen), lora_scale)
        after = {name: tree.get("after", {}) for name, tree in joined.items()}
        layer = {name: tree["layer"] for name, tree in joined.items()}
        # A key of its own: the same one would repeat the first layer's dropout.
        key = None if key is None else jax.random.fold_in(key, 1)
        options = _keywords(key)
        if pooling == "mean":
            hidden = upper(after, layer, x, ids, mask, **options)
            return heads.pool(hidden, mask, pooling)
        where = heads.position(mask, pooling)
        if probes is None:
            return upper(after, layer, x, ids, mask, where, **options)[:, 0]
        after["probes"] = {name: tree for name, tree in probes.items() if name != "layers"}
        layer["probes"] = probes.get("layers", {})
        hidden, sown = upper(after, layer, x, ids, mask, where, mutable=["records"], **options)
        return hidden[:, 0], sown.get("records", {})

    return SplitTrunk(run_lower, top, run_upper)
