"""The papers' table 2: constant weights against DWA, per backbone and dataset.

python -m experiments.reproduce --table=2
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    return dict(
        title="Table 2: constant weights against DWA",
        question="How far does DWA lower the error, and what does it cost, on each backbone and "
        "dataset, all of the trunk trained?",
        methods={**common.CONSTANT, **common.DWA},
        datasets=common.DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.FULL,
        papers="table 2",
        papers_rows=common.TABLE2_ROWS,
    )
