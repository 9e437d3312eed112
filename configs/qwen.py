"""B9: Qwen2-0.5B with DAS, DWA and LoRA of rank 128.

python -m experiments.main --config=configs/qwen.py
"""

from configs import qwen_dwa


def get_config():
    """Returns the configuration."""
    config = qwen_dwa.get_config()
    config.lora_rank = 128
    config.learning_rate = 1e-4
    return config
