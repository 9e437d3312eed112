"""The papers' table 3, read as: DWA beside other ways of weighting.

python -m experiments.reproduce --table=3
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    return dict(
        title="Table 3: ways of weighting",
        question="Does DWA beat constant weights, GradNorm and uncertainty weighting?",
        methods={**common.CONSTANT, **common.EQUAL, **common.RIVALS, **common.DWA},
        datasets=common.DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.SHORT,
        curves=True,
    )
