"""Finds a model's files and reads its tensors one at a time.

The files may come from a stranger. Nothing in them is executed, nothing outside the
model's folder is opened because of what they say, and whatever is wrong with them is a
`BackboneError` of one line.

No arrays are combined here, so no axis letters.
"""

import collections
import contextlib
import importlib.util
import json
import os
import pathlib
import re
import struct
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from dwa_jax import regular_files
from dwa_jax.backbones.config import BackboneError
from dwa_jax.messages import one_line, shown

CONFIG = "config.json"
SAFE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TORCH = "pytorch_model.bin"

# Bytes of an index, and of the header of a safetensors file: far above any model's. And of
# other JSON files: lists of nothing would take twenty times their length in memory.
MAX_JSON = 100_000_000
MAX_CONFIG = 10_000_000

# The first torch whose `weights_only` keeps a file's own code from running (CVE-2025-32434).
SAFE_TORCH = (2, 6)

# Seconds for the hub to answer at all; a download that has begun may take longer.
HUB_TIMEOUT = 10


def locate(path_or_id: str | pathlib.Path) -> pathlib.Path:
    """Returns the local folder of a model, downloading it where need be.

    Args:
      path_or_id: a folder, or a Hugging Face hub id such as "Qwen/Qwen2-0.5B".

    Returns:
      A folder with `config.json` and weights.

    Raises:
      BackboneError: neither a folder nor something the hub, or its local cache, has.
    """
    # Unlike Path.expanduser, it leaves the name of a user whom nobody knows as it is.
    folder = pathlib.Path(os.path.expanduser(path_or_id))
    if folder.is_dir():
        if not (folder / CONFIG).exists() and (packed := sorted(folder.glob("*.gguf"))):
            raise BackboneError(_of_gguf(packed[0]))
        return folder
    name = str(path_or_id)
    if folder.is_file() and folder.suffix.lower() == ".gguf":
        raise BackboneError(_of_gguf(name))
    if folder.exists():
        raise BackboneError(f"{name} is a file; give the folder that holds it and {CONFIG}")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", name):
        raise BackboneError(f"{name!r} is neither a folder nor a hub id such as Qwen/Qwen2-0.5B")
    try:
        return _download(name)
    except Exception as error:  # the hub's client raises many unrelated types
        reason = str(error).strip().splitlines()[:1] or [""]  # the rest is advice
        raise BackboneError(
            f"no folder {name!r}, and the Hugging Face hub did not give it "
            f"({type(error).__name__}: {reason[0]}); download the model where there is a network "
            f"and give the folder that holds its {CONFIG} and weights"
        ) from error


def _of_gguf(path):
    return (
        f"{path} is a GGUF file, whose weights are quantized; make a folder of it with "
        f"docs/examples/gguf_to_folder.py of the sources: python gguf_to_folder.py {path} FOLDER"
    )


def cached(name: str) -> pathlib.Path | None:
    """Returns the folder of a model in the hub's local cache, without asking the hub.

    None where it is not there.
    """
    import huggingface_hub

    try:
        return pathlib.Path(huggingface_hub.snapshot_download(name, local_files_only=True))
    except Exception:  # whatever is no id of the hub, or not in the cache
        return None


def _download(name):
    import huggingface_hub

    patterns, revision = [CONFIG, SAFE, INDEX, "model-*.safetensors", TORCH], None
    try:
        # One bounded request decides everything: reachable or not, and which format.
        info = huggingface_hub.HfApi().model_info(name, timeout=HUB_TIMEOUT)
    except huggingface_hub.errors.RepositoryNotFoundError:
        raise
    except Exception:
        local_only = True
    else:
        local_only, revision = False, info.sha
        found = {file.rfilename for file in info.siblings or ()}
        if SAFE in found or INDEX in found:
            patterns.remove(TORCH)
    return pathlib.Path(
        huggingface_hub.snapshot_download(
            name,
            revision=revision,
            allow_patterns=patterns,
            local_files_only=local_only,
            etag_timeout=HUB_TIMEOUT,
        )
    )


def read_json(path: pathlib.Path, most: int = MAX_CONFIG) -> dict:
    """Reads a JSON object.

    Args:
      path: the file.
      most: bytes that it may have.

    Returns:
      The dictionary.

    Raises:
      BackboneError: missing, too long, unreadable or something other than an object.
    """
    value = parse_json(path, most)
    if not isinstance(value, dict):
        raise BackboneError(f"{path} holds {type(value).__name__}, not an object")
    return value


def parse_json(path: pathlib.Path, most: int = MAX_CONFIG) -> Any:
    """Reads a JSON file; one that is a link is followed.

    Args:
      path: the file.
      most: bytes that it may have.

    Returns:
      Whatever value it holds.

    Raises:
      BackboneError: missing, too long or unreadable.
    """
    try:
        _check_file(path)
        # Resolved, for what follows no links and waits for nothing opens it: a hub cache's are
        # links, and some of the system's files are regular ones that are read for ever.
        return json.loads(regular_files.read_text(pathlib.Path(os.path.realpath(path)), most))
    except FileNotFoundError as error:
        raise BackboneError(f"{path} does not exist") from error
    except BackboneError:
        raise
    # ValueError: no UTF-8, no JSON, or an integer of too many digits.
    except (OSError, ValueError, RecursionError) as error:
        raise BackboneError(f"{path} is not readable JSON ({one_line(error)})") from error


def _check_file(path):
    # A link to a device or a pipe could be read for ever; a link to a file is the hub cache's way.
    if path.exists() and not path.is_file():
        raise BackboneError(f"{path} is not a regular file")


