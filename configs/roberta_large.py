"""B1: RoBERTa-large, the regression task alone.

python -m experiments.main --config=configs/roberta_large.py
"""

from configs import base


def get_config():
    """Returns the configuration."""
    config = base.get_config()
    config.backbone = "FacebookAI/roberta-large"
    config.dtype = "bfloat16"
    config.learning_rate = 1e-5
    config.epochs = 10
    config.tasks = ("regression",)
    config.weighting = "single_task"
    return config
