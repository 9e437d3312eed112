"""Gramian and mixture from records, beside one whole gradient a task."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax import backbones, gradients, lora, paths, records, trunk
from tests.test_training import config

B, T, WIDTH = 3, 5, 16
# The families of `tests.test_training.config`.
FAMILIES = ("bert", "roberta", "llama", "qwen2")


class Found(NamedTuple):
    coefficients: jax.Array
    gramian: jax.Array


def problem(family, *, rank=0, freeze=(), vocab=1000, dtype=jnp.float64, **backbone):
    settings = config(family, vocab_size=vocab, num_hidden_layers=3, **backbone)
    module = backbones.build(settings, dtype=dtype, param_dtype=dtype, lora_dropout=0.3)
    params = backbones.init(jax.random.key(0), module)
    # Biases and LoRA's V start at zero, which would hide half of the mistakes.
    noisy = {
        path: leaf + 0.1 * jax.random.normal(jax.random.key(i), leaf.shape, leaf.dtype)
        for i, (path, leaf) in enumerate(paths.flatten(params).items())
    }
    params, adapter = paths.unflatten(noisy), None
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


def compute(made, kinds, *, count=3, key=None, pooling="first", labels=1.0, extra=0, **options):
    """{kind: (Gramian, mixed gradient)} in one program."""
    module, theta, frozen, batch, scale = made
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

    run = jax.jit(lambda theta, signs: {kind: one(kind, theta, signs) for kind in kinds})
    return run(theta, jax.random.key(9))


def agree(a, b, within=1e-10):
    # Some leaves' gradients are zero but for rounding: attention's, in the key's bias.
    for one, other in zip(a, b, strict=True):
        pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
        largest = max(np.abs(y).max() for _, y in pairs)
        assert max(np.abs(np.asarray(x) - y).max() for x, y in pairs) <= within * largest


CASES = {family: (family, {}, {}) for family in FAMILIES} | {
    "mean": ("bert", {}, {"pooling": "mean"}),
    "dropout": (
        "roberta",
        {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2},
        {"key": 3},
    ),
    "LoRA, dropout": ("llama", {"rank": 2}, {"key": 3}),
    "parts frozen": ("qwen2", {"freeze": ("mlp/up/kernel", "query/bias", "final_norm")}, {}),
    "tables frozen": ("bert", {"freeze": ("embeddings",)}, {}),
    "missing labels": ("bert", {}, {"labels": np.array([[1, 0, 1], [0, 0, 1], [0, 0, 0.0]])}),
    "many tasks": ("bert", {}, {"count": 9}),
    "another loss's norm": ("llama", {}, {"count": 2, "extra": 1}),
    "many tasks, another loss's norm": ("llama", {}, {"count": 6, "extra": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_exact_is_what_trees_give(case, monkeypatch):
    family, made, options = CASES[case]
    with jax.enable_x64(True):
        if "key" in options:
            options = options | {"key": jax.random.key(options["key"])}
        model = problem(family, **made)
        for touch in (0, 10**6):  # matrices go directly, then by kernels
            monkeypatch.setattr(records, "_TOUCH", touch)
            found = compute(model, ("exact", "trees"), **options)
            agree(found["exact"], found["trees"])
