"""B5: TinyLlama-1.1B, both tasks under DWA, all of it trained.

python -m experiments.main --config=configs/tinyllama_dwa.py
"""

from configs import base


def get_config():
    """Returns the configuration."""
    config = base.get_config()
    config.backbone = "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"
    config.dtype = "bfloat16"
    config.learning_rate = 1e-5
    config.epochs = 10
    return config
