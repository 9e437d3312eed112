"""A stream whose class balance drifts: mostly negative texts first, positive ones last.

python -m experiments.reproduce --sweep=configs/sweeps/drift.py
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    return dict(
        title="A stream whose class balance drifts",
        question="One pass over texts that turn from negative to positive: do weights that follow "
        "the batch keep the classes that came first?",
        methods={**common.CONSTANT, **common.DWA, **common.STABLE},
        datasets={
            "vader_tweets as a stream": {
                "train": "{streams}/{seed}/train.csv",
                "validation": "{streams}/{seed}/validation.csv",
                "test": "{streams}/{seed}/test.csv",
            }
        },
        streams={"source": "{data}/vader_tweets.csv", "max_rows": 2000},
        backbones=common.MINILM,
        seeds=common.SEEDS[:3],
        settings={**common.SHORT, "epochs": 1, "shuffle": False},
        curves=True,
    )
