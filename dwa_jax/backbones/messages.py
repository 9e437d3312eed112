"""The messages of `dwa_jax.messages`, under the name that this package has for them."""

from dwa_jax.messages import one_line as one_line
from dwa_jax.messages import shown as shown
