"""What other processes computed while something was timed, by the system's own accounts.

One busy neighbour turns a ratio between two frameworks round by a factor of two, because the
threads of one wait for the slowest and those of the other do not; medians do not cure that.
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path

_BUSY = 0.05  # of all cores; above it a round says more about the neighbour
_PATIENCE = 3  # rounds thrown away for each that is asked for


class Neighbours:
    """Judges rounds by the CPU time that others used in them; Linux alone keeps such accounts.

    Attributes:
      known: whether this system says what is used.
      thrown_away: rounds in which others used 5 % of the cores or more.
      counted_busy: such rounds that count all the same, because quiet ones never came.
    """

    def __init__(self, rounds: int, own: Iterable[int]):
        """Remembers whose work is not a neighbour's.

        Args:
          rounds: asked for.
          own: ids of the processes that are timed; this one is always among them.
        """
        self.rounds = rounds
        self.own = [os.getpid(), *own]
        self.known = Path("/proc/stat").exists()
        self.thrown_away = self.counted_busy = 0

    def begin(self) -> None:
        """Begins a round."""
        if self.known:
            self._before = self._read()

    def end(self) -> bool:
        """Ends a round, and says whether it counts."""
        if not self.known:
            return True
        others, wall = (now - then for now, then in zip(self._read(), self._before, strict=True))
        if others < _BUSY * wall * (os.cpu_count() or 1):
            return True
        if self.thrown_away < _PATIENCE * self.rounds:
            self.thrown_away += 1
            return False
        self.counted_busy += 1
        return True

    def _read(self):
        tick = os.sysconf("SC_CLK_TCK")
        # user, nice, system, idle, iowait, irq, softirq, steal: what the host took counts too.
        fields = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        busy = (sum(fields) - fields[3] - fields[4]) / tick
        return busy - sum(_used(pid, tick) for pid in self.own), time.perf_counter()


def _used(pid, tick):
    # Behind the program's name, which may hold spaces and brackets.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / tick


def processor() -> str:
    """Returns the processor's name and the widest vectors that it has, as far as is known."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return "an unknown processor"
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    flags = (found.get("flags") or found.get("Features", "")).split()
    wide = [
        said
        for flag, said in (("amx_tile", "AMX"), ("avx512f", "AVX-512"), ("avx2", "AVX2"))
        if flag in flags
    ]
    family = f" (family {found['cpu family']}, model {found['model']})" if "model" in found else ""
    name = found.get("model name", "an unknown processor") + family
    return ", ".join([name, *wide[:2]])


def free_bytes() -> int | None:
    """Returns how much memory a new process can have, where the system says so."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
