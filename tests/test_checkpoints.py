import jax
import numpy as np
import pytest

from dwa_jax.checkpoints import Checkpoints
from tests.test_training import BATCHES, host, make


def at(state, step):
    return state._replace(step=state.step * 0 + step)


def same(a, b):
    for x, y in zip(jax.tree.leaves(host(a)), jax.tree.leaves(host(b)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_best_and_the_latest_are_kept_also_across_restarts(tmp_path):
    state, _, _ = make("qwen2", rank=2)
    merits = {1: 0.1, 2: 0.9, 3: None, 4: 0.3, 5: None}
    for step, merit in merits.items():
        # A manager of its own for each: what is kept must not depend on what it remembers.
        checkpoints = Checkpoints(tmp_path)
        checkpoints.save(at(state, step), {"evaluated": step}, merit=merit)
        checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() == 5
    assert sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()) == [2, 5]
    restored, progress = checkpoints.restore(state, 2)
    assert progress == {"evaluated": 2}
    same(restored, at(state, 2))
    checkpoints.close()


@pytest.mark.parametrize("method", ["dwa", "random"])
def test_a_restored_state_trains_on_as_if_nothing_had_happened(tmp_path, method):
    options = {"method": method, "backbone": {"hidden_dropout_prob": 0.2}}
    state, step, _ = make(**options)
    state, _ = step(state, BATCHES[0])
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, {})
    fresh, _, _ = make(**options)
    restored, _ = checkpoints.restore(fresh, 1)
    checkpoints.close()
    for batch in BATCHES[1:3]:
        state, metrics = step(state, batch)
        restored, again = step(restored, batch)
        assert jax.device_get(metrics) == jax.device_get(again)
    same(state, restored)


def test_frozen_parameters_are_not_written(tmp_path):
    state, _, _ = make("qwen2", rank=1)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, {})
    restored, _ = checkpoints.restore(state, 0)
    checkpoints.close()
    assert restored.frozen is state.frozen


def test_a_checkpoint_of_another_model_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(make("qwen2", rank=2)[0], {})
    with pytest.raises(
        ValueError, match=r"step 0 .* does not fit this run.*/u: float32\[2, 16, 2\] there"
    ):
        checkpoints.restore(make("qwen2", rank=3)[0], 0)
    checkpoints.close()
