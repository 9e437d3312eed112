"""The benchmark of the server: its clients, and that both ways are asked for the same texts."""

import json

import pytest

from experiments.benchmarks import served
from experiments.benchmarks.clients import ask_all, request_of
from tests.costless import Costless, score_of
from tests.experiments.served import serving

pytestmark = pytest.mark.slow


def test_clients_have_every_answer_in_its_place_and_time():
    texts = [f"text {i} {'and more ' * (i % 7)}" for i in range(40)]
    with serving(Costless()) as there:
        found = ask_all(there.port, list(map(request_of, texts)), 5)
        assert there.batcher.waiting == 0
    scores = [json.loads(body)["predictions"][0]["score"] for body in found.bodies]
    assert scores == pytest.approx(list(map(score_of, texts)), abs=1e-7)
    assert all(0 < seconds <= found.seconds for seconds in found.waited)
    # Five at a time, each of which waits for its answer.
    assert sum(found.waited) <= 5 * found.seconds


def test_a_refused_request_ends_the_timing():
    with serving(Costless()) as there, pytest.raises(ValueError, match="was answered .* 422"):
        ask_all(there.port, [request_of("?")], 1)


def test_both_ways_are_timed_in_each_round(finished_run, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("the pound falls\nyen\nEUR/USD jumps after ECB\n" * 2, "utf-8")
    options = [f"--workdir={finished_run}", f"--input={path}", "--batch_size=1"]
    told = []
    found = served.time_both(served.parse([*options, "--rounds=2", "--clients=2"]), told.append)
    assert found["texts"] == 6 and found["rounds"] == told and len(told) == 2
    for one, ratio in zip(told, found["ratios"], strict=True):
        assert ratio == pytest.approx(one["server"]["rate"] / one["predict"]["rate"])
        assert one["server"]["ms"][50] <= one["server"]["ms"][99]
        # As many rows as there are devices, of which tests have two.
        assert 1 <= one["server"]["texts_a_batch"] <= 2
