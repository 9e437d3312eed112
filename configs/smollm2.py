"""SmolLM2-135M-Instruct with DWA and LoRA of rank 16: a real Llama that two CPU cores train.

python -m experiments.main --config=configs/smollm2.py
"""

from configs import tinyllama


def get_config():
    """Returns the configuration."""
    config = tinyllama.get_config()
    config.backbone = "HuggingFaceTB/SmolLM2-135M-Instruct"
    # CPUs compute in it, and its weights take half a gigabyte.
    config.dtype = "float32"
    config.lora_rank = 16
    return config
