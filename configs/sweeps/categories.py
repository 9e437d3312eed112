"""How many categories there are.

python -m experiments.reproduce --sweep=configs/sweeps/categories.py
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    sizes = (3, 5, 7, 9)
    return dict(
        title="The number of categories",
        question="How does the number of categories change the error of the score?",
        methods={f"{size} categories": {"weighting": "dwa", "num_classes": size} for size in sizes},
        axis=("categories", {f"{size} categories": size for size in sizes}),
        baseline="5 categories",
        datasets=common.DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.SHORT,
    )
