"""Two virtual CPU devices, quick compilation, no network: before anything imports jax."""

import gc
import importlib.metadata
import os
import sys
import tempfile
import types

import pytest

from tests import compiled

_FLAGS = (
    "--xla_force_host_platform_device_count=2",
    # Most of a test's time is compilation of programs that run once.
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
)
# A third less of it; XLA ends a process that gives it a flag it does not know.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    _FLAGS += (
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    )

# Tracing makes objects by the million, among which a collection finds little: 6 % of all time.
gc.set_threshold(100_000, 20, 50)

# Workers inherit what the first process sets.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS])
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Containers often set it; every program that a test starts would compile the package anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    _TEMPORARY = tempfile.TemporaryDirectory(prefix="dwa_jax_tests_")
    os.environ["HF_DATASETS_CACHE"] = os.path.join(_TEMPORARY.name, "datasets")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def pytest_configure(config):
    """Keeps files in the order below; xdist would put those of few tests last, however slow."""
    config.option.loadscopereorder = False
    if "PYTEST_XDIST_WORKER" not in os.environ:
        # Equal programs of different tests, of the processes that they start, and of the next
        # time compile once.
        place = compiled.place(config) or os.path.join(_TEMPORARY.name, "compiled")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(place)


def pytest_collection_modifyitems(items):
    """Marks as quick what no file marks as slow: `pytest -m quick` is for between two edits.

    Files with slow tests come first, so that in the end no worker waits long for another.
    """
    slow = set()
    for item in items:
        if item.get_closest_marker("slow") is None:
            item.add_marker("quick")
        else:
            slow.add(item.path)
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """Spares collections, which some tests ask for, all that imports made."""
    gc.freeze()


@pytest.fixture(autouse=True)
def cheap_pictures(monkeypatch):
    """What a test itself trains gets empty pictures: drawing takes seconds; fixtures draw."""
    from dwa_jax.atomic_files import replacing
    from dwa_jax.finetune import plots

    def save(figures, folder):
        folder.mkdir(exist_ok=True)
        for name in figures:
            with replacing(folder / f"{name}.png") as partial:
                partial.write_bytes(b"a picture")

    monkeypatch.setattr(plots, "save", save)
    # `figures`, of whoever asks for them, draws as ever.
    undrawn = dict(vars(plots), draw=lambda *given: {"losses": None, "weights": None})
    for name in ("run", "saved", "cross_validation"):
        if module := sys.modules.get(f"dwa_jax.finetune.{name}"):
            monkeypatch.setattr(module, "plots", types.SimpleNamespace(**undrawn))
