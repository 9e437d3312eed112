import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from dwa_jax.checkpoints import Checkpoints
from tests.test_training import BATCHES, host, make

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def at(state, step):
    return state._replace(step=state.step * 0 + step)


def same(a, b):
    for x, y in zip(jax.tree.leaves(host(a)), jax.tree.leaves(host(b)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def state():
    return make("qwen2", rank=2)[0]


def stored(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.is_dir())


def save(folder, state, steps, keep=()):
    checkpoints = Checkpoints(folder)
    for step in steps:
        checkpoints.save(at(state, step), {"evaluated": step}, keep=keep)
    checkpoints.close()


def test_the_latest_two_and_what_they_need_are_kept_also_across_restarts(state, tmp_path):
    for step, keep in {1: (), 2: (2,), 3: (2,), 4: (2,), 5: (5,), 6: (5,)}.items():
        # One of its own for each: what is kept must not depend on what it remembers.
        save(tmp_path, state, [step], keep)
        assert Checkpoints(tmp_path).latest() == (step, [])
        expected = {1: [1], 2: [1, 2], 3: [2, 3], 4: [2, 3, 4], 5: [2, 4, 5], 6: [5, 6]}
        assert stored(tmp_path) == expected[step]
    checkpoints = Checkpoints(tmp_path)
    restored, progress = checkpoints.restore(state, 5)
    assert progress == {"evaluated": 5}
    same(restored, at(state, 5))


def test_a_step_saved_again_keeps_its_arrays_and_changes_its_progress(state, tmp_path):
    save(tmp_path, state, [1])
    before = {path: path.stat().st_ino for path in tmp_path.rglob("state/**/*")}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(at(state, 1), {"evaluated": 9})
    assert Checkpoints(tmp_path).restore(state, 1)[1] == {"evaluated": 9}
    assert before == {path: path.stat().st_ino for path in tmp_path.rglob("state/**/*")}


def test_an_array_that_earlier_versions_saved_is_read_over(state, tmp_path):
    Earlier = collections.namedtuple("Earlier", [*state._fields, "ratios"])
    save(tmp_path, Earlier(*state, jax.numpy.ones(2)), [1])
    restored, _ = Checkpoints(tmp_path).restore(state, 1)
    same(restored, at(state, 1))
    Other = collections.namedtuple("Other", [*state._fields, "rations"])
    save(tmp_path, Other(*state, jax.numpy.ones(2)), [2])
    with pytest.raises(ValueError, match=r"rations: float32\[2\] there, nothing here"):
        Checkpoints(tmp_path).restore(state, 2)


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


def test_frozen_parameters_are_not_written_but_known_again(state, tmp_path):
    save(tmp_path, state, [0])
    checkpoints = Checkpoints(tmp_path)
    restored, _ = checkpoints.restore(state, 0)
    assert restored.frozen is state.frozen
    others = state._replace(frozen=jax.tree.map(lambda x: x + 1, state.frozen))
    with pytest.raises(ValueError, match="the backbone's weights have changed since"):
        Checkpoints(tmp_path).restore(others, 0)


def test_a_checkpoint_of_another_model_is_an_error(state, tmp_path):
    save(tmp_path, state, [0])
    with pytest.raises(
        ValueError, match=r"step 0 .* does not fit this run.*/u: float32\[1, 16, 2\] there"
    ):
        Checkpoints(tmp_path).restore(make("qwen2", rank=3)[0], 0)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _truncate(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [_flip, _truncate, Path.unlink])
def test_any_damaged_file_of_the_latest_is_found_and_the_one_before_is_used(
    state, tmp_path, damage
):
    save(tmp_path, state, [1, 2])
    for path in [path for path in (tmp_path / "2").rglob("*") if path.is_file()]:
        content = path.read_bytes()
        if damage == _truncate and not content:
            continue
        damage(path)
        step, notes = Checkpoints(tmp_path).latest()
        assert step == 1 and f"step 2 in {tmp_path} is damaged" in notes[0]
        assert path.name in notes[0] or path.name == "checkpoint.json"
        with pytest.raises(ValueError, match="step 2 .* is damaged"):
            Checkpoints(tmp_path).restore(state, 2)
        path.write_bytes(content)
    assert Checkpoints(tmp_path).latest() == (2, [])


def test_after_falling_back_what_is_left_behind_is_written_anew(state, tmp_path):
    save(tmp_path, state, [1, 2, 3])
    _flip(next((tmp_path / "3").rglob("manifest.ocdbt")))
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest()[0] == 2
    other = at(state._replace(key=jax.random.key(5)), 3)
    checkpoints.save(other, {"evaluated": 7})
    restored, progress = Checkpoints(tmp_path).restore(state, 3)
    same(restored, other)
    assert progress == {"evaluated": 7} and stored(tmp_path) == [2, 3]


def test_a_checkpoint_whose_best_one_is_damaged_is_not_used(state, tmp_path):
    save(tmp_path, state, [1])
    save(tmp_path, state, [2], keep=(1,))
    save(tmp_path, state, [3], keep=(3,))
    save(tmp_path, state, [4], keep=(3,))
    # 4 needs 3, and 3 nothing else: both are lost with it.
    _flip(next((tmp_path / "3").rglob("manifest.ocdbt")))
    with pytest.raises(ValueError, match="step 3, which that of step 4 needs,.*is damaged"):
        Checkpoints(tmp_path).latest()


def test_with_none_left_it_is_an_error_never_a_fresh_start(state, tmp_path):
    assert Checkpoints(tmp_path / "new").latest() == (None, [])
    save(tmp_path, state, [1, 2])
    for step in (1, 2):
        _flip(next((tmp_path / str(step)).rglob("manifest.ocdbt")))
    with pytest.raises(ValueError, match="no checkpoint in .* is usable: .*step 2.*step 1"):
        Checkpoints(tmp_path).latest()
    for folder in (tmp_path / "1", tmp_path / "2"):
        folder.rename(folder.with_suffix(".away"))
    with pytest.raises(ValueError, match="the checkpoint of step 2 in .* is gone"):
        Checkpoints(tmp_path).latest()
    _truncate(tmp_path / "saved.json")
    with pytest.raises(ValueError, match="saved.json says that there was one"):
        Checkpoints(tmp_path).latest()


def test_a_checkpoint_of_a_newer_library_is_said_to_be(state, tmp_path):
    from dwa_jax import checkpoints

    save(tmp_path, state, [1])
    content = checkpoints._read(tmp_path / "1")
    checkpoints._write(tmp_path / "1", content | {"format": 99})
    with pytest.raises(ValueError, match=r"is of a newer dwa_jax \(format 99"):
        Checkpoints(tmp_path).restore(state, 1)


def test_what_a_killed_save_leaves_is_not_taken_for_a_checkpoint(state, tmp_path):
    save(tmp_path, state, [1])
    (tmp_path / ".2.dwa_jax-0123456789abcdef.partial" / "state").mkdir(parents=True)
    assert Checkpoints(tmp_path).latest() == (1, [])
    save(tmp_path, state, [2])
    assert stored(tmp_path) == [1, 2]


# Saves a small state, then one of 20 MB, where there is room for less.
FULL_DISK = """
import resource
import sys
import jax
import numpy as np
from dwa_jax.checkpoints import Checkpoints
from dwa_jax.training import TrainState

folder, limit = sys.argv[1], int(sys.argv[2])
empty = dict.fromkeys(TrainState._fields, {})
small = {"step": np.int32(0), "theta": {"kernel": np.ones(3)}, "key": jax.random.key(0)}
state = TrainState(**empty | jax.device_put(small))
checkpoints = Checkpoints(folder)
checkpoints.save(state, {"evaluated": 0})
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
large = jax.device_put(np.random.default_rng(0).normal(size=5_000_000).astype(np.float32))
try:
    checkpoints.save(state._replace(step=state.step + 1, theta={"kernel": large}), {})
except OSError as error:
    print(f"OSError: {error}")
    print(Checkpoints(folder).latest(), sorted(path.name for path in checkpoints.folder.iterdir()))
    checkpoints.restore(state, 0)
    print("restored")
"""


def _mounts():
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def test_a_disk_that_fills_up_is_said_and_spares_what_is_there(tmp_path):
    # A file system of 12 MB where one may be mounted; elsewhere a limit on the size of a file.
    script = tmp_path / "fill.py"
    script.write_text(FULL_DISK)
    command = [sys.executable, str(script), str(tmp_path / "disk" / "run")]
    (tmp_path / "disk").mkdir()
    if _mounts():
        mount = 'mount -t tmpfs -o size=12m tmpfs "$0" && exec "$@"'
        command = ["unshare", "-rm", "sh", "-c", mount, str(tmp_path / "disk"), *command, "0"]
        reason = "No space left on device"
    else:
        command.append(str(4_000_000))
        reason = "File too large"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("OSError: the checkpoint of step 1 could not be written to ")
    assert lines[0].endswith(f"{reason}; that of step 0 is untouched")
    assert lines[1:] == ["(0, []) ['0', 'saved.json']", "restored"]


def test_the_digests_hold_the_manifest_itself(state, tmp_path):
    save(tmp_path, state, [1, 2])
    path = tmp_path / "2" / "checkpoint.json"
    content = json.loads(path.read_text())
    content["progress"]["evaluated"] = 3
    path.write_text(json.dumps(content))
    step, notes = Checkpoints(tmp_path).latest()
    assert step == 1 and "checkpoint.json has changed" in notes[0]
