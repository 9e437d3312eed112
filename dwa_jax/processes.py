"""Several processes as one run, on JAX's own runtime: how they begin, agree and end.

Every process runs the same program on the same rows. What only one may do, or what two could see
differently (a folder, a clock), process 0 does, and the others hear of it through the store of
JAX's coordination service. Alone, a process asks nobody.
"""

import contextlib
import itertools
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax

# Nothing public says who takes part, or holds the store.
from jax._src import distributed

T = TypeVar("T")

# Seconds until all have come; without a sign of life until one counts as lost; behind the others
# until one counts as hanging; for an end together.
START, SILENT, HANGING, END = 120, 20, 900, 10
# Milliseconds that process 0 may take for what the others wait for: it may draw, or copy.
_PATIENCE = 7 * 24 * 3600 * 1000
# What tells that a process is one of several, as JAX's own detection reads it.
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
_COUNTS = {"SLURM_NTASKS": _SLURM, "OMPI_COMM_WORLD_SIZE": ("OMPI_MCA_orte_hnp_uri",)}
_numbers = itertools.count()
_ending = threading.Event()
# What a user can mend.
_ERRORS: tuple[type[Exception], ...] = (ValueError, OSError)
# Where each process says that it is alive and how far it is, and the seconds between two times.
_ALIVE, _BEAT = "dwa_jax/alive", 2


class _Here:
    # How many batches this process has come to.
    batches = 0


def how_many() -> int:
    """Returns how many processes the run has."""
    return distributed.global_state.num_processes


def index() -> int:
    """Returns which of them this is."""
    return distributed.global_state.process_id


def is_first() -> bool:
    """Says whether this process is the one that writes."""
    return index() == 0


def _client() -> Any:
    return distributed.global_state.client


def join(
    coordinator: str = "",
    processes: int = 0,
    process_id: int = -1,
    *,
    give_up: Callable[[str], Any],
    timeout: float = START,
    silent: int = SILENT,
    hanging: int = HANGING,
) -> None:
    """Joins the other processes, where there are others; before anything touches a device.

    They are named, or the environment says so: SLURM's `srun`, Open MPI's `mpirun`, a Job of
    Kubernetes with an index (with the package `kubernetes`), or JAX_COORDINATOR_ADDRESS.

    Args:
      coordinator: HOST:PORT of process 0, where its port is free; "" asks the environment.
      processes: how many there are.
      process_id: which of them this is.
      give_up: ends the program with this line: not all came, one was lost, or others would not
        find this one. It may be called from a thread of its own.
      timeout: seconds until all must have come.
      silent: seconds without a sign of life after which a process counts as lost.
      hanging: seconds after which one counts as hanging that lives but comes to no further batch,
        see `come_to_a_batch`, while others have.

    Raises:
      ValueError: the three do not fit together.
    """
    named = {
        "--coordinator": coordinator != "",
        "--processes": processes != 0,
        "--process_id": process_id != -1,
    }
    if not any(named.values()):
        if not _is_one_of_several():
            return
        given: dict[str, Any] = {}
    else:
        if not all(named.values()):
            missing = ", ".join(name for name, there in named.items() if not there)
            raise ValueError(f"{', '.join(named)} belong together; {missing} is missing")
        if not re.fullmatch(r"\S+:\d{1,5}", coordinator):
            raise ValueError(f"--coordinator={coordinator!r:.80} must be HOST:PORT of process 0")
        if processes < 1 or not 0 <= process_id < processes:
            raise ValueError(
                f"--process_id={process_id} must be one of 0 to {max(processes, 1) - 1}, "
                f"of --processes={processes}"
            )
        given = {
            "coordinator_address": coordinator,
            "num_processes": processes,
            "process_id": process_id,
        }
    place = f" at {coordinator}" if coordinator else ""

    def too_late():
        if index():
            reason = f"reached no process 0{place} within {timeout:g} s: is it running there, "
            reason += "with the same --processes, and can this machine reach it?"
        else:
            reason = f"waited{place} for {timeout:g} s, and not all of the others have come"
        give_up(f"process {index()} {reason}")

    # JAX's own end, where someone is missing, is the abort of the process.
    watch = threading.Timer(timeout, too_late)
    watch.daemon = True
    watch.start()
    try:
        jax.distributed.initialize(
            **given,
            initialization_timeout=int(timeout) + 60,
            heartbeat_timeout_seconds=3 * silent,
        )
    except RuntimeError as error:
        raise ValueError(f"this process cannot join the others: {error}") from None
    finally:
        watch.cancel()
    if how_many() > 1:
        where = f"{socket.gethostname()}, pid {os.getpid()}"
        _client().key_value_set(f"dwa_jax/where/{index()}", where)
        threading.Thread(target=_watch, args=(give_up, silent, hanging), daemon=True).start()
        _check_own_name(give_up)


