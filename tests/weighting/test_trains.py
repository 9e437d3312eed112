"""Every method through the engine, on a trunk of one layer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dwa_jax import gradients, weighting

pytestmark = pytest.mark.slow

STEPS = 30


def heads(h, psi, phi, batch):
    # Two tasks that pull the shared layer in different directions.
    return jnp.mean((h @ psi["w"] - batch["y"]) ** 2, axis=0), ()


@pytest.mark.parametrize("name", weighting.names())
def test_the_losses_fall(name):
    method = weighting.get(name, 2)
    keys = jax.random.split(jax.random.key(0), 4)
    batch = {"x": jax.random.normal(keys[0], (16, 5)), "y": jax.random.normal(keys[1], (16, 2))}
    params = {
        "theta": {"w": 0.5 * jax.random.normal(keys[2], (5, 6))},
        "psi": {"w": 0.5 * jax.random.normal(keys[3], (6, 2))},
    }
    own, state = method.init(jax.random.key(1))
    optimizer = optax.adam(3e-2)

    def weigh(losses, gramian, aux, own, state):
        gramian = jnp.zeros((2, 2)) if gramian is None else gramian
        proportions = jnp.array([0.25, 0.75])
        signals = weighting.Signals(losses, gramian, losses, proportions)
        return weighting.decide(method, own, state, signals)

    def step(carry, _):
        params, own, state, moments = carry
        found = gradients.mixed_gradients(
            lambda theta, batch: jnp.tanh(batch["x"] @ theta["w"]),
            heads,
            lambda losses, gramian, aux: weigh(losses, gramian, aux, own, state),
            params["theta"],
            params["psi"],
            {},
            batch,
            num_tasks=2,
            uses_gramian=method.uses_gramian,
        )
        gradient = {"params": {"theta": found.theta, "psi": found.psi}}
        gradient["own"] = found.weighed.gradient
        updates, moments = optimizer.update(gradient, moments)
        after = optax.apply_updates({"params": params, "own": own}, updates)
        carry = after["params"], after["own"], found.weighed.state, moments
        return carry, (found.losses, found.weighed.coefficients)

    start = params, own, state, optimizer.init({"params": params, "own": own})
    _, (losses, coefficients) = jax.lax.scan(step, start, length=STEPS)
    assert np.isfinite(losses).all() and np.isfinite(coefficients).all()
    # `single_task` trains the first alone.
    assert losses[-1][0] < 0.9 * losses[0][0]
    assert name == "single_task" or losses[-1].sum() < 0.9 * losses[0].sum()
