"""What a step's arrays come to in memory, before anything is compiled; and what it came to.

Axis letters: B rows, T tokens, L layers, M microbatches, N tasks.
"""

import math
import resource
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.extend import core

from dwa_jax import sharding, training, trunk
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.model import Model
from dwa_jax.finetune.setup import Setup
from dwa_jax.from_shapes import from_shapes
from dwa_jax.records import Site

# The backward pass works on one layer at a time. What it holds of its own for it, beside what
# the forward pass saved, is so many times the latter: fitted to XLA's count for CPUs.
_WORKING = 1.5


def estimate(
    config: Config, model: Model, setup: Setup, shapes: Sequence[tuple[int, int]]
) -> dict[str, int]:
    """Counts the bytes that a device holds while it works on the largest step.

    Parameters, optimizer states and gradients follow from their shapes. Activations are
    what differentiating the trunk saves for the backward pass, before the compiler decides
    what it rather computes again, and the backward pass's own arrays of one layer. Together
    they were within 15 % of `compiled.memory_analysis()` of the whole step on CPUs, for
    small models in float32; there bfloat16 takes as much, which this does not count.

    Args:
      config: the whole configuration.
      model: backbone and tokenizer.
      setup: what the loop works with, its state included.
      shapes: (B, T) of the batches, T ascending.

    Returns:
      {"parameters", "optimizer", "gradients", "activations"}, bytes each.
    """
    state, module = setup.state, model.module
    # Each task's own gradient is kept where the scope is all that trains; a sum over
    # microbatches is kept beside a microbatch's own.
    each = setup.uses_gramian and config.gradient_scope == "trainable"
    rows, tokens = shapes[-1]
    plan = records_of(config, model, setup, rows, tokens) if each else None
    copies = len(setup.tasks) if each and not plan else 1
    copies *= 2 if config.microbatches > 1 else 1
    # Of records the outputs' cotangents, one a task.
    outputs = len(setup.tasks) * sum(
        math.prod(site.probe) * jnp.dtype(site.dtype).itemsize for site in plan or ()
    )
    outputs //= setup.mesh.size
    rows = -(-rows // (setup.mesh.size * config.microbatches))
    batch = {
        name: jax.ShapeDtypeStruct((rows, tokens), jnp.int32)
        for name in ("input_ids", "attention_mask")
    }
    key = state.key if config.dropout else None

    def saved(module):
        options = module, model.pooling, model.lora_scale
        return _saved_bytes(options, (state.theta, state.frozen, batch, key))

    kept = saved(module)
    whole = saved(module.clone(remat=False)) if module.remat else kept
    return {
        "parameters": sharding.device_bytes((state.theta, state.frozen, state.psi, state.phi)),
        "optimizer": sharding.device_bytes(state.optimizers),
        "gradients": copies * sharding.device_bytes(state.theta)
        + sharding.device_bytes(state.psi)
        + outputs,
        "activations": round(kept + _WORKING * whole / max(module.config.num_layers, 1)),
    }


def records_of(
    config: Config, model: Model, setup: Setup, rows: int, tokens: int
) -> dict[Site, str] | None:
    """How the step of B rows, of all devices, finds gradients' inner products.

    Returns:
      What `training.plan_records` does.
    """
    part = -(-rows // config.microbatches)
    return training.plan_records(
        model.module, setup.state, setup.tasks, setup.options, part, tokens
    )


@from_shapes
def _saved_bytes(module, pooling, lora_scale, theta, frozen, batch, key):
    # What differentiation saves are the outputs of the traced program; parameters are
    # among them, and there already.
    run = trunk.make_trunk(module, pooling=pooling, lora_scale=lora_scale)

    def forward(theta, frozen, batch, key):
        return jax.vjp(lambda theta: run(theta, frozen, batch, key), theta)

    program = jax.make_jaxpr(forward)(theta, frozen, batch, key).jaxpr
    there = set(map(id, program.invars))
    found = {
        id(variable): variable.aval
        for variable in program.outvars
        if not isinstance(variable, core.Literal) and id(variable) not in there
    }
    return sum(aval.size * aval.dtype.itemsize for aval in found.values())


# What compiling, checkpoints, evaluation and pictures took beside it, on CPUs.
_BESIDE = 600 * 2**20


def process_bytes(needs: dict[str, int], *, on_host: bool) -> int:
    """Estimates what the whole process will need of the machine's memory.

    That is what it holds when the first state is there, the rest of a step's arrays, a copy of
    the state for a checkpoint, and some 600 MiB for compiling; it was within 10 % of the peak of
    small models. Where steps are computed elsewhere their arrays are there.

    Args:
      needs: from `estimate`.
      on_host: whether the machine's own memory holds a step's arrays.
    """
    step = needs["gradients"] + needs["activations"] if on_host else 0
    return _held() + step + needs["parameters"] + needs["optimizer"] + _BESIDE


def _held():
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:  # no Linux: the most that it ever held
        return peak()["process_bytes"]


def peak() -> dict[str, int]:
    """Returns peak bytes of the process, and of each device that reports them."""
    found = {"process_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    for device in jax.local_devices():
        stats = device.memory_stats() or {}
        if "peak_bytes_in_use" in stats:
            found[f"{device.platform}_{device.id}_bytes"] = stats["peak_bytes_in_use"]
    return found


def readable(size: float) -> str:
    """Writes bytes in a unit that leaves a few digits."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"
