"""B6: Qwen2-0.5B, both tasks under DWA, all of it trained.

python -m experiments.main --config=configs/qwen_dwa.py
"""

from configs import base


def get_config():
    """Returns the configuration."""
    config = base.get_config()
    config.backbone = "Qwen/Qwen2-0.5B"
    config.dtype = "bfloat16"
    config.learning_rate = 1e-5
    # A decoder's vectors are long, and its heads have nothing that bounds them.
    config.head_learning_rate = 1e-4
    config.epochs = 10
    return config
