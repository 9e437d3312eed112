"""B8: TinyLlama-1.1B, DWA, LoRA of rank 128.

python -m experiments.main --config=configs/tinyllama.py
"""

from configs import tinyllama_dwa


def get_config():
    """Returns the configuration."""
    config = tinyllama_dwa.get_config()
    config.lora_rank = 128
    config.learning_rate = 1e-4
    return config
