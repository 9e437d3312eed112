"""A small RoBERTa from scratch on generated FX headlines: no download, minutes on a laptop.

python -m experiments.main --config=configs/demo.py
"""

from configs import base


def get_config():
    """Returns the configuration."""
    config = base.get_config()
    config.generated_rows = 6000
    config.epochs = 10
    config.batch_size = 32
    config.eval_batch_size = 64
    config.learning_rate = 1e-3
    # Nothing to forget: the weights are fresh.
    config.dropout = False
    config.max_length = 64
    config.max_buckets = 3
    return config
