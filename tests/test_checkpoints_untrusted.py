"""Checkpoints from strangers: restoring runs nothing, and a lie about an array is one line."""

import gc
import hashlib
import json
import os
import pickle
import shutil
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from dwa_jax.checkpoints import Checkpoints
from dwa_jax.training import TrainState

# Orbax leaves coroutines behind where an array cannot be read.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

# Events that the interpreter itself reports when something is unpickled or started.
_FORBIDDEN = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen")
_seen: list[str] | None = None


def _hear(event, _):
    if _seen is not None and event in _FORBIDDEN:
        _seen.append(event)


@pytest.fixture
def events(monkeypatch):
    """What was unpickled or started during a test."""
    global _seen
    if _seen is None:
        sys.addaudithook(_hear)  # for good: a hook cannot be taken away
    _seen = []

    def refuse(*_, **__):
        raise AssertionError("a pickle is loaded")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    yield _seen
    _seen = []


def state(rows=20):
    parts = {name: {} for name in TrainState._fields}
    theta = {"kernel": jnp.arange(30.0 * rows).reshape(rows, 30), "bias": jnp.ones(7)}
    return TrainState(**parts | {"step": jnp.int32(3), "theta": theta})


def damage(folder, step=3):
    """Every file of a step but the one with the digests."""
    return sorted(
        p for p in (folder / str(step)).rglob("*") if p.is_file() and p.parent.name != "3"
    )


def sign(folder, **changes):
    """Makes the digests fit again, as a stranger would."""
    path = folder / "3" / "checkpoint.json"
    content = json.loads(path.read_text()) | changes
    content["files"] = {
        file.relative_to(folder / "3").as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in damage(folder)
    }
    del content["digest"]
    signed = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(content | {"digest": signed}))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    checkpoints = Checkpoints(folder)
    checkpoints.save(state(), {"epoch": 1})
    checkpoints.close()
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "checkpoints")


def restore(folder, like=None):
    checkpoints = Checkpoints(folder)
    try:
        return checkpoints.restore(like or state(), 3)
    finally:
        checkpoints.close()
        gc.collect()  # so that what Orbax leaves behind is reported here and not in another test


def refusal(folder, like=None):
    with pytest.raises((ValueError, OSError)) as error:
        restore(folder, like)
    message = str(error.value)
    assert str(folder) in message and "\n" not in message and len(message) < 1000
    return message


def test_restoring_unpickles_nothing(folder, events):
    sign(folder)
    restored, progress = restore(folder)
    np.testing.assert_array_equal(restored.theta["kernel"], state().theta["kernel"])
    assert progress == {"epoch": 1} and events == []
    with pytest.raises(AssertionError, match="pickle is loaded"):
        pickle.loads(b"")


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("signed", [True, False])
def test_a_pickle_in_place_of_any_file_is_not_run(folder, tmp_path, events, signed):
    marker = tmp_path / "marker"
    for file in damage(folder):
        file.write_bytes(pickle.dumps(Payload(marker)))
    if signed:
        sign(folder)
    refusal(folder)
    assert not marker.exists() and events == []


def test_a_checkpoint_cannot_name_code_of_its_own(folder, tmp_path, events, monkeypatch):
    marker = tmp_path / "marker"
    (tmp_path / "stranger.py").write_text(f"open({str(marker)!r}, 'w')\nclass Handler: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    named = 0
    for file in damage(folder):
        text = file.read_bytes()
        for name in (b"orbax.checkpoint", b"jax.Array", b"NamedSharding", b"SingleDeviceSharding"):
            named += name in text
            text = text.replace(name, b"stranger.Handler")
        file.write_bytes(text)
    sign(folder)
    assert named
    try:
        restore(folder)
    except ValueError as error:
        assert "\n" not in str(error)
    assert not marker.exists() and events == [] and "stranger" not in sys.modules


@pytest.mark.parametrize("rows", [19, 21, 10**6])
def test_an_array_of_another_size_than_it_says_is_refused(folder, events, rows):
    described = {"theta/kernel": f"float32[{rows}, 30]"}
    content = json.loads((folder / "3" / "checkpoint.json").read_text())
    sign(folder, arrays=content["arrays"] | described)
    refusal(folder, state(rows))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "1"},
        {"format": None},
        {"arrays": None},
        {"arrays": {"theta/kernel": 5}},
        {"frozen": 5},
        {"progress": [1]},
        {"keep": 7},
        {"keep": ["../../elsewhere"]},
    ],
    ids=str,
)
def test_a_description_of_another_kind_is_refused(folder, changes):
    sign(folder, **changes)
    refusal(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"null", b"[" * 10**5, b"\xff", b"{}"])
def test_a_description_that_is_none_is_refused(folder, content):
    (folder / "3" / "checkpoint.json").write_bytes(content)
    refusal(folder)
