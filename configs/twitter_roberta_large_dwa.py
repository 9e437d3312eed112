"""B4: Twitter-RoBERTa-large, both tasks under DWA.

python -m experiments.main --config=configs/twitter_roberta_large_dwa.py
"""

from configs import twitter_roberta_large


def get_config():
    """Returns the configuration."""
    config = twitter_roberta_large.get_config()
    config.tasks = ("regression", "classification")
    config.weighting = "dwa"
    return config
