"""All-MiniLM-L6-v2 (22M parameters), all of it trained: small enough for a laptop's CPU.

python -m experiments.main --config=configs/minilm.py
"""

from configs import base


def get_config():
    """Returns the configuration."""
    config = base.get_config()
    config.backbone = "sentence-transformers/all-MiniLM-L6-v2"
    config.pooling = "mean"
    config.epochs = 8
    config.learning_rate = 1e-4
    return config
