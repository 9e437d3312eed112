"""Same seed, same bits; any number of devices, the same trajectory."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from dwa_jax import sharding
from tests.test_training import batch, host, make, train

pytestmark = pytest.mark.slow

DEVICES = (1, 2, 4, 8)
DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1}


def trajectory(devices, **options):
    """Trains four steps; returns every metric of every step, and a digest of the last state."""
    mesh = sharding.data_mesh(jax.devices()[:devices])
    state, step, _ = make(**options)
    batches = [sharding.shard_rows(batch(seed), mesh) for seed in range(4)]
    state, records = train(sharding.replicate(state, mesh), step, batches)
    bits = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(host(state)))
    records = [{name: float(value) for name, value in one.items()} for one in records]
    return {"records": records, "digest": hashlib.sha256(bits).hexdigest()}


def in_a_process(devices, visible):
    """Returns {devices: trajectory} as a process with so many devices computes them."""
    # Of two flags of one name the last one holds.
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={visible}"
    result = subprocess.run(
        [sys.executable, "-m", "tests.test_determinism", *map(str, devices)],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_one_two_four_and_eight_devices_and_a_second_process():
    first = in_a_process(DEVICES, 8)
    (reference, *others) = (first[str(devices)]["records"] for devices in DEVICES)
    for records in others:
        for ours, expected in zip(records, reference, strict=True):
            for name, value in expected.items():
                np.testing.assert_allclose(ours[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
    # Losses fall from step to step, so that equal trajectories are no accident.
    assert len({one["loss_regression"] for one in reference}) == 4
    # In another process the same bits, whatever else the machine has.
    second = in_a_process((8,), 8)
    assert second == {"8": first["8"]}


if __name__ == "__main__":
    print(json.dumps({n: trajectory(int(n), backbone=DROPOUT) for n in sys.argv[1:]}))
