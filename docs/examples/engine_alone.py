"""The engine alone: three tasks on pictures, a convolutional network that knows nothing of us."""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from dwa_jax import gradients, weighting

METHOD = weighting.get("dwa", num_tasks=3, floor=0.05, rescale=True)
OPTIMIZER = optax.adam(3e-3)


class Network(nn.Module):
    @nn.compact
    def __call__(self, pictures):
        x = nn.relu(nn.Conv(8, (3, 3), strides=2)(pictures[..., None]))
        return nn.relu(nn.Dense(32)(x.reshape(len(x), -1)))


def draw(key, rows=64):
    """Draws pictures of one spot: how far down, how large, and on which side it is."""
    y, x, size = jax.random.uniform(key, (3, rows, 1, 1), minval=0.2, maxval=0.8)
    i, j = jnp.mgrid[:16, :16] / 15
    picture = jnp.exp(-((i - y) ** 2 + (j - x) ** 2) / (0.2 * size) ** 2)
    return {"picture": picture, "down": y[:, 0], "size": size[:, 0], "right": x[:, 0] > 0.5}


def trunk(theta, batch):
    return Network().apply(theta, batch["picture"])


def task_losses(h, psi, phi, batch):
    right = optax.sigmoid_binary_cross_entropy(h @ psi["right"], batch["right"])
    squared = [(h @ psi[name] - batch[name]) ** 2 for name in ("down", "size")]
    return jnp.stack([rows.mean() for rows in (*squared, right)]), ()


@jax.jit
def step(params, state, moments, batch):
    def weigh(losses, gramian, _):
        return weighting.decide(METHOD, params["phi"], state, weighting.Signals(losses, gramian))

    theta, psi = params["theta"], params["psi"]
    g = gradients.mixed_gradients(trunk, task_losses, weigh, theta, psi, (), batch, num_tasks=3)
    gradient = {"theta": g.theta, "psi": g.psi, "phi": g.weighed.gradient}
    updates, moments = OPTIMIZER.update(gradient, moments)
    return optax.apply_updates(params, updates), g.weighed.state, moments, g


if __name__ == "__main__":
    key, (phi, state) = jax.random.key(0), METHOD.init(jax.random.key(1))
    psi = {name: jnp.zeros((32, 1)) for name in ("down", "size", "right")}
    params = {"theta": Network().init(key, draw(key)["picture"]), "psi": psi, "phi": phi}
    moments = OPTIMIZER.init(params)
    for number in range(201):
        params, state, moments, g = step(params, state, moments, draw(jax.random.key(number)))
        if number % 50 == 0:
            print(number, "losses", g.losses, "coefficients", g.weighed.coefficients)