def _check_own_name(give_up):
    # CPUs' collectives listen where this machine's name leads, and Debian has that be 127.0.1.1;
    # the others would wait for as long as a hanging one may.
    hosts = {place.rpartition(", pid ")[0] for place in _places(_client()).values()}
    if len(hosts) == 1 or jax.default_backend() != "cpu":
        return
    name = socket.gethostname()
    with contextlib.suppress(OSError):
        address = socket.gethostbyname(name)
        if address.startswith("127."):
            # Not an error to be raised: what ends in order waits for the others at its end.
            give_up(
                f"process {index()}: {name}, this machine's name, leads to {address}, where other "
                "machines do not find it; have it lead to this machine's own address in "
                "/etc/hosts or DNS"
            )


def _places(client):
    return {
        other: client.blocking_key_value_get(f"dwa_jax/where/{other}", _PATIENCE)
        for other in range(how_many())
    }


def come_to_a_batch() -> None:
    """Tells the others that this process goes on; all come to the same batches."""
    _Here.batches += 1


def _is_one_of_several():
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        return True
    for size, others in _COUNTS.items():
        if os.environ.get(size, "1") != "1" and all(name in os.environ for name in others):
            return True
    return "KUBERNETES_SERVICE_HOST" in os.environ and "JOB_COMPLETION_INDEX" in os.environ


def _watch(give_up, silent, hanging):
    # JAX's runtime, too, ends a run of which one is lost, later and in a page of words of its own.
    client = _client()
    places = _places(client)
    # Silence is counted in beats of this process's own, which may be stopped for a while itself.
    # One that died before its first beat is silent, too.
    beats = {one: ("0 0", 0) for one in range(how_many())}
    batches: dict[int, tuple[int, int]] = {}
    for beat in itertools.count():
        with contextlib.suppress(RuntimeError):  # process 0 is gone, or this one ends
            own = f"{beat} {_Here.batches}"
            client.key_value_set(f"{_ALIVE}/{index()}", own, allow_overwrite=True)
            found = client.key_value_dir_get(_ALIVE)
            told = {int(name.rpartition("/")[2]): heard for name, heard in found}
            for one, (last, missed) in beats.items():
                heard = told.get(one, last)
                count = int(heard.split()[1])
                beats[one] = heard, missed + 1 if heard == last else 0
                come_to, stood = batches.get(one, (-1, 0))
                batches[one] = count, stood + 1 if count == come_to else 0
        if _ending.wait(_BEAT):
            return
        most = max((count for count, _ in batches.values()), default=0)
        for one, (_, missed) in beats.items():
            count, stood = batches[one]
            if missed * _BEAT >= silent:
                what = f"is lost: no sign of life for {silent} s"
            elif count < most and stood * _BEAT >= hanging:
                what = f"hangs: at batch {count} for {hanging} s, where others wait at {most}"
            else:
                continue
            others = [missed for other, (_, missed) in beats.items() if other != index()]
            if is_first() and min(others) * _BEAT < silent:
                # It holds the store: with its end JAX ends those that live, in words of its own.
                time.sleep(_BEAT + 1)
            give_up(
                f"process {one} of {how_many()} ({places[one]}) {what}; this one ends as well. "
                "The same commands continue the run"
            )


def wait_for_word(silent: int = SILENT) -> None:
    """Waits, after a collective failed, until it is known who is lost, which ends the program."""
    time.sleep(2 * silent)


def first(function: Callable[[], T]) -> T:
    """Runs something on process 0 alone; every process returns what it returned.

    To be called by all, in the same order.

    Args:
      function: returns what JSON holds, and little; elsewhere tuples become lists.

    Raises:
      Exception: on every process, what it raises on process 0; elsewhere a ValueError or an
        OSError in its words, or else a RuntimeError.
    """
    if how_many() == 1:
        return function()
    name, client = f"dwa_jax/said/{next(_numbers)}", _client()
    if is_first():
        try:
            result = function()
        except Exception as error:
            kind = next((kind for kind in _ERRORS if isinstance(error, kind)), RuntimeError)
            client.key_value_set(name, json.dumps([None, kind.__name__, str(error)]))
            raise
        client.key_value_set(name, json.dumps([result, "", ""]))
        return result
    result, kind, words = json.loads(client.blocking_key_value_get(name, _PATIENCE))
    if kind:
        known = {one.__name__: one for one in _ERRORS}
        raised: Any = known.get(kind, RuntimeError)(words)
        raised.heard = True
        raise raised
    return result


def is_heard(error: Exception) -> bool:
    """Says whether an error is process 0's, which tells of it itself."""
    return getattr(error, "heard", False)


def agree(what: str, value: Any) -> None:
    """Checks that every process has what process 0 has.

    Args:
      what: its name, for the message.
      value: of what JSON holds.

    Raises:
      ValueError: this one has another.
    """
    own = json.dumps(value, sort_keys=True)
    if first(lambda: own) != own:
        raise ValueError(
            f"process {index()} has {what} than process 0: every process takes the same command "
            "and the same files"
        )


def end() -> None:
    """Takes leave of the others, within seconds, before a process ends early."""
    if how_many() == 1:
        return
    _ending.set()
    leave = threading.Thread(target=_leave, daemon=True)
    leave.start()
    leave.join(END)


def _leave():
    with contextlib.suppress(Exception):
        jax.distributed.shutdown()
