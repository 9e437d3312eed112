"""What the tests of strangers' files share."""

import os

import pytest
from hypothesis import HealthCheck, settings

from dwa_jax import backbones
from dwa_jax.backbones import BackboneError

# Cases of each property; the files that say how many were run once set it higher.
CASES = int(os.environ.get("DWA_JAX_FUZZ_CASES", "150"))
FUZZ = settings(
    max_examples=CASES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def refusal(folder):
    """The one line with which a model's folder is refused."""
    with pytest.raises(BackboneError) as error:
        backbones.load(folder)
    message = str(error.value)
    assert "\n" not in message and message.isprintable() and len(message) < 3000
    return message
