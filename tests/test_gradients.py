"""The engine on a small trunk of its own, beside plain autodiff of each loss."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax import gradients

pytestmark = pytest.mark.slow

N, M = 3, 4


class Decision(NamedTuple):
    coefficients: jax.Array
    gramian: jax.Array
    losses: jax.Array
    aux: jax.Array


def lower(theta, batch):
    return jnp.tanh(batch["x"] @ theta["below"])


def upper(last, x, batch):
    return jnp.tanh(x @ last["top"])


SPLIT = gradients.SplitTrunk(lower, lambda theta: {"top": theta["top"]}, upper)


def trunk(theta, batch):
    return SPLIT(theta, batch)


def heads(h, psi, phi, batch):
    # Sums over rows, so that microbatches' shares add up; the last loss is no task's.
    outputs = h @ psi["w"]
    values = jnp.sum((outputs - batch["y"]) ** 2, axis=0) * jnp.append(phi["scale"], 1.0)
    return values, jnp.sum(outputs)


def weigh(losses, gramian, aux):
    # Depends on everything that a method may look at.
    if gramian is None:
        gramian = jnp.zeros((N, N))
    coefficients = jnp.sqrt(jnp.diagonal(gramian) + 1) / (1 + losses)
    return Decision(coefficients, gramian, losses, aux)


@pytest.fixture(scope="module")
def problem():
    keys = jax.random.split(jax.random.key(0), 6)
    theta = {
        "below": jax.random.normal(keys[0], (5, 6)),
        "top": 0.5 * jax.random.normal(keys[1], (6, 4)),
    }
    psi = {"w": jax.random.normal(keys[2], (4, N + 1))}
    phi = {"scale": jnp.array([1.0, 20.0, 0.1])}
    batch = {
        "x": jax.random.normal(keys[3], (8, 5)),
        "y": jax.random.normal(keys[4], (8, N + 1)),
    }
    return theta, psi, phi, batch


def run(problem, **options):
    theta, psi, phi, batch = problem
    microbatches = options.get("microbatches", 1)
    if microbatches > 1:
        batch = jax.tree.map(lambda x: x.reshape(microbatches, -1, *x.shape[1:]), batch)
    split = options.get("scope") == "last_layer"
    return jax.jit(
        lambda: gradients.mixed_gradients(
            SPLIT if split else trunk,
            heads,
            weigh,
            theta,
            psi,
            phi,
            batch,
            num_tasks=N,
            **options,
        )
    )()


def own_gradients(problem, scope, loss):
    """The gradient of one loss in the scope's variables, by plain autodiff."""
    theta, psi, phi, batch = problem
    if scope == "representation":
        h = trunk(theta, batch)
        return jax.grad(lambda h: heads(h, psi, phi, batch)[0][loss])(h)
    full = jax.grad(lambda t: heads(trunk(t, batch), psi, phi, batch)[0][loss])(theta)
    return full["top"] if scope == "last_layer" else full


def close(ours, theirs, rtol=2e-5):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("microbatches", [1, M])
@pytest.mark.parametrize("scope", gradients.SCOPES)
def test_gramian_and_mixture_are_those_of_plain_autodiff(problem, scope, microbatches):
    theta, psi, phi, batch = problem
    result = run(problem, scope=scope, microbatches=microbatches)
    vectors = [
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(own_gradients(problem, scope, t))])
        for t in range(N)
    ]
    expected = np.array([[a @ b for b in vectors] for a in vectors])
    close(result.weighed.gramian, expected)
    close(result.norms, np.sqrt(np.diagonal(expected)))
    close(result.losses, heads(trunk(theta, batch), psi, phi, batch)[0][:N])
    close(result.aux, heads(trunk(theta, batch), psi, phi, batch)[1])

    c = result.weighed.coefficients

    def total(theta, psi, phi):
        return heads(trunk(theta, batch), psi, phi, batch)[0][:N] @ c

    mixed = jax.grad(total, argnums=(0, 1, 2))(theta, psi, phi)
    close((result.theta, result.psi, result.phi), mixed)


@pytest.mark.parametrize("microbatches", [1, M])
def test_without_a_gramian_the_mixture_still_holds(problem, microbatches):
    theta, psi, phi, batch = problem
    result = run(problem, uses_gramian=False, microbatches=microbatches)
    c = result.weighed.coefficients
    mixed = jax.grad(lambda t: heads(trunk(t, batch), psi, phi, batch)[0][:N] @ c)(theta)
    close(result.theta, mixed)
    assert (result.norms == 0).all()


@pytest.mark.parametrize("scope", gradients.SCOPES)
def test_another_loss_may_stand_in_for_a_tasks_norm(problem, scope):
    result = run(problem, scope=scope, gramian_rows=[0, N, 2])
    stand_in = own_gradients(problem, scope, N)
    norm = np.sqrt(sum((np.asarray(x) ** 2).sum() for x in jax.tree.leaves(stand_in)))
    np.testing.assert_allclose(result.norms[1], norm, rtol=1e-5)
    plain = run(problem, scope=scope)
    np.testing.assert_allclose(result.norms[::2], plain.norms[::2], rtol=1e-6)


def test_the_number_of_passes_through_the_trunk(problem):
    # One forward and N backward passes for "trainable", one of each otherwise: counted
    # as matrix products that make the lowest layer's gradient in the traced program.
    theta, psi, phi, batch = problem

    def products(scope, **options):
        def step(theta):
            shared = SPLIT if scope == "last_layer" else trunk
            return gradients.mixed_gradients(
                shared, heads, weigh, theta, psi, phi, batch, num_tasks=N, scope=scope, **options
            )

        program = str(jax.make_jaxpr(step)(theta))
        return len(re.findall(r"f32\[(?:5,6|6,5)\] = dot_general", program))

    assert products("trainable") == N
    assert products("representation") == 1
    assert products("last_layer") == 1
    assert products("trainable", uses_gramian=False) == 1


def test_unknown_scope_and_missing_split_are_errors(problem):
    with pytest.raises(ValueError, match="'head'; there are: trainable, representation"):
        run(problem, scope="head")
    theta, psi, phi, batch = problem
    with pytest.raises(ValueError, match="needs a SplitTrunk"):
        gradients.mixed_gradients(
            trunk, heads, weigh, theta, psi, phi, batch, num_tasks=N, scope="last_layer"
        )
