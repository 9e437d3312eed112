"""The papers' table 4, read as: DAS beside other thresholds.

python -m experiments.reproduce --table=4
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    return dict(
        title="Table 4: ways of setting thresholds",
        question="Do DAS's thresholds serve better than manual ones? Labels differ from row "
        "to row: compare errors of the score, and accuracy under the common labelling only.",
        methods={**common.DWA, **common.STRATIFIERS},
        datasets=common.DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.SHORT,
    )
