"""The three optimizers: of the trunk, of the heads, and of what losses and weighting learn."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dwa_jax import guard, paths


class Optimizer(NamedTuple):
    """An optimizer that can be told to hold still.

    Attributes:
      init: parameters -> state.
      apply: (gradient, state, parameters, good) -> (parameters, state); where `good`, a
        boolean scalar, is false, both come back as they were.
    """

    init: Callable[[Any], Any]
    apply: Callable[[Any, Any, Any, jax.Array], tuple[Any, Any]]


class Optimizers(NamedTuple):
    """One optimizer for each kind of parameter.

    Attributes:
      theta: of the trunk.
      psi: of the heads.
      phi: of what losses and weighting learn.
      learning_rate: the trunk's, by update.
      plan: what makes them of numbers; a program that takes these as an argument serves every
        rate and every length of a run.
      numbers: theirs, a vector for `plan.make`.
    """

    theta: Optimizer
    psi: Optimizer
    phi: optax.GradientTransformation
    learning_rate: optax.Schedule
    plan: "OptimizerPlan"
    numbers: np.ndarray | jax.Array


# How the learning rate goes beyond the end that a run had, see `make_optimizers`.
EXTENSION_SCHEDULES = ("stretch", "restart")


def make_optimizers(
    *,
    total_steps: int,
    extensions: Sequence[tuple[int, str]] = (),
    learning_rate: float,
    head_learning_rate: float,
    phi_learning_rate: float = 1e-3,
    warmup_steps: int = 100,
    weight_decay: float = 0.01,
    clip_norm: float = 1.0,
    decayed: Sequence[str] = (r"(kernel|embedding|/u|/v)$",),
    mean_dtype: jnp.dtype = jnp.float32,
) -> Optimizers:
    """Makes the three optimizers: AdamW for trunk and heads, Adam for the rest.

    Args:
      total_steps: of the run as it was begun; the cosine ends at 0 there.
      extensions: (total steps, "stretch" or "restart") of each time that it was made longer,
        which changes no rate before the end that it had: "stretch" goes on as a run of so many
        steps does from there, "restart" begins anew, with a warm-up (Loshchilov and Hutter 2017,
        "SGDR", with one length after the other).
      learning_rate: the trunk's peak.
      head_learning_rate: the heads' peak, on the same schedule.
      phi_learning_rate: Adam's, constant (1e-3 in the papers).
      warmup_steps: linear warm-up of trunk and heads (100 in the papers), shortened to
        a tenth of the run where the run is too short for it; update k of it, counted from
        1, has k / warmup_steps of the peak.
      weight_decay: AdamW's, on the leaves that `decayed` matches.
      clip_norm: bound on the global norm of the trunk's gradient; 0: none.
      decayed: regular expressions over parameter paths.
      mean_dtype: what the trunk's means of gradients are kept in, see `adamw`.
    """

    def part(begun, origin, steps):
        warmup = min(warmup_steps, max(steps // 10, 1))
        return begun, origin, warmup, max(steps - warmup, 1)

    parts, end = [part(0, 0, total_steps)], total_steps
    for steps, how in extensions:
        anew = how == "restart"
        parts.append(part(end, end if anew else 0, steps - end if anew else steps))
        end = steps
    peaks = (learning_rate, head_learning_rate, phi_learning_rate)
    numbers = np.array([*peaks, weight_decay, clip_norm, *itertools.chain(*parts)], float)
    plan = OptimizerPlan(len(parts), bool(clip_norm), tuple(decayed), jnp.dtype(mean_dtype))
    return plan.make(numbers)


@dataclasses.dataclass(frozen=True)
class OptimizerPlan:
    """What of the optimizers is no number.

    Attributes:
      parts: of the schedule, one behind the other.
      clips: whether the trunk's gradient has a bound.
      decayed: regular expressions over parameter paths.
      mean_dtype: see `adamw`.
    """

    parts: int
    clips: bool
    decayed: tuple[str, ...]
    mean_dtype: jnp.dtype

    def make(self, numbers: np.ndarray | jax.Array) -> Optimizers:
        """Makes the optimizers.

        Args:
          numbers: (5 + 4 P,), traced or not, P the parts: the peaks of trunk and heads, the rate
            of the rest, weight decay, bound; of each part the update that it begins with, the
            one that it counts from, the steps of its warm-up and those of its fall.
        """
        trunk, head, rest, weight_decay, clip_norm = (numbers[index] for index in range(5))
        parts = [numbers[5 + 4 * index :][:4] for index in range(self.parts)]

        def decay_mask(tree):
            # Not `paths.assign`: a tree of biases and norms alone may well match nothing.
            pattern = re.compile("|".join(self.decayed))
            flat = paths.flatten(tree)
            return paths.unflatten({path: bool(pattern.search(path)) for path in flat})

        decaying = functools.partial(adamw, weight_decay=weight_decay, mask=decay_mask)
        schedule = functools.partial(_rate, parts, trunk)
        return Optimizers(
            decaying(
                schedule,
                clip_norm=clip_norm if self.clips else None,
                mean_dtype=self.mean_dtype,
            ),
            decaying(functools.partial(_rate, parts, head)),
            optax.adam(rest),
            schedule,
            self,
            numbers,
        )


def _rate(parts, peak, count):
    # Of an update: the last part's that has begun.
    rate = jnp.zeros(())
    for begun, origin, warmup, fall in parts:
        since = count - origin
        # The first update, too, is made with a rate above 0: a run may have only one.
        rise = (since + 1) / jnp.maximum(warmup, 1)
        done = jnp.clip((since - warmup) / fall, 0, 1)
        own = jnp.where(since < warmup, rise, (1 + jnp.cos(jnp.pi * done)) / 2)
        rate = jnp.where(count >= begun, peak * own, rate)
    return rate


def adamw(
    schedule: optax.Schedule,
    *,
    weight_decay: jax.typing.ArrayLike,
    mask: Callable[[Any], Any],
    clip_norm: jax.typing.ArrayLike | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    mean_dtype: jnp.dtype = jnp.float32,
) -> Optimizer:
    """`optax.adamw` after clipping, number for number, that can hold still.

    The same could be had by a selection after optax's update, at the price of one more
    pass over the memory of the parameters: they would follow from moments other than
    those that are kept, which could then not be updated in place. A branch costs the same,
    and makes a GPU's host wait for the boolean.

    Args:
      schedule: number of updates made -> learning rate.
      weight_decay: strength of the decay, times the learning rate.
      mask: parameters -> a tree of booleans, the leaves that decay.
      clip_norm: bound on the gradient's global norm; None: there is none.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      mean_dtype: what the first moment is kept in. The second one stays as wide as the
        gradient: of bfloat16's 8 bits a decay of 0.999 would change none.

    Returns:
      An `Optimizer` whose state is an `optax.ScaleByAdamState`. Source: Loshchilov and
      Hutter 2019, "Decoupled weight decay regularization", algorithm 2.
    """
    # optax keeps the parameters' own dtype where it is told of none.
    kept = None if mean_dtype == jnp.float32 else mean_dtype
    adam = optax.scale_by_adam(b1, b2, eps, mu_dtype=kept)

    def apply(gradient, state, parameters, good):
        if clip_norm is not None:
            # One factor for all: optax divides leaf by leaf, which writes the gradient again.
            factor = clip_norm / jnp.maximum(optax.tree.norm(gradient), clip_norm)
            gradient = jax.tree.map(lambda g: g * factor.astype(g.dtype), gradient)
        _, moved = adam.update(gradient, state)
        rate = schedule(state.count)
        state = guard.keep_if(good, moved, state)
        mean = optax.tree.bias_correction(state.mu, b1, state.count)
        square = optax.tree.bias_correction(state.nu, b2, state.count)

        def move(old, m, v, decays):
            direction = m.astype(v.dtype) / (jnp.sqrt(v) + eps)
            if decays:
                direction = direction + jnp.asarray(weight_decay, old.dtype) * old
            return jnp.where(good, old - jnp.asarray(rate, direction.dtype) * direction, old)

        return jax.tree.map(move, parameters, mean, square, mask(parameters)), state

    return Optimizer(adam.init, apply)
