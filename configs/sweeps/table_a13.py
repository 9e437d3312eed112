"""The papers' table A13, read as: what a run costs with each way of weighting.

python -m experiments.reproduce --table=a13
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    return dict(
        title="Table A13: what weighting costs",
        question="Seconds and memory of a run by weighting and by where gradients are compared.",
        methods={
            **common.CONSTANT,
            **common.DWA,
            "dwa, representation": {"weighting": "dwa", "gradient_scope": "representation"},
            "dwa, last layer": {"weighting": "dwa", "gradient_scope": "last_layer"},
        },
        datasets=common.DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.SHORT,
    )
