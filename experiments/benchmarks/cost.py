"""What a step must compute: matrix products of the trunk.

A pass forward through a matrix of I x O costs 2 I O a token; backward to its input the
same again, and the same once more for its own gradient. Everything else (norms,
activations, heads, the optimizer) is left out: it is what keeps a step from this bound.
"""

import time

import jax
import jax.numpy as jnp

from dwa_jax import lora, paths, records, training
from dwa_jax.backbones import low_rank
from experiments.benchmarks.ours import BenchmarkModel, Method

# A site of any matrix, and the library's own number of columns.
_SITE = records.Site("", "dense", "", None, None, False, (), 0, jnp.float32)
_COLUMNS = training.StepOptions(pooling="mean", num_classes=2).sketch_columns


def backward_passes(method: Method, num_tasks: int = 2) -> int:
    """Returns how often the trunk runs backward a step."""
    if method.weighting == "constant" or method.scope == "representation":
        return 1
    if method.scope == "last_layer":
        return 1  # and that layer once more a further task, which is left out
    return num_tasks


def step_flops(
    model: BenchmarkModel, method: Method, rows: int, tokens: int, *, dropout: bool = False
) -> float:
    """Returns the floating-point operations of a step's matrix products.

    Args:
      model: any, pooled at one token a row.
      method: how the step is taken.
      rows: B.
      tokens: T.
      dropout: whether LoRA's factors see another input than the matrix, and so take the order
        that is always possible.

    Returns:
      Those forward, and for every pass backward those of the gradients of the layers' inputs
      and of what trains, or of what records take instead, in the order `low_rank` takes. Left
      out is what the step leaves out: all but the pooled token in the last layer's queries and
      feed-forward, and the gradient of a frozen embedding. So are the scores that attention in
      parts computes twice.
    """
    config, passes = model.config, backward_passes(method)
    factors = {} if model.adapter is None else paths.flatten(model.adapter.factors)
    matrices = {
        path.removesuffix("/kernel"): leaf.shape[1:]
        for path, leaf in paths.flatten(model.params).items()
        if path.startswith("layers/") and path.endswith("/kernel")
    }
    last = config.num_layers - 1 if config.num_layers > 1 else -1
    outputs = 0
    for layer in range(config.num_layers):
        for name, (_, num_out) in matrices.items():
            alone = layer == last and not name.endswith(("/key", "/value"))
            outputs += num_out * rows * (1 if alone else tokens)
    outputs += rows * tokens * config.hidden_size
    recorded = passes > 1 and method.norms != "trees" and not factors
    recorded = recorded and outputs <= lora.count(model.params)
    columns = _COLUMNS if method.norms == "sketch" else 0
    total = 0.0
    for layer in range(config.num_layers):
        is_last = config.num_layers > 1 and layer == config.num_layers - 1
        asking = rows if is_last else rows * tokens
        width = config.num_heads * config.head_dim
        # Scores and mixture forward; each of them has two gradients.
        total += 2 * 2 * asking * tokens * width * (1 + 2 * passes)
        for name, (num_in, num_out) in matrices.items():
            count = rows * tokens if name.endswith(("/key", "/value")) else asking
            from_embedding = layer == 0 and name.endswith(("/query", "/key", "/value"))
            to_inputs = 0 if factors and from_embedding else passes
            products = count * num_in * num_out * (1 + to_inputs)
            if not factors and recorded:
                found = {"kind": "dense", "given": (count, num_in), "outputs": num_out}
                site = _SITE._replace(**found)
                way = records.choose_way(site, passes, columns)
                products += records.way_multiplications(site, passes, columns)[way]
            elif not factors:
                products += count * num_in * num_out * passes
            elif f"{name}/u" in factors:
                rank = factors[f"{name}/u"].shape[-1]
                order = low_rank.order_for(count, num_in, num_out, rank, model.dtype)
                order = low_rank.Order(False, False) if dropout else order
                more = low_rank.multiplications(order, count, num_in, num_out, rank)
                products += more.once + more.inputs * to_inputs + more.factors * passes
            total += 2 * products
    return total


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
