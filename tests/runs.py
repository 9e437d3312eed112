"""Runs as the main program makes them, without its flags."""

from pathlib import Path

from dwa_jax.finetune import interrupts
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.run import finish
from experiments.terminal.console import Terminal


def run(config, folder: Path) -> dict:
    """Trains, with signals heard, and returns the summary."""
    config = Config.of(config)
    return finish(config, folder, listener=Terminal(), listen=interrupts.listen).summary
