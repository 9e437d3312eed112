"""Rows of large files kept on disk from one process to the next, and mapped into memory.

What is kept is found by the files' contents and by all that says how they are read. Arrow's IPC
format, one batch of N rows.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dwa_jax import data
from dwa_jax.data import same_texts
from dwa_jax.finetune import disk_cache

Read = tuple[data.Rows, list[data.LeftOut], list[str]]
_FILE, _ABOUT = "rows.arrow", b"about"


def read_once(
    make: Callable[..., tuple[data.Rows, list[data.LeftOut]]],
    files: Sequence[str | Path],
    settings: Mapping[str, Any],
    normalize: Callable[[str], str] | None,
    note: Callable[[str], None],
) -> tuple[data.Rows, list[data.LeftOut]]:
    """Does what `data.read` does; of many rows, once.

    Args:
      make: reads files with these settings, and takes `note`.
      files: what is read.
      settings: how.
      normalize: what texts go through before they are compared.
      note: told, in a line each, what was found that the files' names do not tell.

    Raises:
      ValueError, data.DataError: as `make`; nothing is kept then.
    """

    def read() -> Read:
        notes: list[str] = []
        return *make(files, note=notes.append, **settings), notes

    name = _name(files, settings, normalize) if disk_cache.is_enabled() else None
    if name is None:
        rows, left_out, notes = read()
    else:
        rows, left_out, notes = disk_cache.once(
            name,
            read,
            functools.partial(_write, name=name, files=files, given=settings, normalize=normalize),
            functools.partial(_read, name=name, normalize=normalize),
        )
    for line in notes:
        note(line)
    return rows, left_out


def _name(files, settings, normalize):
    # None where something else than files on this machine is read, or too little to be kept.
    digest = hashlib.blake2b(digest_size=16)
    size = 0
    try:
        for file in files:
            found = os.stat(file)
            if not stat.S_ISREG(found.st_mode):
                return None
            size += found.st_size
        if size < disk_cache.LEAST_TEXTS:
            return None
        for file in files:
            with open(file, "rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
            digest.update(f"{file!s}\0{content}\0".encode("utf-8", "surrogateescape"))
    except (OSError, ValueError):  # not there, or no name that a file can have
        return None
    how = [repr(sorted(settings.items())), getattr(normalize, "__name__", "")]
    digest.update(json.dumps([*how, importlib.metadata.version("pyarrow"), _sources()]).encode())
    return f"rows_{digest.hexdigest()}"


@functools.cache
def _sources():
    # What reads them; it may be another one tomorrow.
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(data.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _write(folder, made, *, name, files, given, normalize):
    import pyarrow as pa

    rows, left_out, notes = made
    # A file that was written to meanwhile is another one than its name says.
    if len(rows) < disk_cache.LEAST_TEXTS or _name(files, given, normalize) != name:
        return False
    names, which, numbers = rows.origin.columns
    columns = {
        "text": pa.array(rows.texts, pa.large_string()),
        "score": rows.scores,
        "category": rows.categories,
        "which": which,
        "number": numbers,
        "digest": same_texts.text_digests(rows.texts, normalize),
    }
    for column, values in (("split", rows.splits), ("group", rows.groups)):
        if values is not None:
            columns[column] = pa.array(values, pa.large_string())
    if rows.times is not None:
        columns["time"] = rows.times
    about = json.dumps({"files": list(names), "left_out": left_out, "notes": notes})
    table = pa.table(columns).replace_schema_metadata({_ABOUT: about.encode()})
    with pa.OSFile(str(folder / _FILE), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
        out.write_table(table, max_chunksize=None)
    return True


def _read(folder, *, name, normalize):
    import pyarrow as pa

    # `once` knows what may be raised.
    file = pa.ipc.open_file(pa.memory_map(str(folder / _FILE)))
    if file.num_record_batches != 1:
        return None
    batch = file.get_batch(0)
    batch.validate(full=True)
    about = json.loads((file.schema.metadata or {})[_ABOUT])
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))

    def numbers(column):
        return columns[column].to_numpy(zero_copy_only=True)

    source = data.KeptSource(name, columns["text"], numbers("digest"), normalize)
    rows = data.Rows(
        texts=data.KeptTexts(source),
        scores=numbers("score"),
        categories=numbers("category"),
        origin=data.Origins(about["files"], numbers("which"), numbers("number")),
        splits=columns["split"].to_pylist() if "split" in columns else None,
        groups=columns["group"].to_pylist() if "group" in columns else None,
        times=numbers("time") if "time" in columns else None,
    )
    return rows, [data.LeftOut(*one) for one in about["left_out"]], about["notes"]
