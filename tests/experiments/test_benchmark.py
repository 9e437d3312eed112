"""The benchmark times what it says: the peers take our step, and costs are counted right."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from dwa_jax.finetune.setup import make_setup
from experiments import benchmark
from experiments.benchmarks import (
    accounts,
    cost,
    ours,
    padding,
    peers,
    picture,
    shapes,
    spread,
    suites,
    timing,
    worker,
)

pytestmark = pytest.mark.slow

TINY = {
    "model_type": "qwen2",
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(shapes._SHAPES, "tiny", TINY)
    monkeypatch.setitem(shapes._SHAPES, "tiny-roberta", shapes._roberta(50, 16, 1, 2, 16))


@pytest.mark.parametrize(("shape", "rank"), [("tiny-roberta", 0), ("tiny", 2)])
def test_pytorch_takes_the_same_steps_as_we_do(shape, rank):
    model, batch = ours.make_model(shape, rank), ours.make_batch(shape, 4, 6)
    for method, names in (("constant", peers.METHODS[:1]), ("dwa trainable", peers.METHODS[1:])):
        runner = ours.Runner(model, ours.METHODS[method], batch)
        theirs = [peers.Peer(model, runner.state, batch, name) for name in names]
        for _ in range(4):
            runner.run()
            here = [float(runner.metrics[f"loss_{name}"]) for name in ("regression", "imbalance")]
            for peer in theirs:
                peer.run()
                np.testing.assert_allclose(peer.losses, here, rtol=2e-5)
        assert here[1] < float(np.log(5)) * 3 and np.isfinite(here).all()


def test_a_comparison_has_ratios_spreads_and_what_did_not_work():
    row = suites.Row("tiny", 2, 4, 6)
    said = []
    result = suites.compare_contenders(
        row,
        ("constant", "dwa trainable"),
        [("constant", "eager"), ("absent", "eager")],
        3,
        1e9,
        said.append,
    )
    found = result["contenders"]
    assert list(found) == ["constant", "dwa trainable", "PyTorch constant"]
    assert found["constant"]["ratio"] == 1
    for values in found.values():
        assert 0 < values["low_ms"] <= values["ms"] <= values["high_ms"]
    assert said == ["PyTorch absent: not measured, KeyError: 'absent'"]


def test_contenders_run_alone_as_many_as_memory_holds(monkeypatch):
    row = suites.Row("qwen2-tiny", 0, 2, 4)
    asked, said = [], []
    monkeypatch.setattr(accounts, "free_bytes", lambda: asked.append(0) or 2**33)
    peers_ = [("constant", "eager"), ("absent", "eager")]
    result = suites.compare_contenders(
        row, ("constant", "dwa trainable"), peers_, 2, 1e9, said.append, alone=True
    )
    found = result["contenders"]
    assert list(found) == ["constant", "dwa trainable", "PyTorch constant"] and asked
    assert found["constant"]["ratio"] == 1 and found["dwa trainable"]["utilisation"] > 0
    assert said == ["PyTorch absent: not measured, KeyError: 'absent'"]
    monkeypatch.setattr(accounts, "free_bytes", lambda: 2**32)
    assert suites._that_fit(row, ["a", "b", "c"]) == [["a"], ["b"], ["c"]]
    monkeypatch.setattr(accounts, "free_bytes", lambda: None)
    assert suites._that_fit(row, ["a", "b", "c"]) == [["a", "b", "c"]]


def test_rounds_in_which_others_compute_are_thrown_away(monkeypatch):
    judge = accounts.Neighbours(2, [])
    # Seconds that others computed, and of the clock: a core is .5 of two.
    readings = iter([(0, 0), (0.1, 10), (1, 20), (5, 30), (5, 40), (9, 50)] + [(9, 60)] * 20)
    monkeypatch.setattr(accounts.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(judge, "_read", lambda: next(readings))
    judge.known, counts = True, []
    for _ in range(3):
        judge.begin()
        counts.append(judge.end())
    assert counts == [True, False, False] and judge.thrown_away == 2
    # Where none is quiet, rounds count all the same, and it says how many.
    busy = iter([(second, second) for second in range(40)])
    monkeypatch.setattr(judge, "_read", lambda: next(busy))
    found = timing.interleave({"": timing.Contender(lambda: None)}, 2, neighbours=judge)
    assert found[""]["ms"] >= 0
    assert judge.thrown_away == 6 and judge.counted_busy == 2


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="this system keeps no such accounts")
def test_a_neighbours_work_is_seen_and_ones_own_is_known():
    tick = os.sysconf("SC_CLK_TCK")
    before = accounts._used(os.getpid(), tick)
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    assert accounts._used(os.getpid(), tick) - before >= 0.25
    judge = accounts.Neighbours(1, [])
    before, _ = judge._read()
    line = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", line], check=True)
    assert judge._read()[0] - before > 0.4


def test_a_round_divides_by_the_base_of_the_same_round(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    # The machine slows down from call to call; the ratio does not.
    calls = {"slow": 0, "fast": 0}

    def spend(name, seconds):
        def run():
            calls[name] += 1
            now[0] += seconds * calls[name]

        return run

    contenders = {
        "fast": timing.Contender(spend("fast", 1.0)),
        "slow": timing.Contender(spend("slow", 3.0)),
    }
    found = timing.interleave(contenders, 5)
    assert found["slow"]["ratio"] == 3 and found["fast"]["ms"] == 3000
    assert found["slow"]["low_ms"] == 6000 and found["slow"]["high_ms"] == 12000


@pytest.mark.parametrize("rank", [0, 4, 30])
def test_operations_are_counted_as_xla_counts_them(monkeypatch, rank):
    wide = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 3}
    monkeypatch.setitem(shapes._SHAPES, "wide", {**TINY, **wide})
    model, batch = ours.make_model("wide", rank), ours.make_batch("wide", 8, 16)
    counted, expected = [], []
    for name in ("constant", "dwa trainable"):
        # Unrolled, because XLA counts a loop's body once.
        state, step = ours.setup(model, ours.METHODS[name], unroll=3)
        counted.append(step.lower(state, batch).compile().cost_analysis()["flops"])
        expected.append(cost.step_flops(model, ours.METHODS[name], 8, 16))
        # With dropout the factors' products are those that need no merged matrix.
        more = cost.step_flops(model, ours.METHODS[name], 8, 16, dropout=True)
        assert more >= expected[-1] and (more > expected[-1]) == (rank > 0)
    # The rest of XLA's are norms, softmax, rotations and the optimizer, most of them once.
    assert 0.7 < expected[0] / counted[0] < 1
    assert 0.85 < (expected[1] - expected[0]) / (counted[1] - counted[0]) < 1


def test_passes_follow_the_scope():
    passes = {name: cost.backward_passes(method) for name, method in ours.METHODS.items()}
    assert passes["constant"] == passes["dwa representation"] == 1
    assert passes["dwa trainable"] == 2


def test_one_step_counts_every_parameter():
    with pytest.warns(UserWarning, match="exceeds the full rank"):
        result = worker.one_step("tiny", rank=128)
    embedding, norms = 50 * 16, 3 * 16
    attention = 16 * 16 * 2 + 16 * 8 * 2 + 16 + 8 + 8
    mlp, factors = 3 * 16 * 16, 128 * (16 + 16) * 5 + 128 * (16 + 8) * 2
    assert result["parameters"] == embedding + norms + attention + mlp + factors
    assert result["peak_gib"] > 0


def test_a_worker_that_fails_says_with_what():
    with pytest.raises(ValueError, match="memory of gpt failed: .*unknown shape 'gpt'"):
        worker.measure(
            {"kind": "memory", "shape": "gpt", "rank": 0, "rows": 2, "tokens": 4}
            | {"method": "constant", "dtype": "float32"}
        )


def test_the_papers_models_have_their_published_sizes():
    # The model cards' counts, without heads: 355 M, 494 M and 1.03 B (less the output matrix).
    from dwa_jax import backbones

    sizes = {}
    for name in ("roberta-large", "qwen2-0.5b", "tinyllama-1.1b"):
        module = backbones.build(shapes.get(name))
        tree = jax.eval_shape(lambda m=module: backbones.init(jax.random.key(0), m))
        sizes[name] = sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert sizes["qwen2-0.5b"] == 494_032_768
    assert sizes["tinyllama-1.1b"] == 1_100_048_384 - 32000 * 2048
    assert sizes["roberta-large"] == 355_359_744 - (1024 * 1024 + 1024)


def test_an_unknown_shape_lists_the_shapes():
    with pytest.raises(ValueError, match="'gpt'; there are: roberta-small"):
        shapes.get("gpt")


@pytest.fixture
def small():
    from configs import demo

    config = demo.get_config()
    config.generated_rows, config.max_length, config.batch_size = 60, 16, 8
    config.scratch.update({"width": 16, "layers": 1, "heads": 2, "feed_forward": 16})
    config.scratch.max_positions, config.max_buckets = 32, 1
    return config


def replace_step(monkeypatch, module, step):
    def without_compiling(*arguments):
        run = make_setup(*arguments)
        run.step = step
        return run

    monkeypatch.setattr(module, "make_setup", without_compiling)


def test_padding_is_timed_at_the_lengths_that_there_are(small, monkeypatch):
    replace_step(monkeypatch, padding, lambda state, batch: (state, {}))
    result = padding.measure_padding(small, 1)
    assert result["padded_to"] == 32
    assert sum(result["buckets"].values()) == -(-result["texts"] // 8)
    steps = result["buckets"].items()
    assert result["computed_tokens"] == 8 * sum(length * count for length, count in steps)
    assert result["real_tokens"] == round(result["texts"] * result["mean"])
    assert result["fraction"] == result["real_tokens"] / result["computed_tokens"]


def test_a_sketch_is_drawn_again_and_again_from_one_state(small, monkeypatch):
    seen = []

    def step(state, batch):
        seen.append(jax.random.key_data(state.key).tolist())
        size = 3.0 if len(seen) % 2 else 1.0
        return state, {"gradient_norm_regression": 1.0, "gradient_norm_classification": size}

    replace_step(monkeypatch, spread, step)
    other = small.copy_and_resolve_references()
    other.gradient_norms = "sketch"
    result = spread.measure_spread(small, other, 4)
    assert len({str(key) for key in seen[1:]}) == 4
    # lambda is 3 / 4, then 1 / 2 and 3 / 4 in turn.
    assert result["exact"] == 0.75 and result["mean"] == pytest.approx(5 / 6)
    assert result["error"] == pytest.approx(result["deviation"] / 2)


def test_the_program_writes_numbers_and_a_picture(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(suites, "step_rows", lambda gpu: [suites.Row("qwen2-tiny", 2, 2, 4)])
    monkeypatch.setattr(ours, "METHODS", {"constant": ours.METHODS["constant"]})
    monkeypatch.setattr(cost, "matrix_rate", lambda dtype: 1e9)
    output = tmp_path / "numbers.json"
    benchmark.main(["--suite=step", "--rounds=1", "--peers=none", f"--output={output}"])
    (result,) = json.loads(output.read_text())["suites"]["step"]
    assert list(result["contenders"]) == ["constant"]
    assert (tmp_path / "numbers_step.png").stat().st_size > 1000
    # One size is no line.
    assert not (tmp_path / "numbers_costs.png").exists()
    shown = capsys.readouterr().out
    assert "1.00 x" in shown and "not measured, JAX has no GPU here" in shown


def test_pictures_are_of_what_was_measured(tmp_path):
    values = {"ms": 2.0, "low_ms": 1.0, "high_ms": 3.0, "ratio": 1.0}
    results = [
        {
            "title": "a row",
            "row": suites.Row("minilm", 0, 8, tokens)._asdict(),
            "contenders": {"constant": values, "dwa trainable": values},
        }
        for tokens in (16, 64)
    ]
    for draw in (picture.draw_ratios, picture.draw_costs):
        path = tmp_path / f"{draw.__name__}.png"
        draw(path, results)
        assert path.read_bytes().startswith(b"\x89PNG")
    assert picture.lines(results) == {"minilm": {"dwa trainable": ([128, 512], [1.0, 1.0])}}
    assert picture.lines(results[:1]) == {}


@pytest.mark.parametrize(
    ("argument", "said"),
    [("--rounds=0", "--rounds=0 must be at least 1"), ("--suite=speed", "invalid choice: 'speed'")],
)
def test_mistakes_end_in_a_line(argument, said, capsys):
    with pytest.raises(SystemExit) as ended:
        benchmark.parse([argument])
    assert ended.value.code == 2 and said in capsys.readouterr().err
