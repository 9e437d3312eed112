"""The papers' table A.13: GradNorm and uncertainty weighting against DWA.

python -m experiments.reproduce --table=a13
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    methods = {**common.DWA, **common.RIVALS}
    return dict(
        title="Table A.13: ways of weighting",
        question="Is DWA better than GradNorm and uncertainty weighting, each at the learning rate "
        "that the validation split chooses?",
        methods=methods,
        datasets=common.DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.SHORT,
        candidates=common.candidates(methods),
        shared=common.TRUNK_RATES,
        tuning_seeds=common.TUNING_SEEDS,
        curves=True,
        papers="table a13",
    )
