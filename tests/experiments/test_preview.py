"""What a run would work on is told without a run."""

import re

import numpy as np

from configs import base
from dwa_jax.finetune.corpus import read_corpus
from experiments.terminal import preview
from experiments.terminal.console import Terminal


def test_every_length_is_in_one_row_of_the_histogram():
    lengths = np.array([3, 3, 4, 9, 9, 9, 17])
    rows = preview.histogram(lengths)
    summary = rows.pop("median, 95 %, longest")
    counts = [int(text.split()[-1]) for text in rows.values()]
    assert sum(counts) == len(lengths)
    for name, count in zip(rows, counts, strict=True):
        low, _, high = name.partition(" to ")
        inside = (lengths >= int(low)) & (lengths <= int(high or low))
        assert inside.sum() == count
    assert summary == "9, 15, 17"


def test_texts_of_one_length_have_one_row():
    rows = preview.histogram(np.full(5, 7))
    assert rows["7"] == "#" * 40 + " 5"


def test_it_prints_what_the_run_will_see_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = base.get_config()
    config.generated_rows, config.max_buckets, config.batch_size = 120, 2, 16
    config.scratch.update({"vocab_size": 300, "width": 16, "layers": 1, "heads": 2})
    preview.preview(config, Terminal())
    printed = capsys.readouterr().out
    corpus = read_corpus(config)
    train = corpus.categories["train"]
    counts = ", ".join(map(str, np.bincount(train, minlength=5)))
    assert f"{len(train)} rows; by class {counts}" in printed
    assert re.search(r"6 of 16 rows; 60 in all", printed)
    assert re.search(r"real of [0-9,]+ computed: \d+% padding", printed)
    assert "export" not in printed
    assert not list(tmp_path.iterdir())
