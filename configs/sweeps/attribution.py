"""What makes the difference: loss, weights, clipping, thresholds; and further rivals.

python -m experiments.reproduce --sweep=configs/sweeps/attribution.py
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    # Those that weightings.py has as well are the same runs.
    methods = {
        **common.CONSTANT,
        **common.DWA,
        **common.ATTRIBUTION,
        **common.GRAMIAN,
        **common.STRATIFIERS,
        **common.IMBALANCE_LOSSES,
        **common.REPRESENTATION,
    }
    return dict(
        title="What makes the difference",
        question="Is what DWA changes due to the loss, the weights or their way there, or to "
        "clipping? Do DAS's thresholds beat other ones, and do Gramian methods or the losses of "
        "the imbalance literature do better?",
        methods=methods,
        datasets=common.DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.SHORT,
        candidates=common.candidates(methods),
        shared=common.TRUNK_RATES,
        tuning_seeds=common.TUNING_SEEDS,
        ends_of={common.AT_DWAS_END: "dwa (paper)"},
        curves=True,
    )
