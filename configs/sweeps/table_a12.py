"""The papers' table A12, read as: the number of categories.

python -m experiments.reproduce --table=a12
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    sizes = (3, 5, 7, 9)
    return dict(
        title="Table A12: the number of categories",
        question="How does the number of categories change the error of the score?",
        methods={f"{size} categories": {"weighting": "dwa", "num_classes": size} for size in sizes},
        axis=("categories", {f"{size} categories": size for size in sizes}),
        baseline="5 categories",
        datasets=common.DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.SHORT,
    )
