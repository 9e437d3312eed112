"""One finished run for the tests of what is done with it."""

import pytest

from configs import base
from dwa_jax.finetune import plots
from tests import runs


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The folder of a RoBERTa from scratch with LoRA, whose frozen trunk nobody else has."""
    config = base.get_config()
    config.update(
        {"generated_rows": 120, "epochs": 2, "batch_size": 16, "eval_batch_size": 8}
        | {"max_buckets": 1, "max_length": 32, "lora_rank": 2, "learning_rate": 1e-2}
        | {"warmup_steps": 1, "log_every": 2, "keep_checkpoints": True}
        | {"gradient_scope": "representation", "dropout": False}  # quick to compile
    )
    config.scratch.update({"vocab_size": 300, "width": 16, "layers": 1, "heads": 2})
    config.scratch.feed_forward = 32
    folder = tmp_path_factory.mktemp("finished") / "run"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "save", lambda figures, place: None)  # which takes seconds
        runs.run(config, folder)
    return folder
