"""Measurements that need a process of their own: a first compilation, a peak of memory.

python -m experiments.benchmarks.worker '{"kind": "one_step", "shape": "roberta-large"}'
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from dwa_jax import host_memory


def measure(
    request: dict,
    cache: str | None = None,
    environment: dict[str, str] | None = None,
    seconds: float | None = None,
) -> dict:
    """Runs a request in a process of its own.

    Args:
      request: "kind" and what the function of that name below takes.
      cache: folder of compiled programs; by default none is kept.
      environment: further variables.
      seconds: after which it is ended; None waits.

    Returns:
      What it measured.

    Raises:
      ValueError: the process failed; says with what.
    """
    with tempfile.TemporaryDirectory() as empty:
        variables = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": cache or empty,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            **(environment or {}),
        }
        run = subprocess.run(
            [sys.executable, "-m", "experiments.benchmarks.worker", json.dumps(request)],
            capture_output=True,
            text=True,
            check=False,
            env=variables,
            timeout=seconds,
        )
    if run.returncode:
        last = (run.stderr.strip() or f"status {run.returncode}").splitlines()[-1]
        what = request.get("shape") or request.get("config")
        raise ValueError(f"{request['kind']} of {what} failed: {last}")
    return json.loads(run.stdout.splitlines()[-1])


def one_step(shape: str, rank: int = 128, rows: int = 2, tokens: int = 64) -> dict:
    """One DWA step of a model with random weights, and what it took with compilation."""
    from dwa_jax import lora
    from experiments.benchmarks import ours, suites

    started = time.perf_counter()
    state, step = ours.setup(ours.make_model(shape, rank), ours.METHODS["dwa trainable"])
    total = lora.count((state.theta, state.frozen))
    host_memory.keep()
    state, metrics = step(state, ours.make_batch(shape, rows, tokens))
    return {
        "shape": shape,
        "parameters": total,
        "loss_regression": float(metrics["loss_regression"]),
        "seconds": time.perf_counter() - started,
        "peak_gib": suites.peak_gib(),
    }


def compilation(shape: str, rank: int, rows: int, tokens: int, layers: int, method: str) -> dict:
    """Lowers and compiles a step; nothing is run."""
    import jax

    from experiments.benchmarks import ours

    state, step = ours.setup(ours.make_model(shape, rank, layers=layers), ours.METHODS[method])
    batch = jax.device_put(ours.make_batch(shape, rows, tokens))
    jax.block_until_ready((state, batch))
    started = time.perf_counter()
    lowered = step.lower(state, batch)
    traced = time.perf_counter()
    lowered.compile()
    return {
        "trace_seconds": traced - started,
        "compile_seconds": time.perf_counter() - traced,
    }


def memory(shape: str, rank: int, rows: int, tokens: int, method: str, dtype: str) -> dict:
    """The peak of a process that takes three steps, and what XLA says that the step needs."""
    import jax
    import jax.numpy as jnp

    from experiments.benchmarks import ours, suites

    model = ours.make_model(shape, rank, jnp.dtype(dtype))
    batch = ours.make_batch(shape, rows, tokens)
    if method in ours.METHODS:
        runner = ours.Runner(model, ours.METHODS[method], batch)
        planned = runner.step.lower(runner.state, runner.batch).compile().memory_analysis()
        run = runner.run
        planned = {
            "state_gib": planned.argument_size_in_bytes / 2**30,
            "temporary_gib": planned.temp_size_in_bytes / 2**30,
        }
    else:
        from experiments.benchmarks import peers

        name = method.removeprefix("PyTorch ")
        state = ours.peer_state(model, name)
        run, planned = peers.Peer(model, state, batch, name).run, {}
        if jax.default_backend() != "cpu":
            raise ValueError("on a GPU the two frameworks share one device's memory: not measured")
    host_memory.keep()
    before = suites.peak_gib()
    for _ in range(3):
        run()
    return {"peak_gib": suites.peak_gib(), "before_gib": before, **planned}


def gpu_plan(**request) -> dict:
    """What a configuration's step needs of a GPU that need not be there."""
    from experiments.benchmarks import gpu_plan

    return gpu_plan.measure_plan(**request)


def main() -> None:
    """Prints what was measured, as JSON."""
    from experiments.benchmarks import day_parts

    request = json.loads(sys.argv[1])
    kinds: dict[str, Callable[..., dict]] = {
        "one_step": one_step,
        "compilation": compilation,
        "memory": memory,
        "gpu_plan": gpu_plan,
        **day_parts.KINDS,
    }
    print(json.dumps(kinds[request.pop("kind")](**request)))


if __name__ == "__main__":
    host_memory.begin()
    main()
