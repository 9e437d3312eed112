"""One text of megabytes among others: training, predicting and word importance stay small.

MEGABYTES=50 pytest -n0 -s tests/experiments/test_one_long_text.py
"""

import json
import os
import resource
import time

import pytest

from configs import base
from dwa_jax.finetune import occlusion, saved
from dwa_jax.finetune.predictor import Predictor
from experiments import predict
from tests import runs

pytestmark = pytest.mark.slow

KIBIBYTES = 2**20
WORDS = "EUR/USD jumps after ECB "


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def table(path, first):
    texts = [first, *(f"text {i} slips against the dollar" for i in range(59))]
    rows = [{"text": text, "score": (i % 21) / 10 - 1} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def train(folder, first):
    folder.mkdir()
    table(folder / "texts.jsonl", first)
    config = base.get_config()
    config.update(
        {"train": str(folder / "texts.jsonl"), "epochs": 1, "batch_size": 16, "eval_batch_size": 8}
        | {"max_buckets": 1, "max_length": 32, "stratifier": "equal_width", "dropout": False}
        | {"gradient_scope": "representation"}
    )
    config.scratch.update({"vocab_size": 300, "width": 8, "layers": 1, "heads": 2})
    config.scratch.feed_forward = 16
    runs.run(config, folder / "run")
    return folder / "run"


def test_one_long_text_costs_little(tmp_path, capsys):
    megabytes = int(os.environ.get("MEGABYTES", "10"))
    long = WORDS * (megabytes * 10**6 // len(WORDS))
    train(tmp_path / "short", WORDS)
    begun = peak()
    run = train(tmp_path / "long", long)
    trained = peak()
    assert trained - begun < KIBIBYTES, "train"
    options = ["--workdir", str(run), "--input", str(tmp_path / "long" / "texts.jsonl")]
    predict.predict(predict.parse([*options, "--output", str(tmp_path / "out.jsonl")]))
    assert peak() - trained < KIBIBYTES, "predict"
    assert "note: 1 texts cut to 32 tokens" in capsys.readouterr().err
    assert "1 texts (" in json.dumps(saved.load(run).summary["notes"])
    model, started, before = Predictor(saved.load(run)), time.perf_counter(), peak()
    short, same = (WORDS * 40).strip(), WORDS * 8000  # 192 kB
    found = [occlusion.explain(model, [text], model.predict([text]))[0] for text in (short, same)]
    assert found[0] == found[1] and len(found[0]) == 32
    assert peak() - before < KIBIBYTES / 4, "word importance"
    assert time.perf_counter() - started < 20
    print(f"train {trained - begun} KiB more, predict {peak() - trained} KiB")
