"""The parts of `device_day`, each of which runs in a process of its own."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

# Steps after which the losses are compared, and steps that are timed.
_STEPS, _ROUNDS = 4, 10


def parity(shape: str, dtype: str, precision: str, rows: int, tokens: int) -> dict:
    """How far our losses are from PyTorch's after the same steps from the same weights.

    Args:
      shape: one of `shapes.names()`.
      dtype: what the trunk computes in.
      precision: of JAX's products in float32, "default" or "highest".
      rows: B.
      tokens: T.

    Returns:
      {"difference"}, the largest relative one of both losses at every step.
    """
    from experiments.benchmarks import ours, peers

    with jax.default_matmul_precision(precision):
        model = ours.make_model(shape, 0, jnp.dtype(dtype))
        batch = ours.make_batch(shape, rows, tokens)
        runner = ours.Runner(model, ours.METHODS["dwa trainable"], batch)
        peer = peers.Peer(model, runner.state, batch, "dwa three passes")
        worst = 0.0
        for _ in range(_STEPS):
            runner.run()
            peer.run()
            names = ("regression", "imbalance")
            here = np.array([float(runner.metrics[f"loss_{name}"]) for name in names])
            there = peer.losses.float().cpu().numpy()
            worst = max(worst, float(np.max(np.abs(here - there) / np.abs(there))))
    return {"difference": worst}


def configured_step(config: str, changes: dict, tokens: int) -> dict:
    """Times a configuration's own step, its dropout included, with random weights.

    Args:
      config: path of the file.
      changes: of its keys.
      tokens: T.

    Returns:
      {"ms", "low_ms", "high_ms", "compile_seconds", "peak_gib", "rows", "tokens_per_second"}.
    """
    from experiments.benchmarks import configured, gpu_plan, suites

    chosen = gpu_plan.load_config(config, changes)
    run = configured.configured_run(chosen, evaluate=configured.computed)
    state = [run.state]
    batch = _batch(chosen.batch_size, tokens)

    def step():
        state[0], metrics = run.step(state[0], batch)
        jax.block_until_ready(metrics)

    found = _timed(step)
    per_second = chosen.batch_size * tokens / (found["ms"] / 1000)
    more = {"rows": chosen.batch_size, "tokens_per_second": per_second}
    return {**found, **more, "peak_gib": suites.peak_gib()}


def _batch(rows, tokens):
    from experiments.benchmarks import ours

    # Ids below any vocabulary's end.
    return jax.device_put(ours.random_batch(50, rows, tokens))


def _timed(step):
    from experiments.benchmarks import timing

    contender = timing.prepare_contender(step)
    found = timing.interleave({"": contender}, _ROUNDS)[""]
    return {name: found[name] for name in ("ms", "low_ms", "high_ms", "compile_seconds")}


def contender_step(
    shape: str, rank: int, rows: int, tokens: int, dtype: str, method: str, mode: str = "eager"
) -> dict:
    """Times one step of ours or of PyTorch's, without dropout.

    Args:
      shape: one of `shapes.names()`.
      rank: of LoRA; 0 trains everything.
      rows: B.
      tokens: T.
      dtype: what the trunk computes in.
      method: one of `ours.METHODS`, or "PyTorch " and one of `peers.METHODS`.
      mode: one of `peers.MODES`; not of ours.

    Returns:
      {"ms", "low_ms", "high_ms", "compile_seconds"}, and of ours "utilisation" of the rate of
      large products.
    """
    from experiments.benchmarks import alone, cost, ours

    if method not in ours.METHODS:
        name = method.removeprefix("PyTorch ")
        return _timed(alone.make_run(shape, rank, rows, tokens, dtype, name, mode))
    found = _timed(alone.make_run(shape, rank, rows, tokens, dtype, method, "ours"))
    model = ours.make_model(shape, rank, jnp.dtype(dtype), evaluate=jax.eval_shape)
    flops = cost.step_flops(model, ours.METHODS[method], rows, tokens)
    rate = cost.matrix_rate(jnp.dtype(dtype))
    return {**found, "utilisation": flops / (found["ms"] / 1000) / rate}


def repeats(config: str, changes: dict, tokens: int) -> dict:
    """Whether the same steps twice give the same bits.

    Args:
      config: path of the file.
      changes: of its keys.
      tokens: T.

    Returns:
      {"same"}, of every loss and of every trained number.
    """
    from experiments.benchmarks import configured, gpu_plan

    chosen = gpu_plan.load_config(config, changes)
    batch = _batch(chosen.batch_size, tokens)
    ends = []
    for _ in range(2):
        run = configured.configured_run(chosen, evaluate=configured.computed)
        state = run.state
        for _ in range(_STEPS):
            state, metrics = run.step(state, batch)
        # Sums of the bits: two trees of billions are not held at once.
        bits = jax.jit(lambda tree: [jnp.sum(x.view(jnp.uint32)) for x in jax.tree.leaves(tree)])
        ends.append(jax.device_get((metrics, bits(state.theta))))
        del run, state
    first, second = (jax.tree.leaves(end) for end in ends)
    return {"same": all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))}


def fine_tuning(rows: int, epochs: int) -> dict:
    """Trains the demo's model on generated headlines.

    Args:
      rows: of the corpus.
      epochs: over it.

    Returns:
      {"seconds", "mse", "accuracy"} of the test split.
    """
    import dwa_jax
    from configs import demo

    started = time.perf_counter()
    model = dwa_jax.train(
        config=demo.get_config(),
        generated_rows=rows,
        epochs=epochs,
        listener=dwa_jax.Listener(),
    )
    test = model.summary["test"]
    return {
        "seconds": time.perf_counter() - started,
        "mse": test["mse"],
        "accuracy": test["accuracy"],
    }


KINDS: dict[str, Callable[..., dict]] = {
    "parity": parity,
    "configured_step": configured_step,
    "contender_step": contender_step,
    "repeats": repeats,
    "fine_tuning": fine_tuning,
}
