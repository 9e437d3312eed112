"""The ways of weighting on four datasets.

python -m experiments.reproduce --sweep=configs/sweeps/weightings.py
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    methods = {
        **common.CONSTANT,
        **common.EQUAL,
        **common.SINGLE_TASK,
        **common.ADAPTIVE,
        **common.DWA,
        **common.STABLE,
        **common.OTHER_LOSS,
        **common.RIVALS,
    }
    return dict(
        title="Ways of weighting",
        question="Does DWA beat constant weights and its rivals, each at the learning rate that "
        "the validation split chooses, and is it the weights or the loss?",
        methods=methods,
        datasets=common.MORE_DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.SHORT,
        streams=common.AMAZON,
        candidates=common.candidates(methods),
        shared=common.TRUNK_RATES,
        tuning_seeds=common.TUNING_SEEDS,
        curves=True,
        papers_rows=common.TABLE2_ROWS,
    )
