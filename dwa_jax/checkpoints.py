"""Checkpoints: each whole or not at all, and known by digests to be as it was written.

A folder of them holds::

    STEP/state            the arrays, through Orbax
    STEP/checkpoint.json  progress, what the arrays are, and the SHA-256 of every file
    saved.json            the last step saved: that there was one, should its folder be gone; and
                          the steps written, which alone are ever removed

Orbax keeps no checksum of the arrays' values: a flipped bit restores as another number.
Frozen parameters are not saved: they come from where they came from the first time, and a
digest of a sample of them tells whether they are the same.
"""

import contextlib
import errno
import hashlib
import io
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from dwa_jax import partials, processes, regular_files, sharding
from dwa_jax.atomic_files import replacing
from dwa_jax.messages import one_line
from dwa_jax.training import TrainState

_FORMAT = 1
_KEYS = {"format", "progress", "keep", "arrays", "frozen", "files"}
# Arrays of states that earlier versions saved, which nothing needs any more.
_GONE = ("ratios",)
# The last step saved where saved.json is damaged: that it is there says that there was one.
_UNKNOWN = -1
# Bytes of a file of JSON: thousands of arrays.
_MOST_JSON = 10**7
# Bytes that Orbax may write beside the arrays.
_OVERHEAD = 2**26
_FIELDS = {"progress": dict, "keep": list, "arrays": dict, "frozen": str, "files": dict}
# Places along an axis of a frozen parameter that go into the digest: another backbone differs
# everywhere, and gigabytes would take seconds.
_SAMPLE = 8


