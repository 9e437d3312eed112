"""The papers' figure 2: training scores, test scores, predictions, and the three together.

python -m experiments.reproduce --figure=2
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    return dict(
        title="Figure 2: distributions of scores",
        question="Do predictions crowd where the training scores do?",
        methods={**common.SINGLE_TASK, **common.DWA},
        datasets=common.MORE_DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS[:1],
        settings=common.SHORT,
        streams=common.AMAZON,
        papers="figure 2",
    )
