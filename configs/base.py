"""The defaults of every key; `dwa_jax/finetune/config.py` has their meanings and ranges.

python -m experiments.main --help --config=configs/base.py
"""

from ml_collections import ConfigDict

from dwa_jax.finetune.config import Config


def get_config() -> ConfigDict:
    """Returns the defaults; the other configurations start from them and change what differs."""
    return ConfigDict(Config().to_dict()).lock()
