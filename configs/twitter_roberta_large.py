"""B2: Twitter-RoBERTa-large, the regression task alone.

python -m experiments.main --config=configs/twitter_roberta_large.py
"""

from configs import base


def get_config():
    """Returns the configuration."""
    config = base.get_config()
    config.backbone = "cardiffnlp/twitter-roberta-large-2022-154m"
    config.normalize_tweets = True
    config.dtype = "bfloat16"
    config.learning_rate = 1e-5
    config.epochs = 10
    config.tasks = ("regression",)
    config.weighting = "single_task"
    return config
