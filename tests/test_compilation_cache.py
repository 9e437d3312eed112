"""Compiled programs are kept where only their owner writes, and a broken cache ends nothing."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest

from dwa_jax import compilation_cache

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)
ROOT = Path(__file__).parents[1]


@pytest.fixture
def untold(tmp_path, monkeypatch):
    """A home of its own, and a JAX that was told of no cache."""
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with warnings.catch_warnings():
        yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)


def test_it_is_bounded_and_the_users_alone(untold):
    folder = compilation_cache.enable()
    assert folder.parent.parent.parent == untold and folder.parent.name == "dwa_jax"
    assert folder.stat().st_mode & 0o077 == 0
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert jax.config.jax_compilation_cache_max_size == compilation_cache.MOST_BYTES


def test_it_goes_where_it_is_told(untold, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(untold / "xdg"))
    assert compilation_cache.enable().is_relative_to(untold / "xdg" / "dwa_jax")
    jax.config.update("jax_compilation_cache_dir", None)
    assert compilation_cache.enable("~/mine").parent == untold / "mine"
    # What JAX has been told goes before.
    assert compilation_cache.enable("off") == compilation_cache.enable("~/mine")


def test_off_is_off(untold):
    assert compilation_cache.enable("off") is None
    assert jax.config.jax_compilation_cache_dir is None and list(untold.iterdir()) == []


def test_nothing_is_taken_from_where_others_write_or_nobody_can(untold):
    folder = compilation_cache.enable()
    jax.config.update("jax_compilation_cache_dir", None)
    folder.chmod(0o770)
    assert compilation_cache.enable() is None
    (untold / "file").write_text("")
    assert compilation_cache.enable(str(untold / "file")) is None
    assert jax.config.jax_compilation_cache_dir is None


def test_what_a_killed_process_left_is_cleared_away(untold):
    folder = compilation_cache.enable()
    jax.config.update("jax_compilation_cache_dir", None)
    (folder / "a-cache").write_bytes(b"half")
    (folder / "b-cache").write_bytes(b"whole")
    (folder / "b-atime").write_bytes(bytes(8))
    compilation_cache.enable()
    assert {path.name for path in folder.iterdir()} == {"b-cache", "b-atime"}


PROGRAM = """
import json, sys
import jax, jax.numpy as jnp
from dwa_jax import compilation_cache
compilation_cache._LEAST_SECONDS = 0
folder = compilation_cache.enable()
found = []
jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
x = jax.jit(lambda x: jnp.tanh(x @ x).sum())(jnp.arange(64.0).reshape(8, 8) / 64)
print(json.dumps([str(folder), float(x), found.count("/jax/compilation_cache/cache_hits")]))
"""


@pytest.mark.slow
def test_a_second_process_compiles_nothing_and_broken_files_end_nothing(tmp_path):
    told = {"JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"}
    environment = {name: value for name, value in os.environ.items() if name not in told}
    environment |= {"XDG_CACHE_HOME": str(tmp_path)}

    def run():
        program = [sys.executable, "-W", "default", "-c", PROGRAM]
        done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        return json.loads(done.stdout)

    folder, first, hits = run()
    assert hits == 0
    _, second, hits = run()
    assert hits > 0 and second == first
    for file in Path(folder).glob("*-cache"):
        file.write_bytes(b"of another program")
    assert run() == [folder, first, 0]
