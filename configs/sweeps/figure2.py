"""The papers' figure 2, read as: the scores and where each stratifier cuts them.

python -m experiments.reproduce --figure=2
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    return dict(
        title="Figure 2: scores and thresholds",
        question="Where do DAS and its rivals cut the training scores?",
        methods={**common.DWA, **common.STRATIFIERS},
        datasets=common.DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS[:1],
        settings=common.SHORT,
    )
