"""Published values for one small Jacobian, where the file with them is at hand."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from tests.weighting import cases

FILE = Path(__file__).parents[2].parent / "shared" / "oracles" / "weighting_values.json"
METHODS = (
    *("mgda", "cagrad", "upgrad", "dualproj", "pcgrad", "gradvac"),
    *("imtl_g", "aligned_mtl", "fairgrad", "nash_mtl"),
)
SCALARS = ("geometric_mean", "uncertainty", "imtl_l", "famo", "stch")


@pytest.fixture(scope="module")
def published():
    if not FILE.exists():
        pytest.skip(f"{FILE.name} is not at hand")
    return json.loads(FILE.read_text())


def test_every_published_method_is_tested(published):
    assert set(published["methods"]) == set(METHODS)
    assert set(published["scalar"]) == set(SCALARS)


@pytest.mark.parametrize("name", METHODS)
def test_method_agrees_with_the_published_weights_and_direction(name, published):
    expected = published["methods"][name]
    jacobian = np.array(published["jacobian"], np.float64)
    result = cases.coefficients(name, [published["gramian"]])[0]
    if "weights" in expected:
        np.testing.assert_allclose(result, expected["weights"], atol=1e-4)
    np.testing.assert_allclose(result @ jacobian, expected["direction"], atol=1e-4)


@pytest.mark.parametrize("name", SCALARS)
def test_scalar_agrees_with_the_published_value(name, published):
    expected = published["scalar"][name]
    method, variables, state = cases.first(name, len(expected["losses"]))
    result = method.weigh(variables, state, cases.signals(expected["losses"]))
    if "value" in expected:
        np.testing.assert_allclose(result.objective, expected["value"], atol=1e-4)
    if "gradient" in expected:
        np.testing.assert_allclose(result.coefficients, expected["gradient"], atol=1e-4)


@pytest.mark.parametrize(
    ("regularization", "expected"), [(1e-4, [1.1109, 0.7894]), (0.0, [10 / 9, 15 / 19])]
)
def test_upgrad_without_regularisation_is_the_exact_projection(regularization, expected):
    gramian = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
    result = cases.coefficients("upgrad", gramian[None], regularization=regularization)[0]
    np.testing.assert_allclose(result, expected, atol=5e-5)
