"""Task weighting: every method behind one protocol.

A new one is a file and a line in `METHODS`; from outside, `METHODS["mine"] = mine` before it is
asked for.
"""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from dwa_jax.weighting.alignment import aligned_mtl, config_mtl, imtl_g
from dwa_jax.weighting.bargaining import fairgrad, nash_mtl
from dwa_jax.weighting.cones import cagrad, dualproj, mgda, upgrad
from dwa_jax.weighting.constant import constant, single_task
from dwa_jax.weighting.dwa import adaptive_lambda, adaptive_w, dwa
from dwa_jax.weighting.famo import famo
from dwa_jax.weighting.from_losses import dynamic_weight_average, geometric_mean, random, stch
from dwa_jax.weighting.learned_scales import imtl_l, uncertainty
from dwa_jax.weighting.norms import db_mtl, equal_gradient, gradnorm
from dwa_jax.weighting.protocol import Signals, Weighed, Weighting, decide
from dwa_jax.weighting.surgery import gradvac, pcgrad

METHODS: dict[str, Callable[..., Weighting]] = {
    "constant": constant,
    "single_task": single_task,
    "dwa": dwa,
    "adaptive_lambda": adaptive_lambda,
    "adaptive_w": adaptive_w,
    "equal_gradient": equal_gradient,
    "random": random,
    "uncertainty": uncertainty,
    "dynamic_weight_average": dynamic_weight_average,
    "geometric_mean": geometric_mean,
    "imtl_l": imtl_l,
    "stch": stch,
    "famo": famo,
    "gradnorm": gradnorm,
    "db_mtl": db_mtl,
    "mgda": mgda,
    "pcgrad": pcgrad,
    "gradvac": gradvac,
    "cagrad": cagrad,
    "imtl_g": imtl_g,
    "nash_mtl": nash_mtl,
    "aligned_mtl": aligned_mtl,
    "upgrad": upgrad,
    "dualproj": dualproj,
    "fairgrad": fairgrad,
    "config_mtl": config_mtl,
}


def names() -> tuple[str, ...]:
    """Returns every registered name."""
    return tuple(METHODS)


def get(name: str, num_tasks: int = 2, **options: Any) -> Weighting:
    """Builds a weighting method by name.

    Args:
      name: one of `names()`.
      num_tasks: N.
      **options: the method's own.

    Returns:
      A `Weighting`.

    Raises:
      ValueError: the name or an option is unknown, or an option is out of range.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown weighting {name!r}; {hint}there are: {', '.join(names())}")
    try:
        return METHODS[name](num_tasks, **options)
    except TypeError as error:
        accepted = [p for p in inspect.signature(METHODS[name]).parameters if p != "num_tasks"]
        raise ValueError(f"weighting {name!r}: {error}; its options: {accepted}") from None


__all__ = ["METHODS", "Signals", "Weighed", "Weighting", "decide", "get", "names"]
