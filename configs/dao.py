"""The precursor: Twitter-RoBERTa-large, LoRA of rank 128, manual thresholds.

python -m experiments.main --config=configs/dao.py
"""

from configs import twitter_roberta_large_dwa_lora


def get_config():
    """Returns the configuration."""
    config = twitter_roberta_large_dwa_lora.get_config()
    config.stratifier = "manual(thresholds=(-0.6, -0.2, 0.2, 0.6))"
    return config
