"""Every way of weighting, every stratifier and the imbalance losses, on two datasets.

python -m experiments.reproduce --sweep=configs/sweeps/weightings.py
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    return dict(
        title="Weighting, stratification and imbalance",
        question="Does DWA beat constant weights and its rivals, do DAS's thresholds beat other "
        "ones, and does either beat what the imbalance literature would use?",
        methods={
            **common.CONSTANT,
            **common.EQUAL,
            **common.SINGLE_TASK,
            **common.ADAPTIVE,
            **common.DWA,
            **common.STABLE,
            **common.RIVALS,
            **common.STRATIFIERS,
            **common.IMBALANCE_LOSSES,
        },
        datasets=common.DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.SHORT,
        curves=True,
    )
