"""B3: Twitter-RoBERTa-large, both tasks at constant weights (.75 and .25).

python -m experiments.main --config=configs/twitter_roberta_large_constant.py
"""

from configs import twitter_roberta_large


def get_config():
    """Returns the configuration."""
    config = twitter_roberta_large.get_config()
    config.tasks = ("regression", "classification")
    config.weighting = "constant(weights=(0.75, 0.25))"
    config.classification_loss = "cross_entropy"
    return config
