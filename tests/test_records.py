"""Gramian and mixture from records, beside one whole gradient a task."""

import re
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax import backbones, gradients, lora, passes, paths, recorded, records, sharding, trunk
from dwa_jax.backbones import layers
from tests.test_guard import equations
from tests.test_training import batch as rows
from tests.test_training import config, make

pytestmark = pytest.mark.slow

B, T, WIDTH = 3, 5, 16
# What DistilBERT calls the sizes of `tests.test_training.config`.
DISTILBERT = {"dim": WIDTH, "n_heads": 2, "hidden_dim": 24}


class Found(NamedTuple):
    coefficients: jax.Array
    gramian: jax.Array


def problem(family, *, rank=0, freeze=(), vocab=1000, dtype=jnp.float64, **backbone):
    backbone = {"num_hidden_layers": 2, "n_layers": 2, **DISTILBERT, **backbone}
    settings = config(family, vocab_size=vocab, **backbone)
    module = backbones.build(settings, dtype=dtype, param_dtype=dtype, lora_dropout=0.3)
    shapes = jax.eval_shape(lambda: backbones.init(jax.random.key(0), module))
    # Norms' scales near 1 and everything else near 0, but nothing at it: a bias or LoRA's V
    # that is zero would hide half of the mistakes.
    draw = np.random.default_rng(0)
    params = paths.unflatten(
        {
            path: jnp.asarray(path.endswith("scale") + 0.2 * draw.normal(size=leaf.shape), dtype)
            for path, leaf in paths.flatten(shapes).items()
        }
    )
    adapter = None
    if rank:
        adapter = lora.init(jax.random.key(1), params, rank=rank, alpha=2 * rank, dtype=dtype)
        factors = jax.tree.map(lambda leaf: leaf + 0.1, adapter.factors)
        adapter = lora.replace_factors(adapter, factors)
    theta, frozen = trunk.split_parameters(params, adapter, freeze=freeze)
    mask = (np.arange(T) < np.array([[T], [2], [3]])).astype(np.int32)
    # Few words, so that some come twice.
    ids = np.where(mask, np.random.default_rng(0).integers(3, 8, (B, T)), 1)
    batch = {"input_ids": jnp.asarray(ids), "attention_mask": jnp.asarray(mask)}
    return module, theta, frozen, batch, adapter.scale if adapter else 1.0


def losses(count, dtype, labels):
    pull = jax.random.normal(jax.random.key(5), (WIDTH, count), dtype)

    def heads(h, psi, phi, batch):
        del phi, batch
        return jnp.sum(jnp.tanh(h @ pull) * psi["w"][None] * labels, axis=0), ()

    return heads, {"w": jnp.linspace(1, 3, count, dtype=dtype)}


def weigh(task_losses, gramian, _):
    lengths = jnp.sqrt(jnp.diagonal(gramian) + 1)
    return Found(lengths / lengths.sum() + 0.1 * gramian[0], gramian)


def program(made, kinds, *, count=2, key=None, pooling="first", labels=1.0, extra=0, **options):
    """(theta, key of the signs) -> {kind: (Gramian, mixed gradient)}, jitted."""
    module, _, frozen, batch, scale = made
    heads, psi = losses(count + extra, module.dtype, labels)
    shared = trunk.make_recorded_trunk(module, frozen, pooling=pooling, lora_scale=scale)
    rows = [count, *range(1, count)] if extra else None

    def one(kind, theta, signs):
        result = gradients.mixed_gradients(
            shared,
            heads,
            weigh,
            theta,
            psi,
            {},
            (batch, key),
            num_tasks=count,
            gramian_rows=rows,
            norms=gradients.Norms(kind, 4, signs),
            **options,
        )
        return result.weighed.gramian, result.theta

    return jax.jit(lambda theta, signs: {kind: one(kind, theta, signs) for kind in kinds})


def arguments(made):
    return made[1], jax.random.key(9)


