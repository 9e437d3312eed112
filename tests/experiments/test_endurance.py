"""The endurance program over a few hundred steps; thousands are run by hand."""

import numpy as np
import pytest

from experiments import endurance

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("preset", "floor"), [("paper", 0.0), ("stable", 0.1)])
def test_everything_stays_finite_and_inside_its_bounds(preset, floor):
    result = endurance.endure(preset, "", 250)
    assert result["violations"] == [] and result["skipped"] == 0
    assert result["losses"][1] < 0.7 * result["losses"][0]
    ranges = result["ranges"]
    # alpha starts at 0.1 and reaches its bound within 250 updates of 1e-3; w has left 1/2.
    assert ranges["alpha"][0] == 0 and ranges["lambda_regression"][0] > 0
    assert floor <= ranges["weight_classification"][0] < 0.5


def test_what_leaves_its_bounds_is_named():
    ranges = {
        "alpha": [-0.5, 0.1],
        "weight_regression": [0.05, 0.9],
        "lambda_regression": [0.0, 1.0],
        "loss_imbalance": [np.nan, 1.0],
        "learning_rate": [0.0, 1e-3],
    }
    found = endurance.violations(ranges, 0.1)
    assert found == [
        "alpha in [-0.5, 0.1], outside [0, 2]",
        "weight_regression in [0.05, 0.9], outside [0.1, 0.9]",
        "loss_imbalance was not finite",
    ]
