"""A mesh of four devices: the numbers of one, a quarter of its state, and what travels."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from dwa_jax import sharding, training
from dwa_jax.finetune.config import Config
from experiments.benchmarks.configured import abstract_batch, computed, configured_run

pytestmark = pytest.mark.slow

MESHES = ("data=4", "fsdp=4", "data=2,fsdp=2")
ROWS, TOKENS, STEPS = 7, 6, 50
SHAPE = {"vocab_size": 96, "width": 64, "layers": 2, "heads": 4, "feed_forward": 128}
NAMES = ("loss_regression", "loss_imbalance", "lambda_regression", "weight_regression")


def config(**changes):
    keys = {"dropout": False, "learning_rate": 1e-3, "warmup_steps": 5, "batch_size": ROWS}
    return Config.of({"scratch": SHAPE, **keys, **changes})


def batch(seed, rows=ROWS, tokens=TOKENS, vocab=96):
    rng = np.random.default_rng(seed)
    mask = (np.arange(tokens) < rng.integers(2, tokens + 1, rows)[:, None]).astype(np.int32)
    return {
        "input_ids": np.where(mask, rng.integers(3, vocab, mask.shape), 1).astype(np.int32),
        "attention_mask": mask,
        "score": rng.uniform(-1, 1, rows).astype(np.float32),
        "score_mask": (rng.random(rows) < 0.8).astype(np.float32),
        "category": rng.integers(0, 5, rows).astype(np.int32),
        "category_mask": (rng.random(rows) < 0.8).astype(np.float32),
    }


def begin(mesh, **changes):
    """Returns a run and its first state where the mesh has it."""
    run = configured_run(config(**changes), evaluate=computed, mesh=mesh)
    return run, jax.device_put(run.state, training.placements(run.state, mesh))


def trajectory(mesh, parts=1, steps=STEPS, **changes):
    """Returns the metrics of every step, and the bytes of state that a device holds."""
    run, state = begin(mesh, microbatches=parts, **changes)
    where = jax.tree.map(lambda leaf: leaf.sharding, state)
    records = []
    for seed in range(steps):
        state, values = run.step(state, sharding.shard_rows(batch(seed % 5), mesh, parts))
        sharding.keep_up(values, mesh)
        records.append({name: float(value) for name, value in values.items()})
    held = sharding.device_bytes((state.theta, state.optimizers["theta"]))
    # It comes out where it went in, so that the second step is the first one's program.
    for leaf, before in zip(jax.tree.leaves(state), jax.tree.leaves(where), strict=True):
        assert leaf.sharding.is_equivalent_to(before, leaf.ndim)
    return {"records": records, "bytes": held}


def in_a_process(what):
    """Returns what this file says as a program that has four devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    result = subprocess.run(
        [sys.executable, "-m", "tests.test_sharding", what],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def assert_equal(found, expected):
    assert len(found["records"]) == len(expected["records"])
    for ours, theirs in zip(found["records"], expected["records"], strict=True):
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def compiled(mesh, rows, tokens, **changes):
    """Returns the text of a step's program, of shapes alone."""
    run = configured_run(config(batch_size=rows, **changes), mesh=mesh)
    where = training.placements(run.state, mesh)
    spread = NamedSharding(mesh, PartitionSpec(sharding.AXES))
    state = jax.tree.map(placed, run.state, where)
    rows_of = jax.tree.map(lambda leaf: placed(leaf, spread), abstract_batch(rows, tokens))
    return run.step.lower(state, rows_of).compile().as_text()


def placed(leaf, where):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)


def summed_bytes(text):
    """Bytes that a program sums over devices; of what a loop holds it would count one turn."""
    found = re.findall(r"= (.+?) (?:all-reduce|reduce-scatter)(?:-start)?\(", text)
    return 4 * sum(math.prod(one) for of in found for one in shapes_of(of))


def shapes_of(text):
    return [sizes(one) for one in re.findall(r"f32\[(.*?)\]", text)]


def sizes(text):
    return [int(size) for size in text.split(",") if size]


def programs():
    data, split = sharding.make_mesh("data=4"), sharding.make_mesh("fsdp=4")
    # Of a usual width, where a sketch of 16 columns is small beside a matrix.
    wide = {"vocab_size": 50_000, "width": 1024, "layers": 2, "heads": 8, "feed_forward": 4096}
    sums = {
        name: summed_bytes(compiled(data, 16, 64, scratch=wide, **keys))
        for name, keys in {
            "constant": {"weighting": "constant"},
            "sketch": {"gradient_norms": "sketch"},
        }.items()
    }
    deep = {"vocab_size": 1000, "width": 256, "layers": 4, "heads": 4, "feed_forward": 1024}
    arrays = {
        name: sorted({one for one in re.findall(r"f32\[([\d,]+)\]", text)})
        for name, text in {
            "full": compiled(split, 8, 8, scratch=deep, unroll=1),
            "lora": compiled(split, 8, 8, scratch=deep, unroll=1, lora_rank=8),
        }.items()
    }
    # Attention in groups of heads, which a CPU takes of many or long texts.
    long = {**SHAPE, "max_positions": 128}
    text = compiled(data, 16, 128, scratch=long, weighting="constant")
    moved = [one for of in re.findall(r"= (.+?) all-gather\(", text) for one in shapes_of(of)]
    return {"sums": sums, "arrays": arrays, "moved": moved}


def main(what):
    meshes = {"one": sharding.data_mesh(jax.devices()[:1])}
    meshes |= {text: sharding.make_mesh(text) for text in MESHES}
    if what == "programs":
        return programs()
    if what == "trajectories":
        return {text: trajectory(mesh) for text, mesh in meshes.items()}
    raise ValueError(what)


def test_any_mesh_gives_the_trajectory_of_one_device_and_splits_its_state():
    found = in_a_process("trajectories")
    expected = found.pop("one")
    assert set(NAMES) | {"alpha", "beta"} <= expected["records"][0].keys()
    # It learns, so that equal numbers are no accident.
    assert expected["records"][-1]["loss_regression"] < expected["records"][4]["loss_regression"]
    for one in found.values():
        assert_equal(one, expected)
    assert found["fsdp=4"]["bytes"] <= 0.27 * expected["bytes"]
    assert found["data=2,fsdp=2"]["bytes"] <= 0.52 * expected["bytes"]
    assert found["data=4"]["bytes"] == expected["bytes"]


def test_a_sketch_adds_little_to_what_is_summed_and_no_tree_or_text_is_gathered():
    found = in_a_process("programs")
    # No heads of other devices' rows.
    assert all(len(shape) < 3 for shape in found["moved"])
    sums = found["sums"]
    # One gradient tree is summed, and little besides.
    parameters = 50_000 * 1024 + 2 * 12 * 1024**2
    assert 4 * parameters <= sums["constant"] <= 4.2 * parameters
    assert sums["sketch"] <= 1.05 * sums["constant"]
    for arrays in found["arrays"].values():
        shapes = [sizes(one) for one in arrays]
        # A layer's matrices are whole where they are used, and never several layers'.
        assert [256, 1024] in shapes or [1024, 256] in shapes
        assert max(math.prod(shape) for shape in shapes) <= 256 * 1024


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
