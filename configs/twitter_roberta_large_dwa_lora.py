"""B7: Twitter-RoBERTa-large, DWA, LoRA of rank 128.

python -m experiments.main --config=configs/twitter_roberta_large_dwa_lora.py
"""

from configs import twitter_roberta_large_dwa


def get_config():
    """Returns the configuration."""
    config = twitter_roberta_large_dwa.get_config()
    config.lora_rank = 128
    config.learning_rate = 1e-4
    return config
