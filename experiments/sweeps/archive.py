"""The finished runs of sweeps in one file, without their texts: to go on elsewhere, or to publish.

A sweep of hundreds of runs takes days, and the texts of its datasets may be nobody's to hand on.
What the report needs of them is which ones are equal, and a digest says that. Probabilities,
which it does not need, are two thirds of the numbers, and are left out as well.
"""

import csv
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dwa_jax import data
from dwa_jax.atomic_files import replacing
from experiments.sweeps.runner import SUMMARY

# What `collect` and `tuning` read. The summary last: a folder that has it is finished.
_CONFIG, _PREDICTIONS = "config.json", "predictions.csv"
FILES = (_CONFIG, "metrics.jsonl", _PREDICTIONS, SUMMARY)
_MEMBER = re.compile(
    r"[^/.][^/]*/[^/.][^/]*/[0-9a-f]{10}/seed\d+/(config\.json|metrics\.jsonl|predictions\.csv|"
    r"summary\.json)"
)
_MOST = 2**26  # bytes of one file
_LONG = 16  # digits of a digest
_DIGEST = re.compile(f"[0-9a-f]{{{_LONG}}}")


def pack(cells: Path, path: Path) -> int:
    """Writes every finished run into an archive, and what it held of others.

    Args:
      cells: folder of the runs.
      path: of the archive, a tar file under xz; the same runs give the same bytes.

    Returns:
      How many runs it holds.

    Raises:
      ValueError: there is such a file, and it is no archive of runs.
    """
    kept = {name: content for name, content in _members(path)} if path.exists() else {}
    for summary in sorted(cells.glob(f"*/*/*/seed*/{SUMMARY}")):
        for name in FILES:
            file = summary.with_name(name)
            content = file.read_bytes()
            if name == _PREDICTIONS:
                content = _without_texts(content)
            elif name == _CONFIG:
                content = _without_places(content)
            kept[file.relative_to(cells).as_posix()] = content
    with replacing(path) as partial, tarfile.open(partial, "w:xz") as archive:
        # Like beside like, which packs best.
        for name in sorted(kept, key=lambda name: (PurePosixPath(name).name, name)):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(kept[name]), 0o644
            archive.addfile(member, io.BytesIO(kept[name]))
    return sum(name.endswith(SUMMARY) for name in kept)


def unpack(path: Path, cells: Path) -> int:
    """Makes the folders of those runs of an archive that are not there.

    Args:
      path: of the archive.
      cells: folder of the runs.

    Returns:
      How many were made.

    Raises:
      ValueError: it is no archive of runs.
    """
    runs: dict[PurePosixPath, dict[str, bytes]] = {}
    for name, content in _members(path):
        place = PurePosixPath(name)
        runs.setdefault(place.parent, {})[place.name] = content
    made = 0
    for folder, files in runs.items():
        if not set(FILES) <= set(files):
            raise ValueError(f"{path}: of {folder} it lacks {min(set(FILES) - set(files))}")
        made_here = cells / folder
        if made_here.exists():
            continue
        # Whole or not at all: half of one would look like a run to go on with.
        partial = made_here.with_name(f".{made_here.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (partial / name).write_bytes(files[name])
        partial.rename(made_here)
        made += 1
    return made


def digest_of_text(text: str) -> str:
    """Returns what stands for a text in an archive: equal for equal texts, and for itself."""
    if _DIGEST.fullmatch(text):
        return text
    read = data.normalize_text(text).encode("utf-8", "surrogatepass")
    return hashlib.sha256(read).hexdigest()[:_LONG]


def _members(path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path, "r:xz") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                if file is None or not _MEMBER.fullmatch(member.name) or member.size > _MOST:
                    raise ValueError(f"{path}: {member.name!r} is not a file of a sweep's run")
                yield member.name, file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not an archive of a sweep's runs: {error}") from None


def _without_places(content: bytes) -> bytes:
    """Returns a config.json whose absolute paths are their last parts: of another's machine."""
    found = json.loads(content)
    keys = found["config"]
    for key, value in keys.items():
        if isinstance(value, str) and Path(value).is_absolute():
            keys[key] = Path(value).name
    return (json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def _without_texts(content: bytes) -> bytes:
    """Returns a predictions.csv with digests for texts, and without probabilities."""
    rows = list(csv.reader(io.StringIO(content.decode("utf-8", "surrogatepass"), newline="")))
    kept = [i for i, name in enumerate(rows[0]) if not name.startswith("probability_")]
    column = rows[0].index("text")
    for row in rows[1:]:
        row[column] = digest_of_text(row[column])
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([row[i] for i in kept] for row in rows)
    return out.getvalue().encode("utf-8", "surrogatepass")
