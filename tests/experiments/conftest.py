"""One finished run for the tests of what is done with it."""

import time

import pytest

from configs import base
from experiments import main
from experiments.terminal.console import Console


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The folder of a RoBERTa from scratch with LoRA, whose frozen trunk nobody else has."""
    config = base.get_config()
    config.update(
        {"generated_rows": 120, "epochs": 2, "batch_size": 16, "eval_batch_size": 8}
        | {"max_buckets": 1, "max_length": 32, "lora_rank": 2, "learning_rate": 1e-2}
        | {"warmup_steps": 1, "log_every": 2}
        | {"gradient_scope": "representation", "dropout": False}  # quick to compile
    )
    config.scratch.update({"vocab_size": 300, "width": 16, "layers": 1, "heads": 2})
    config.scratch.feed_forward = 32
    folder = tmp_path_factory.mktemp("finished") / "run"

    def draw(place, *rest):
        place.mkdir()
        (place / "weights.png").write_bytes(b"a picture")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main.plots, "draw_run", draw)  # which takes seconds
        main.run(config, folder, Console(), time.perf_counter())
    return folder