class Checkpoints:
    """A folder of checkpoints, each a train state and a small dict of progress.

    The latest two stay, and those that either of them asks to keep. One run writes, each of its
    processes its own devices' arrays; others may read.
    """

    def __init__(self, folder: str | Path):
        """Opens the folder; it is made by the first save.

        Args:
          folder: where the checkpoints are.
        """
        self.folder = Path(folder).absolute()
        self._orbax = ocp.Checkpointer(ocp.StandardCheckpointHandler())
        self._intact: set[int] = set()
        # Damaged, or later than the one that a restart had to go back to.
        self._set_aside: set[int] = set()
        self._frozen: str | None = None

    def save(self, state: TrainState, progress: dict, *, keep: Sequence[int] = ()) -> None:
        """Saves a state at its step; returns once it is on disk.

        A step that is there already has its arrays: then the progress alone is replaced.

        Args:
          state: what to save, but for `frozen`.
          progress: JSON values that belong to it.
          keep: steps that a restart from here needs as well, the best one's.

        Raises:
          OSError: the disk is full, or will not be written; what was saved before stays.
        """
        step = int(state.step)
        final = self.folder / str(step)
        content = {
            "format": _FORMAT,
            "progress": progress,
            "keep": sorted(set(keep) - {step}),
            "arrays": _describe(state),
            "frozen": self._digest_frozen(state),
        }
        try:
            if processes.first(lambda: self._is_saved(step)):
                processes.first(lambda: self._replace_progress(final, content))
            else:
                self._save_arrays(state, final, content)
        except Exception as error:  # tensorstore raises ValueError for a full disk
            others = [other for other in self._usable() if other != step]
            rest = (
                f"that of step {others[-1]} is untouched" if others else "there is no earlier one"
            )
            raise OSError(
                f"the checkpoint of step {step} could not be written to {self.folder}: "
                f"{_reason(error)}; {rest}"
            ) from error
        self._set_aside.discard(step)
        self._intact.add(step)
        if processes.is_first():
            self._prune()

    def _is_saved(self, step):
        return step in self._usable() and not self._inspect(step)

    def _replace_progress(self, final, content):
        _write(final, content | {"files": _read(final)["files"]})
        self._note_saved(int(final.name))

    def _save_arrays(self, state, final, content):
        with contextlib.ExitStack() as held:

            def begin():
                regular_files.check_real_folder(self.folder)
                self.folder.mkdir(parents=True, exist_ok=True)
                return str(held.enter_context(partials.partial_folder(final)))

            def finish():
                _write(partial, content | {"files": _digests(partial)})
                self._remove(int(final.name))
                # Where something of another's has this name, it fails.
                os.rename(partial, final)
                self._note_saved(int(final.name))

            partial = Path(processes.first(begin))
            arrays = ocp.args.StandardSave(_fetched(_saved_part(state)))
            with _quiet():
                self._orbax.save(partial / "state", args=arrays)
            processes.first(finish)

    def _note_saved(self, step):
        written = sorted({*self._steps(), step})
        _replace_json(self.folder / "saved.json", {"step": step, "written": written})

    def latest(self) -> tuple[int | None, list[str]]:
        """Finds the latest checkpoint that is as it was written, and so are those it keeps.

        Returns:
          (its step, what was found wrong with later ones); (None, []) where nothing was saved.

        Raises:
          ValueError: there were checkpoints and none is usable.
        """
        step, notes = processes.first(self._find_latest)
        return step, notes

    def _find_latest(self):
        notes = []
        steps = self._steps()
        last = self._last_saved()
        if last == _UNKNOWN and not steps:
            notes.append("saved.json says that there was one, but it is gone")
        elif last not in (None, _UNKNOWN, *steps):
            notes.append(f"the checkpoint of step {last} in {self.folder} is gone")
        for step in reversed(steps):
            found = [(needed, self._inspect(needed)) for needed in (step, *self._kept_by(step))]
            wrong = [(needed, words) for needed, words in found if words]
            if not wrong:
                return step, notes
            self._set_aside.add(step)
            needed, words = wrong[0]
            whose = "" if needed == step else f", which that of step {step} needs,"
            notes.append(f"the checkpoint of step {needed}{whose} in {self.folder} {words}")
        if notes:
            raise ValueError(
                f"no checkpoint in {self.folder} is usable: {'; '.join(notes)}; give a new folder "
                "to start again"
            )
        return None, []

    def restore(self, state: TrainState, step: int) -> tuple[TrainState, dict]:
        """Restores a step.

        Args:
          state: of the same shapes; gives `frozen` and where arrays live.
          step: one that was saved.

        Returns:
          (state, progress).

        Raises:
          ValueError: the checkpoint does not fit the state (lists the differences), is
            damaged, or a newer version wrote it.
        """
        where = f"the checkpoint of step {step} in {self.folder}"
        content = processes.first(lambda: self._read_intact(step, where))
        gone = {name: content["arrays"].pop(name, None) for name in _GONE}
        _check_arrays(where, content["arrays"], _describe(state))
        if content["frozen"] != self._digest_frozen(state):
            raise ValueError(
                f"{where} does not fit this run: the frozen parameters are not those it was "
                "trained with; the backbone's weights have changed since"
            )
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, _saved_part(state))
        # Orbax wants to be told of everything that it reads.
        like_step = target["step"]
        target |= {name: _described(text, like_step) for name, text in gone.items() if text}
        try:
            restored = self._orbax.restore(
                self.folder / str(step) / "state", args=ocp.args.StandardRestore(target)
            )
        except Exception as error:  # Orbax raises bare Exceptions as well
            raise ValueError(f"{where} is damaged: {_reason(error)}") from error
        like = state._asdict()
        del like["frozen"]
        tree = jax.tree.map(
            lambda x, old: (
                jax.random.wrap_key_data(x, impl=jax.random.key_impl(old)) if _is_key(old) else x
            ),
            {name: leaf for name, leaf in dict(restored).items() if name not in _GONE},
            like,
        )
        return TrainState(**tree, frozen=state.frozen), content["progress"]

    def _read_intact(self, step, where):
        if wrong := self._inspect(step):
            raise ValueError(f"{where} {wrong}")
        return _read(self.folder / str(step))

    def last_sizes(self, wanted: Callable[[str], bool]) -> set[int]:
        """Returns the last axis of the arrays whose paths are wanted, of the latest step.

        As its description says, before anything is read; empty where that is damaged.
        """
        found: set[int] = set()
        with contextlib.suppress(OSError, ValueError, IndexError):
            arrays = _read(self.folder / str(self._steps()[-1]))["arrays"]
            for name, text in arrays.items():
                if wanted(name):
                    found.add(int(str(text).rstrip("]").rpartition("[")[2].rpartition(",")[2]))
        return found

    def close(self) -> None:
        """Releases the folder."""
        self._orbax.close()

    def _steps(self):
        # Links are of nobody's making here, and names such as "007" neither.
        if regular_files.kind_of(self.folder) != "a folder":
            return []
        found = [
            int(name)
            for name in os.listdir(self.folder)
            if _is_step(name) and regular_files.kind_of(self.folder / name) == "a folder"
        ]
        written = self._read_saved().get("written")
        return sorted(found if written is None else set(found) & set(written))

    def _read_saved(self):
        # {} where nothing was saved, or what was is not known.
        try:
            text = regular_files.read_text(self.folder / "saved.json", _MOST_JSON)
            content = json.loads(text)
            steps = [content["step"], *content.get("written", [])]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}
        return content if all(type(step) is int for step in steps) else {}

    def _written(self):
        # Earlier versions did not list them.
        written = self._read_saved().get("written")
        return self._steps() if written is None else written

    def _last_saved(self):
        if not regular_files.kind_of(self.folder / "saved.json"):
            return None
        return self._read_saved().get("step", _UNKNOWN)

    def _kept_by(self, step):
        try:
            return _read(self.folder / str(step))["keep"]
        except (OSError, ValueError):
            return []

    def _usable(self):
        return [step for step in self._steps() if step not in self._set_aside]

    def _inspect(self, step):
        # What is wrong with a step, in words; "" if nothing is. Files are read once a process.
        if step in self._intact:
            return ""
        folder = self.folder / str(step)
        try:
            content = _read(folder)
            if content["format"] > _FORMAT:
                return f"is of a newer dwa_jax (format {content['format']}, not {_FORMAT})"
            _check_bytes(folder, content["arrays"])
            wrong = _differences(content["files"], _digests(folder))
        except FileNotFoundError as error:
            wrong = f"{Path(error.filename).name} is missing"
        except (OSError, ValueError) as error:
            wrong = _reason(error)
        if wrong:
            return f"is damaged: {wrong}"
        self._intact.add(step)
        return ""

    def _prune(self):
        # Those set aside do not count: they would push out what a restart can use.
        latest = self._usable()[-2:]
        kept = {*latest, *(step for other in latest for step in self._kept_by(other))}
        for step in self._steps():
            if step not in kept:
                with contextlib.suppress(OSError):
                    self._remove(step)
        for name in os.listdir(self.folder):
            step = name.removeprefix(".").partition(".")[0]
            if _is_step(step) and partials.is_partial(name, step):
                partials.clear(self.folder / step)

    def _remove(self, step):
        # Only what was written and recorded: a step's folder that holds more stays as it is.
        folder = self.folder / str(step)
        if regular_files.kind_of(folder) != "a folder" or step not in self._written():
            return
        try:
            recorded = {"checkpoint.json", *_read(folder)["files"]}
        except (OSError, ValueError):  # damaged, and so the list as well
            recorded = None
        there = [(name, kind) for name, kind in regular_files.walk(folder) if kind != "a folder"]
        for name, kind in there:
            state = name == "checkpoint.json" or name.startswith("state/")
            if kind != "a file" or not (state if recorded is None else name in recorded):
                return
        # Out of the way at once: half of a checkpoint must not look like one.
        with partials.partial_folder(folder) as aside:
            os.rename(folder, aside)

    def _digest_frozen(self, state):
        if self._frozen is None:
            found = hashlib.sha256()
            for leaf in jax.tree.leaves(state.frozen):
                sample = leaf[tuple(slice(None, None, max(1, n // _SAMPLE)) for n in leaf.shape)]
                found.update(sharding.to_host(sample).tobytes())
            self._frozen = found.hexdigest()
        return self._frozen


def remove_all(folder: str | Path) -> None:
    """Removes every checkpoint that was written to a folder, and the folder if nothing is left."""
    checkpoints = Checkpoints(folder)
    with contextlib.suppress(OSError):
        for step in checkpoints._steps():
            checkpoints._remove(step)
        if not checkpoints._steps() and regular_files.kind_of(checkpoints.folder) == "a folder":
            (checkpoints.folder / "saved.json").unlink(missing_ok=True)
            checkpoints.folder.rmdir()
    checkpoints.close()


class MemoryCheckpoints:
    """Takes the place of `Checkpoints` where nothing is to be left on a disk.

    Holds a copy of the best state alone, on the host: a process that ends has nothing to
    continue from.
    """

    folder = "memory"

    def __init__(self) -> None:
        self._best: tuple[int, Any, dict] | None = None

    def save(self, state: TrainState, progress: dict, *, keep: Sequence[int] = ()) -> None:
        """Takes a copy of the state if its own step is one to be kept."""
        step = int(state.step)
        if step in keep:
            part = state._replace(frozen=None)
            copy = jax.tree.map(lambda x: x.copy() if _is_key(x) else np.array(x), part)
            self._best = step, copy, dict(progress)

    def latest(self) -> tuple[int | None, list[str]]:
        """Returns (None, []): a run begins at its first step."""
        return None, []

    def restore(self, state: TrainState, step: int) -> tuple[TrainState, dict]:
        """Returns what was saved at the best step, placed as `state` is.

        Raises:
          ValueError: it is not there.
        """
        if self._best is None or self._best[0] != step:
            raise ValueError(f"no state of step {step} is held in memory")
        _, copy, progress = self._best
        placed = jax.tree.map(
            lambda x, like: jax.device_put(x, like.sharding), copy, state._replace(frozen=None)
        )
        return placed._replace(frozen=state.frozen), progress

    def close(self) -> None:
        """Lets go of the copy."""
        self._best = None


@contextlib.contextmanager
def _quiet():
    # The threads of Orbax and tensorstore print tracebacks besides raising what they ran into.
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    disabled = [logger.disabled for logger in loggers]
    said = io.StringIO()
    try:
        for logger in loggers:
            logger.disabled = True
        with contextlib.redirect_stderr(said):
            yield
    except Exception:
        said = io.StringIO()
        raise
    finally:
        for logger, before in zip(loggers, disabled, strict=True):
            logger.disabled = before
        sys.stderr.write(said.getvalue())


def _saved_part(state: TrainState) -> dict[str, Any]:
    # Orbax knows numbers only: keys, of which a weighting may hold one too, go as theirs.
    tree = state._asdict()
    del tree["frozen"]
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def _fetched(tree):
    # Orbax writes NumPy's arrays in half of the time: of others it cuts a piece for each device
    # that has a copy. Those that several devices or processes share out stay theirs.
    def is_whole(x):
        return x.is_fully_replicated and x.is_fully_addressable

    leaves, structure = jax.tree.flatten(tree)
    fetched = iter(jax.device_get([x for x in leaves if is_whole(x)]))
    return jax.tree.unflatten(structure, [next(fetched) if is_whole(x) else x for x in leaves])


def _is_key(x):
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _describe(state):
    # Path -> type and shape of every array, as plain text.
    leaves = jax.tree.leaves_with_path(_saved_part(state))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }


def _described(text, like):
    # The other way round, for one array that is read and left.
    dtype = text.partition("[")[0]
    return jax.ShapeDtypeStruct(tuple(_sizes(text)), dtype, sharding=like.sharding)


def _check_arrays(where, there, here):
    # Before the arrays are read: Orbax's own message does not say what differs.
    paths = sorted(path for path in {**there, **here} if there.get(path) != here.get(path))
    if paths:
        changes = [
            f"{p}: {there.get(p, 'nothing')} there, {here.get(p, 'nothing')} here"
            for p in paths[:5]
        ]
        more = [f"and {len(paths) - 5} more"] if len(paths) > 5 else []
        raise ValueError(f"{where} does not fit this run: {'; '.join(changes + more)}")


def _is_step(name):
    return name.isascii() and name.isdecimal() and str(int(name)) == name


def _check_bytes(folder, arrays):
    # Before they are read: a file of nothing but a hole may claim any size.
    try:
        held = sum(
            math.prod(_sizes(text)) * np.dtype(text.partition("[")[0]).itemsize
            for text in arrays.values()
        )
    except (AttributeError, TypeError, ValueError):
        raise ValueError("checkpoint.json describes no arrays") from None
    there = sum(
        os.lstat(folder / name).st_size
        for name, kind in regular_files.walk(folder)
        if kind == "a file"
    )
    if there > 2 * held + _OVERHEAD:
        raise ValueError(f"its files have {there:,} bytes, and its arrays {held:,}")


def _sizes(text):
    return [int(size) for size in text.rstrip("]").partition("[")[2].split(",") if size.strip()]


def _digests(folder):
    # Relative path -> SHA-256 of every file but the one that holds them.
    regular_files.check_tree(folder)
    return {
        name: regular_files.file_digest(folder / name)
        for name, kind in regular_files.walk(folder)
        if kind == "a file" and "/" in name
    }


def _differences(stored, there):
    found = [f"{name} is missing" for name in stored if name not in there]
    found += [
        f"{name} has changed" for name in stored if there.get(name, "") not in ("", stored[name])
    ]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more


def _own_digest(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write(folder, content):
    _replace_json(folder / "checkpoint.json", {**content, "digest": _own_digest(content)})


def _read(folder):
    path = folder / "checkpoint.json"
    try:
        content = json.loads(regular_files.read_text(path, _MOST_JSON))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    if not isinstance(content, dict) or content.pop("digest", None) != _own_digest(content):
        raise ValueError(f"{path.name} has changed")
    if not content.keys() >= _KEYS:
        raise ValueError(f"{path.name} has no {', '.join(sorted(_KEYS - content.keys()))}")
    # Of a newer format only the number is known. A digest tells of accidents, not of strangers.
    number = content.get("format")
    known = {} if isinstance(number, int) and number > _FORMAT else _FIELDS
    for name, kind in {"format": int, **known}.items():
        if not isinstance(content.get(name), kind):
            raise ValueError(f"{path.name} has no {name} of type {kind.__name__}")
    if known and not all(isinstance(step, int) for step in content["keep"]):
        raise ValueError(f"{path.name} keeps something else than steps")
    return content


def _replace_json(path, value):
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(value, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _reason(error):
    # Without the pages of specification that tensorstore adds.
    text = " ".join(str(error).split())
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
        if os.strerror(code) in text:
            return os.strerror(code)
    return one_line(error)
