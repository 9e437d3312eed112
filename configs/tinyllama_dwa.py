"""B5: TinyLlama-1.1B, both tasks under DWA, all of it trained.

python -m experiments.main --config=configs/tinyllama_dwa.py

On 24 GiB: --config.batch_size=5 --config.remat=True, with XLA_PYTHON_CLIENT_MEM_FRACTION=0.9
(18.6 GiB by XLA's compiler, see docs/gpu.md).
"""

from configs import base


def get_config():
    """Returns the configuration."""
    config = base.get_config()
    config.backbone = "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"
    config.dtype = "bfloat16"
    config.learning_rate = 1e-5
    # A decoder's vectors are long, and its heads have nothing that bounds them.
    config.head_learning_rate = 1e-4
    config.epochs = 10
    return config
