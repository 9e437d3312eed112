"""Finds a model's files and reads its tensors one at a time.

No arrays are combined here, so no axis letters.
"""

import contextlib
import importlib.util
import json
import pathlib
import re

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from dwa_jax.backbones.config import BackboneError

CONFIG = "config.json"
SAFE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TORCH = "pytorch_model.bin"

# Seconds for the hub to answer at all; a download that has begun may take longer.
HUB_TIMEOUT = 10


def locate(path_or_id) -> pathlib.Path:
    """Returns the local folder of a model, downloading it where need be.

    Args:
      path_or_id: a folder, or a Hugging Face hub id such as "Qwen/Qwen2-0.5B".

    Returns:
      A folder with `config.json` and weights.

    Raises:
      BackboneError: neither a folder nor something the hub, or its local cache, has.
    """
    folder = pathlib.Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder
    name = str(path_or_id)
    if folder.exists():
        raise BackboneError(f"{name} is a file; give the folder that holds it and {CONFIG}")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", name):
        raise BackboneError(f"{name!r} is neither a folder nor a hub id such as Qwen/Qwen2-0.5B")
    try:
        return _download(name)
    except Exception as error:  # the hub's client raises many unrelated types
        reason = str(error).strip().splitlines()[:1] or [""]
        raise BackboneError(
            f"no folder {name!r}, and the Hugging Face hub did not give it "
            f"({type(error).__name__}: {reason[0]}); download the model where there is a network "
            f"and give the folder that holds its {CONFIG} and weights"
        ) from error


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


def read_json(path: pathlib.Path) -> dict:
    """Reads a JSON object.

    Args:
      path: the file.

    Returns:
      The dictionary.

    Raises:
      BackboneError: missing, unreadable or something other than an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BackboneError(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BackboneError(f"{path} is not readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise BackboneError(f"{path} holds {type(value).__name__}, not an object")
    return value


@contextlib.contextmanager
def open_tensors(folder: pathlib.Path):
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
            yield _safe(stack, folder / SAFE)
        elif (folder / INDEX).exists():
            yield _sharded(stack, folder)
        elif (folder / TORCH).exists():
            yield _torch(folder / TORCH)
        else:
            raise BackboneError(f"{folder} holds none of {SAFE}, {INDEX}, {TORCH}")


def _safe(stack, path):
    try:
        file = stack.enter_context(safetensors.safe_open(path, framework="numpy"))
    except (safetensors.SafetensorError, OSError) as error:
        raise BackboneError(f"{path} is not a readable safetensors file ({error})") from error

    def read(name):
        try:
            return file.get_tensor(name)
        except (safetensors.SafetensorError, TypeError, AttributeError) as error:
            kind = file.get_slice(name).get_dtype()
            raise BackboneError(f"{path}: cannot read {name} of type {kind} ({error})") from error

    names = file.keys()
    return {
        name: (tuple(file.get_slice(name).get_shape()), lambda name=name: read(name))
        for name in names
    }


def _sharded(stack, folder):
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BackboneError(f"{folder / INDEX} has no weight_map")
    shards, tensors = {}, {}
    for name, shard in weight_map.items():
        # By its name and not by its target: in a hub cache every file is a link elsewhere.
        if not isinstance(shard, str) or shard in ("", ".", "..") or re.search(r"[/\\:]", shard):
            raise BackboneError(f"{folder / INDEX} names {shard!r}, which is not in its folder")
        if shard not in shards:
            if not (folder / shard).exists():
                raise BackboneError(f"{folder / INDEX} names {shard}, which does not exist")
            shards[shard] = _safe(stack, folder / shard)
        if name not in shards[shard]:
            raise BackboneError(f"{folder / shard} lacks {name}, which {INDEX} promises")
        tensors[name] = shards[shard][name]
    return tensors


def _torch(path):
    if importlib.util.find_spec("torch") is None:
        raise BackboneError(f"{path} needs torch to be read; install it, or save as {SAFE}")
    import torch

    try:
        # weights_only: unpickling anything else could run the file's own code.
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and OS errors alike
        reason = str(error).strip().splitlines()[:1] or [""]
        raise BackboneError(f"{path} is not a readable file of tensors ({reason[0]})") from error
    if not isinstance(tensors, dict) or not all(map(torch.is_tensor, tensors.values())):
        raise BackboneError(f"{path} is not a dictionary of tensors")

    def read(tensor):
        if tensor.dtype == torch.bfloat16:
            return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()

    return {
        name: (tuple(tensor.shape), lambda tensor=tensor: read(tensor))
        for name, tensor in tensors.items()
    }


def save_tensors(path, tensors: dict) -> None:
    """Writes tensors as a safetensors file that transformers and torch read.

    Args:
      path: the file, usually `model.safetensors`.
      tensors: name -> array, as `to_huggingface` returns them.
    """
    # The writer copies raw memory: a transposed view would be written untransposed.
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    safetensors.numpy.save_file(tensors, str(path), metadata={"format": "pt"})
