"""What a run costs, and comes to, by where gradients are compared.

python -m experiments.reproduce --sweep=configs/sweeps/scopes.py
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    return dict(
        title="Where gradients are compared",
        question="Seconds, memory and error of a run by where the tasks' gradients are compared.",
        methods={
            **common.CONSTANT,
            **common.DWA,
            **common.REPRESENTATION,
            "dwa, last layer": {"weighting": "dwa", "gradient_scope": "last_layer"},
        },
        datasets=common.DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.SHORT,
    )
