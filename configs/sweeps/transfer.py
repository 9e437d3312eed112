"""Training on one dataset and testing on the other.

python -m experiments.reproduce --sweep=configs/sweeps/transfer.py
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    other = {"semeval_headlines": "vader_tweets", "vader_tweets": "semeval_headlines"}
    return dict(
        title="Trained on one dataset, tested on the other",
        question="Do adaptive weights learn something that carries over to texts of another kind?",
        methods={**common.CONSTANT, **common.DWA},
        datasets={
            name: {**keys, "also_test": f"{{data}}/{other[name]}.csv"}
            for name, keys in common.DATASETS.items()
        },
        backbones=common.MINILM,
        seeds=common.SEEDS[:3],
        settings=common.SHORT,
    )
