"""Which kind of machine this is, to a compiler. Imports nothing of JAX."""

import hashlib
import os
import platform
from pathlib import Path


def kind() -> str:
    """Returns 16 hexadecimal digits: those of a machine that a program compiled here is for.

    A program for a CPU is compiled for its instructions and for the cores that the process may
    use; so two machines of the same processor, or one of them with fewer cores, may differ.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = [platform.machine(), platform.processor(), str(cores)]
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    for key in ("model name", "flags", "Features"):
        facts += [line for line in lines if line.startswith(key)][:1]
    return hashlib.sha256(chr(0).join(facts).encode()).hexdigest()[:16]
