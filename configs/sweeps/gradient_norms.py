"""What the way to the gradients' norms does to a run: exact, sketched, and by whole gradients.

python -m experiments.reproduce --sweep=configs/sweeps/gradient_norms.py
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    return dict(
        title="Ways to the gradients' norms",
        question="Is a run the same when DWA's norms are sketched, or taken from whole gradients?",
        methods={
            "exact": {"weighting": "dwa", "gradient_norms": "exact"},
            "sketch": {"weighting": "dwa", "gradient_norms": "sketch"},
            "trees": {"weighting": "dwa", "gradient_norms": "trees"},
        },
        datasets=common.DATASETS,
        backbones=common.MINILM,
        seeds=tuple(range(10)),
        settings=common.SHORT,
    )
