"""A day with a GPU loses nothing of what was measured, whatever fails or takes too long."""

import json
import subprocess

import pytest

from experiments.benchmarks import day_parts, device_day, ours, shapes, worker


def test_each_part_is_written_as_it_ends_and_failures_with_their_reasons(
    monkeypatch, tmp_path, capsys
):
    output, limits = tmp_path / "day.json", []

    def measure(request, environment, seconds):
        limits.append(seconds)
        assert environment["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
        # What came before is there already.
        if request["kind"] != "first":
            assert "first" in json.loads(output.read_text())["parts"]
        if request["kind"] == "slow":
            raise subprocess.TimeoutExpired("worker", seconds)
        if request["kind"] == "broken":
            raise ValueError("memory of gpt failed: out of memory\nat line 3")
        return {"ms": 12.345678}

    monkeypatch.setattr(worker, "measure", measure)
    chosen = [
        device_day.Part(kind, {"kind": kind}, limit)
        for kind, limit in (("first", 5), ("slow", 7), ("broken", 1000))
    ]
    found = device_day.run_parts(chosen, output, 100)["parts"]
    assert found["first"]["ms"] == 12.345678
    assert found["slow"]["not_measured"] == "took more than 7 s"
    assert found["broken"]["not_measured"] == "memory of gpt failed: out of memory at line 3"
    assert limits[:2] == [5, 7] and 0 < limits[2] <= 100
    assert json.loads(output.read_text())["parts"] == found
    assert "first: ms 12.35" in capsys.readouterr().out


def test_what_is_left_when_the_time_is_over_is_not_begun(monkeypatch, tmp_path):
    monkeypatch.setattr(worker, "measure", lambda *_, **__: pytest.fail("begun"))
    part = device_day.Part("late", {"kind": "late"}, 5)
    found = device_day.run_parts([part], tmp_path / "day.json", 0)
    assert found["parts"]["late"]["not_measured"] == "no time was left"


@pytest.mark.parametrize("tiny", [False, True])
def test_every_part_can_be_asked_for(tiny):
    found = device_day.parts(tiny)
    assert len({part.name for part in found}) == len(found) >= 15
    for part in found:
        request = dict(part.request)
        assert request.pop("kind") in day_parts.KINDS
        if "shape" in request:
            assert request["shape"] in shapes.names()
        if "method" in request:
            assert request["method"] in ours.METHODS or request["method"].startswith("PyTorch ")
    # The comparison that decides comes first.
    assert [part.name for part in found[:3:2]] == [
        "ours, DWA over trainable",
        "PyTorch, DWA, three passes",
    ]
