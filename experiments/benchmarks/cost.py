"""What a step must compute: matrix products of the trunk, counted in forward passes.

A pass forward through a matrix of I x O costs 2 I O a token; backward to its input the
same again, and the same once more for its own gradient. Everything else (norms,
activations, heads, the optimizer) is left out: it is what keeps a step from this bound.
"""

import time

import jax
import jax.numpy as jnp

from dwa_jax import paths
from experiments.benchmarks.ours import Method, Model


def backward_passes(method: Method, num_tasks: int = 2) -> float:
    """Returns how often the trunk runs backward a step, on average over `gramian_every`."""
    if method.weighting == "constant" or method.scope == "representation":
        return 1.0
    if method.scope == "last_layer":
        return 1.0  # and that layer once more a further task, which is left out
    return 1 + (num_tasks - 1) / method.gramian_every


def forward_flops(model: Model, rows: int, tokens: int) -> float:
    """Returns the floating-point operations of a pass forward, without LoRA.

    Args:
      model: any.
      rows: B.
      tokens: T.
    """
    kernels = [
        leaf.size
        for path, leaf in paths.flatten(model.params).items()
        if path.startswith("layers/") and path.endswith("/kernel")
    ]
    config = model.config
    attention = 4 * tokens * config.num_heads * config.head_dim * config.num_layers
    return rows * tokens * (2 * sum(kernels) + attention)


def step_flops(model: Model, method: Method, rows: int, tokens: int) -> float:
    """Returns the floating-point operations that a step cannot do without.

    Args:
      model: any.
      method: how the step is taken.
      rows: B.
      tokens: T.

    Returns:
      Forward, and for every pass backward the gradients of the layers' inputs and of what
      trains: the matrices, or their factors at 2 R (I + O) a token each way.
    """
    forward = forward_flops(model, rows, tokens)
    passes = backward_passes(method)
    if model.adapter is None:
        return forward * (1 + 2 * passes)
    sizes = [leaf.size for leaf in jax.tree.leaves(model.adapter.factors)]
    factors = 2 * rows * tokens * sum(sizes)
    return forward * (1 + passes) + factors * (1 + 2 * passes)


def matrix_rate(dtype=jnp.float32, seconds: float = 1.0) -> float:
    """Measures the device's matrix products.

    Args:
      dtype: of the operands.
      seconds: how long to measure, at least.

    Returns:
      Floating-point operations a second of a large square product, the best of several.
    """
    size = 2048 if jax.default_backend() == "cpu" else 8192
    a = jnp.ones((size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    best, ends = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < ends:
        started = time.perf_counter()
        product(a).block_until_ready()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