def compute(made, kinds, **options):
    return program(made, kinds, **options)(*arguments(made))


def agree(a, b, within=1e-10):
    # Some leaves' gradients are zero but for rounding: attention's, in the key's bias.
    for one, other in zip(a, b, strict=True):
        pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
        largest = max(np.abs(y).max() for _, y in pairs)
        assert max(np.abs(np.asarray(x) - y).max() for x, y in pairs) <= within * largest


ONE = {"num_hidden_layers": 1, "n_layers": 1}
# A kind each, spread over the modules that families are made of.
CASES = {
    "bert, missing labels": ("bert", {}, {"labels": np.array([[1, 0], [0, 0], [0, 1.0]])}),
    "distilbert, mean": ("distilbert", {}, {"pooling": "mean"}),
    "llama, another loss's norm": ("llama", ONE, {"extra": 1}),
    "modernbert": ("modernbert", ONE, {}),
    "qwen2, parts frozen": (
        "qwen2",
        {**ONE, "freeze": ("mlp/up/kernel", "query/bias", "final_norm")},
        {},
    ),
    "qwen3, tables frozen": ("qwen3", {**ONE, "freeze": ("embeddings",)}, {}),
    "roberta, dropout": (
        "roberta",
        {**ONE, "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2},
        {"key": 3},
    ),
    "many tasks": ("bert", ONE, {"count": 5, "extra": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_exact_is_what_trees_give(case, monkeypatch):
    family, made, options = CASES[case]
    directly, by_kernels = 0, 10**6
    ways = {
        "llama, another loss's norm": (directly,),
        "many tasks": (directly, by_kernels),
    }.get(case, (by_kernels,))
    with jax.enable_x64(True):
        if "key" in options:
            options = options | {"key": jax.random.key(options["key"])}
        model = problem(family, **made)
        for touch in ways:
            monkeypatch.setattr(records, "_TOUCH", touch)
            found = compute(model, ("exact", "trees"), **options)
            agree(found["exact"], found["trees"])


def test_programs_do_not_grow_with_the_tasks():
    for rank in (0, 2):  # of LoRA's factors whole gradients are formed
        model = problem("bert", rank=rank, dtype=jnp.float32, **ONE)
        few, many = (
            len(program(model, ("exact",), count=count).lower(*arguments(model)).as_text())
            for count in (5, 16)
        )
        assert many < 1.1 * few


def test_adapters_of_many_tasks_pass_back_in_a_loop_without_frozen_matrices_gradients(monkeypatch):
    with jax.enable_x64(True):
        model = problem("llama", rank=2, **ONE)
        options = {"count": 5, "key": jax.random.key(3), "extra": 1}
        looped = program(model, ("exact",), **options).lower(*arguments(model)).compile()
        # Of the feed-forward block's matrices, for instance.
        assert not re.findall(r"= f64\[(?:16,24|24,16)\]\S* dot\(", looped.as_text())
        assert re.findall(r"= f64\[(?:2,24|24,2)\]\S* dot\(", looped.as_text())
        monkeypatch.setattr(passes, "_FEW", 9)
        agree(looped(*arguments(model))["exact"], compute(model, ("trees",), **options)["trees"])


def test_microbatches_of_an_exact_step_take_trees_and_sketches_add_up():
    with jax.enable_x64(True):
        module, theta, frozen, batch, scale = problem("bert", **ONE)
        parts = jax.tree.map(lambda x: x[:, None], batch)
        whole = compute((module, theta, frozen, batch, scale), ("exact",))["exact"]
        in_parts = compute(
            (module, theta, frozen, parts, scale), ("exact", "sketch"), microbatches=B
        )
        agree(in_parts["exact"], whole)
        gramian, mixed = in_parts["sketch"]
        # The mixture follows the sketched Gramian's coefficients, without an error of its own.
        c = weigh(None, gramian, None).coefficients
        heads, psi = losses(2, module.dtype, 1.0)
        plain = trunk.make_trunk(module, pooling="first", lora_scale=scale)

        def total(theta):
            return heads(plain(theta, frozen, batch), psi, {}, batch)[0] @ c

        agree([mixed], [jax.jit(jax.grad(total))(theta)])


def test_a_sketch_is_right_on_average():
    # 200 draws: means within 3 standard errors, spread as the variance says.
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (7, 5))
    bars = [jax.random.normal(key, (7, 6)) for key in keys[1:3]]
    site = records.Site("a", "dense", "w", "b", None, False, (7, 5), 6, jnp.float32)
    record = records.Record(site, None, x, bars)

    def draw(key):
        drawn = records.signs(key, [site], 8, jnp.float32)["a", None]
        parts = records.features(record, "sketch", drawn)
        return sum(records.matrix_record(records.inner(part, part)) for part in parts)

    found = jax.jit(jax.vmap(draw))(jax.random.split(keys[3], 200))
    whole = [jnp.concatenate([x, jnp.ones((7, 1))], 1).T @ bar for bar in bars]
    expected = np.array([[jnp.vdot(a, b) for b in whole] for a in whole])
    error = np.std(found, axis=0) / np.sqrt(200)
    assert (np.abs(np.mean(found, axis=0) - expected) < 3 * error).all()
    # Variance of a squared norm: 2 / k of the sum over columns o != p of (M^T M)_op squared.
    square = np.array(whole[0].T @ whole[0])
    off = (square**2).sum() - (np.diagonal(square) ** 2).sum()
    np.testing.assert_allclose(np.var(found[:, 0, 0]), 2 / 8 * off, rtol=0.35)


def kept(state):
    return jax.tree.map(np.asarray, state._replace(key=jax.random.key_data(state.key)))


def test_a_step_holds_one_gradient_of_the_word_table_and_sketches_repeat_themselves():
    tall = {"vocab_size": 4000, "num_hidden_layers": 1}
    state, step, _ = make(gradient_norms="sketch", backbone=tall)
    made = equations(jax.make_jaxpr(step)(state, rows(0)).jaxpr)
    scatters = [one for one in made if one.primitive.name == "scatter-add"]
    assert [one.outvars[0].aval.shape for one in scatters].count((4000, 16)) == 1
    compiled = step.lower(state, rows(0)).compile()
    entry = compiled.as_text().split("ENTRY ")[1]
    tables = re.findall(r"(\S+) = f32\[4000,16\]\S* (?!parameter|bitcast|get-tuple-element)", entry)
    # The gradient, twice where it starts as zeros; the parameter and its two moments.
    assert len(tables) <= 5, tables
    ends = []
    for again in (False, True):
        now = jax.tree.map(jnp.copy, state)
        for index in range(4):
            if again and index == 2:
                # As after a stop: the signs come from nothing but what is kept.
                stopped = kept(now)
                key = jax.random.wrap_key_data(stopped.key)
                now = jax.device_put(stopped)._replace(key=key)
            now, metrics = step(now, rows(index))
        ends.append((kept(now), metrics))
    jax.tree.map(np.testing.assert_array_equal, *ends)
    other = jax.tree.map(jnp.copy, state)._replace(step=state.step + 1)
    norms = [step(one, rows(0))[1]["gradient_norm_regression"] for one in (other, state)]
    assert norms[0] != norms[1]


def test_signs_are_signs_and_change_with_the_key():
    sites = [
        records.Site(name, "dense", name, None, (0, 1), True, (2, 3, 4), 5, jnp.float32)
        for name in "ab"
    ]
    drawn = records.signs(jax.random.key(0), sites, 7, jnp.float32)
    assert list(drawn) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    values = np.concatenate([np.ravel(one) for one in drawn.values()])
    np.testing.assert_allclose(np.abs(values), 7**-0.5, rtol=1e-6)
    assert abs(values.mean()) < 0.15
    other = records.signs(jax.random.key(1), sites, 7, jnp.float32)
    assert any((drawn[name] != other[name]).any() for name in drawn)


@pytest.mark.parametrize(
    ("tokens", "num_in", "num_out", "columns", "way"),
    [
        (8, 384, 384, 0, "ghost"),
        (192, 384, 384, 0, "ghost"),
        (4096, 384, 384, 0, "direct"),
        (4096, 384, 384, 16, "sketch"),
        (8, 384, 384, 16, "ghost"),
    ],
)
def test_the_way_follows_the_shapes(tokens, num_in, num_out, columns, way):
    given = (tokens, num_in)
    site = records.Site("a", "dense", "w", None, None, False, given, num_out, jnp.float32)
    assert records.choose_way(site, 2, columns) == way


def test_long_texts_and_single_losses_take_whole_gradients():
    short = problem("bert", dtype=jnp.float32)

    def planned(made, kind="exact", count=2, additive=False, times=1):
        module, theta, frozen, batch, _ = made
        batch = jax.tree.map(lambda x: jnp.tile(x, (times, 1)), batch)
        shared = trunk.make_recorded_trunk(module, frozen, pooling="first")
        norms = gradients.Norms(kind)
        return recorded.plan(shared, theta, (batch, None), count, norms, additive=additive)

    assert set(planned(short).values()) <= {"rows", "direct", "ghost"}
    # Outputs of 16 texts are more numbers than the parameters.
    assert planned(short, times=16) is planned(short, "sketch", times=16) is None
    assert planned(short, count=1) is planned(short, "trees") is None
    assert planned(short, additive=True) is None
    assert set(planned(short, "sketch", additive=True).values()) == {"rows", "sketch"}


def test_records_cover_every_matrix_and_leave_what_is_in_none():
    for family in backbones.FAMILIES:
        module, theta, frozen, batch, _ = problem(family, dtype=jnp.float32)
        shared = trunk.make_recorded_trunk(module, frozen, pooling="first")
        covered = recorded._covered(shared.sites(theta, (batch, None)), paths.flatten(theta))
        rest = set(paths.flatten(theta)) - covered
        assert rest and all("norm/" in path for path in rest), family


def test_a_matrix_used_twice_is_refused_by_name():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            matrix = layers.Linear(config("bert"), features=WIDTH, name="shared")
            return matrix(matrix(x))

    x = jnp.ones((2, WIDTH))
    variables = Twice().init(jax.random.key(0), x)
    assert set(variables) == {"params"}
    Twice().apply(variables, x)
    with pytest.raises(ValueError, match="shared is used twice in one pass"):
        Twice().apply(variables, x, mutable=["records"])
    site = records.Site("a", "dense", "w", None, None, False, (7, 5), 6, jnp.float32)
    with pytest.raises(ValueError, match="w is used at two places"):
        recorded._covered([site, site._replace(name="b")], {"w": jnp.ones((5, 6))})
    stacked = site._replace(layers=(0, 1), stacked=True)
    with pytest.raises(ValueError, match=r"no record stands for the layers \[2\] of w"):
        recorded._covered([stacked], {"w": jnp.ones((3, 5, 6))})


def test_rows_over_two_devices_give_what_one_gives():
    module, theta, frozen, batch, scale = problem("roberta", dtype=jnp.float32, **ONE)
    batch = jax.tree.map(lambda x: jnp.tile(x, (2, 1)), batch)
    found = []
    for devices in (jax.devices()[:1], jax.devices()[:2]):
        mesh = sharding.data_mesh(devices)
        spread = sharding.shard_rows(batch, mesh)
        placed = sharding.replicate((theta, frozen), mesh)
        found.append(compute((module, *placed, spread, scale), ("exact", "sketch")))
    for kind in ("exact", "sketch"):
        agree(found[1][kind], found[0][kind], within=1e-4)
