"""A process that keeps its memory does not fetch it anew at every step."""

import subprocess
import sys

import pytest

from dwa_jax import host_memory

PROGRAM = """
import resource, sys
from dwa_jax import host_memory
kept = sys.argv[1] == "keep" and host_memory.begin() and host_memory.keep()
import jax, jax.numpy as jnp
double = jax.jit(lambda x: 2 * x)
x = jnp.ones(2**24)
for _ in range(16):
    double(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    double(x).block_until_ready()
print(kept, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 8)
"""


def pages_a_call(how):
    arguments = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    kept, pages = done.stdout.split()
    return kept == "True", int(pages)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc's malloc")
def test_results_of_64_mib_take_few_new_pages():
    kept, pages = pages_a_call("keep")
    if not kept:
        pytest.skip("another C library, or an accelerator")
    # 64 MiB are 16384 pages, or 32 where the kernel gives huge ones. Now and then the heap
    # grows once more.
    assert pages < pages_a_call("leave")[1] / 3


def test_nothing_is_kept_where_steps_are_computed_elsewhere():
    # As here: nothing began before JAX's first computation.
    assert not host_memory.keep()


@pytest.mark.parametrize(
    ("platforms", "on_cpu"),
    [("cpu", True), ("cpu,cuda", True), ("cuda", False), ("cuda,cpu", False)],
)
def test_only_where_jax_computes_on_a_cpu(platforms, on_cpu):
    assert host_memory._computes_on_cpu(platforms) == on_cpu
