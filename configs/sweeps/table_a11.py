"""The papers' table A.11: RoBERTa against Twitter-RoBERTa, the regression alone (B1, B2).

python -m experiments.reproduce --table=a11
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    return dict(
        title="Table A.11: the choice of the model",
        question="Is a model that was trained on tweets the better start for the score alone?",
        methods={"regression alone": {}},
        datasets=common.DATASETS,
        backbones={
            "RoBERTa-large": "configs/roberta_large.py",
            "Twitter-RoBERTa-large": "configs/twitter_roberta_large.py",
        },
        seeds=common.SEEDS,
        papers="table a11",
    )
