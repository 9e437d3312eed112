"""A configuration with a weighting, a loss, a stratifier and a backbone of one's own.

PYTHONPATH=docs/examples python -m experiments.main --config=docs/examples/all_of_my_own.py
"""

# A configuration is a program: what it imports is registered before anything is looked up.
import gpt2  # noqa: F401
import ordinal  # noqa: F401
import slaw  # noqa: F401
import symmetric  # noqa: F401

from configs import base


def get_config():
    """Returns the configuration."""
    config = base.get_config()
    config.backbone = "openai-community/gpt2"
    config.weighting = "slaw(decay=0.95)"
    config.classification_loss = "earth_mover"
    config.stratifier = "symmetric"
    # Query, key and value are one matrix here, which the default targets do not name.
    config.lora_rank = 16
    config.lora_targets = (r"attention/(qkv|output)/kernel", r"mlp/(up|down)/kernel")
    config.learning_rate = 2e-4
    config.epochs = 3
    return config