@contextlib.contextmanager
def open_tensors(folder: pathlib.Path) -> Iterator[dict]:
    """Opens a model's weights without reading them.

    Args:
      folder: holds `model.safetensors`, its sharded form with an index, or
        `pytorch_model.bin`; the first of these that is there is used.

    Yields:
      A dictionary, tensor name -> (shape, function that reads it as a numpy array).

    Raises:
      BackboneError: no weights, a damaged file, or an index that does not fit its files.
    """
    with contextlib.ExitStack() as stack:
        if (folder / SAFE).exists():
            yield open_safetensors(stack, folder / SAFE)
        elif (folder / INDEX).exists():
            yield _sharded(stack, folder)
        elif (folder / TORCH).exists():
            yield _torch(folder / TORCH)
        else:
            raise BackboneError(f"{folder} holds none of {SAFE}, {INDEX}, {TORCH}")


def open_safetensors(stack: contextlib.ExitStack, path: pathlib.Path) -> dict:
    """Opens one safetensors file without reading its tensors.

    Args:
      stack: keeps the file open.
      path: the file.

    Returns:
      Tensor name -> (shape, function that reads it as a numpy array).

    Raises:
      BackboneError: a damaged file.
    """
    _check_file(path)
    # The library checks that header, offsets, types and shapes account for every byte.
    try:
        file = stack.enter_context(safetensors.safe_open(path, framework="numpy"))
    # MemoryError: it is mapped as a whole, for which the address space may be too small.
    except (safetensors.SafetensorError, OSError, MemoryError) as error:
        raise BackboneError(
            f"{path} is not a readable safetensors file ({one_line(error)})"
        ) from error
    _check_names(path)

    def read(name):
        try:
            return file.get_tensor(name)
        except (safetensors.SafetensorError, TypeError, AttributeError) as error:
            kind = file.get_slice(name).get_dtype()
            raise BackboneError(
                f"{path}: cannot read {shown(name)} of type {kind} ({one_line(error)})"
            ) from error

    names = file.keys()
    return {
        name: (tuple(file.get_slice(name).get_shape()), lambda name=name: read(name))
        for name in names
    }


def _check_names(path):
    # Of two tensors of one name the library gives the second, in silence.
    def once(pairs):
        if len(dict(pairs)) < len(pairs):
            name, _ = collections.Counter(name for name, _ in pairs).most_common(1)[0]
            raise BackboneError(f"{path}: {shown(name)} is twice in the header")
        return dict(pairs)

    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        json.loads(file.read(length), object_pairs_hook=once)


def _sharded(stack, folder):
    weight_map = read_json(folder / INDEX, MAX_JSON).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BackboneError(f"{folder / INDEX} has no weight_map")
    shards, tensors = {}, {}
    for name, shard in weight_map.items():
        # By its name and not by its target: in a hub cache every file is a link elsewhere.
        if not isinstance(shard, str) or shard in ("", ".", "..") or re.search(r"[/\\:]", shard):
            raise BackboneError(
                f"{folder / INDEX} names {shown(shard)}, which is not in its folder"
            )
        if shard not in shards:
            if not _exists(folder / shard):
                raise BackboneError(f"{folder / INDEX} names {shown(shard)}, which does not exist")
            shards[shard] = open_safetensors(stack, folder / shard)
        if name not in shards[shard]:
            raise BackboneError(f"{folder / shard} lacks {shown(name)}, which {INDEX} promises")
        tensors[name] = shards[shard][name]
    return tensors


def _exists(path):
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        return False


def _torch(path):
    _check_file(path)
    if importlib.util.find_spec("torch") is None:
        raise BackboneError(f"{path} needs torch to be read; install it, or save as {SAFE}")
    import torch

    if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < SAFE_TORCH:
        raise BackboneError(
            f"{path} needs torch {'.'.join(map(str, SAFE_TORCH))} to be read without risk, "
            f"got {torch.__version__}; install that, or save as {SAFE}"
        )
    try:
        # weights_only: unpickling anything else could run the file's own code.
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and OS errors alike
        raise BackboneError(
            f"{path} is not a readable file of tensors ({one_line(error)})"
        ) from error
    if not isinstance(tensors, dict) or not all(map(torch.is_tensor, tensors.values())):
        raise BackboneError(f"{path} is not a dictionary of tensors")
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise BackboneError(f"{path} names a tensor with {shown(name)}, not with a string")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise BackboneError(f"{path}: {shown(name)} is not a plain array of numbers")
        # Steps of 0 make a huge tensor of a single number.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise BackboneError(
                f"{path}: {shown(name)} is {tuple(tensor.shape)}, more than the file holds of it"
            )

    def read(tensor):
        tensor = tensor.detach().resolve_conj().resolve_neg()
        if tensor.dtype == torch.bfloat16:
            return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        try:
            return tensor.numpy()
        except (TypeError, RuntimeError) as error:
            raise BackboneError(
                f"{path}: cannot read a tensor of type {tensor.dtype} ({one_line(error)})"
            ) from error

    return {
        name: (tuple(tensor.shape), lambda tensor=tensor: read(tensor))
        for name, tensor in tensors.items()
    }


def save_tensors(path: str | pathlib.Path, tensors: dict) -> None:
    """Writes tensors as a safetensors file that transformers and torch read.

    Args:
      path: the file, usually `model.safetensors`.
      tensors: name -> array, as `to_huggingface` returns them.
    """
    # The writer copies raw memory: a transposed view would be written untransposed.
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    safetensors.numpy.save_file(tensors, str(path), metadata={"format": "pt"})
