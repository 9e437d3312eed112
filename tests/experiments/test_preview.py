"""What a run would work on is told without a run."""

import re

import numpy as np
import pytest

from configs import base
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import read_corpus
from experiments.terminal import preview
from experiments.terminal.console import Terminal


def test_every_length_is_in_one_row_of_the_histogram():
    lengths = np.array([3, 3, 4, 9, 9, 9, 17])
    rows = preview.length_histogram(lengths)
    summary = rows.pop("median, 95 %, longest")
    counts = [int(text.split()[-1]) for text in rows.values()]
    assert sum(counts) == len(lengths)
    for name, count in zip(rows, counts, strict=True):
        low, _, high = name.partition(" to ")
        inside = (lengths >= int(low)) & (lengths <= int(high or low))
        assert inside.sum() == count
    assert summary == "9, 15, 17"


def test_texts_of_one_length_have_one_row():
    rows = preview.length_histogram(np.full(5, 7))
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


def test_a_file_that_nobody_described_is_guessed_shown_and_made_a_command(
    tmp_path, monkeypatch, capsys
):
    texts = [f"text {i} é" for i in range(60)]
    words = ("Negative", "neutral", "POSITIVE")
    lines = [f"{i};{text};{words[i % 3]}" for i, text in enumerate(texts)]
    path = tmp_path / "tweets.csv"
    path.write_bytes("\n".join(["id;tweet;airline_sentiment", *lines]).encode("cp1252"))
    shape = {"vocab_size": 300, "width": 16, "layers": 1, "heads": 2}
    config = Config(train=str(path), scratch=shape, gradient_scope="representation")
    arguments = ["--config=configs/demo.py", f"--config.train={path}", "--dry_run"]
    preview.preview(config, Terminal(), arguments)
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        f"to train: python -m experiments.main --config=configs/demo.py --config.train={path} "
        "--config.encoding=cp1252 '--config.delimiter=;' --config.text_column=tweet "
        "--config.score_column=airline_sentiment "
        "--config.labels=negative=-1,neutral=0,positive=1 --config.num_classes=3"
    ) in printed
    for row, (text, score) in enumerate(zip(texts[:3], (-1, 0, 1), strict=True), start=2):
        assert f"row {row} '{text}', score {score}, category {score + 1}" in printed
    assert "60 rows" not in printed and "48 rows; by class 16, 16, 16" in printed
    # What is said stays as it is said.
    config = Config.of(config, num_classes=2, stratifier="manual(thresholds=(0.5,))")
    found = preview.preview(config, Terminal(), [*arguments, "--config.num_classes=2"])
    assert found.num_classes == 2
    assert "--config.num_classes=3" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"monitor": "nonsense"}, "monitor='nonsense' is not one of"),
        ({"weighting": "dwa(florr=1)"}, "weighting"),
        ({"writers": "paper"}, "paper"),
    ],
)
def test_it_refuses_what_the_run_would(keys, message):
    with pytest.raises(ValueError, match=message):
        preview.preview(Config(generated_rows=60, **keys), Terminal())
