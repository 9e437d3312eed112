"""Batches and labels that every loss is tested on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dwa_jax import losses

K = 4


def batch(seed=0, categories=None, rows=10):
    """Returns (a batch, some rows of which have no score; logits (B, K))."""
    rng = np.random.default_rng(seed)
    categories = rng.integers(0, K, rows) if categories is None else np.asarray(categories)
    return {
        "score": jnp.asarray(rng.uniform(-1, 1, len(categories))),
        "score_mask": jnp.asarray((rng.random(len(categories)) < 0.7).astype(np.float32)),
        "category": jnp.asarray(categories),
        "category_mask": jnp.ones(len(categories), jnp.float32),
    }, jnp.asarray(rng.normal(size=(len(categories), K)))


def statistics(of, kind="batch", share=1.0):
    """Returns a batch's `Statistics`."""
    scored, counts = losses.count_labels(of, K)
    return losses.Statistics(scored, counts, losses.class_proportions(kind, counts, counts), share)


def labels(counts=(60, 25, 10, 5), rows=200):
    """Returns a training split's labels: few rows in the last classes, few low scores."""
    scores = np.clip(np.random.default_rng(1).normal(0.4, 0.35, rows), -1, 1)
    return losses.Labels(np.array(counts), scores)


def make(factory, of=None, **options):
    """Makes a loss, with labels if it takes them."""
    if losses.takes_labels(factory):
        options["labels"] = labels() if of is None else of
    return factory(**options)


def value(task, outputs, of, **variables):
    """Returns a loss's value on a whole batch."""
    return _apply(task.apply, {**task.init(), **variables}, outputs, of)


@functools.partial(jax.jit, static_argnums=0)
def _apply(apply, variables, outputs, of):
    # Compiled in one piece: many small operations would each be compiled on their own.
    return apply(variables, outputs, of, statistics(of))
