"""LoRA factors in the files of Hugging Face PEFT, out and in, through the table of names.

There a matrix W (O, I) has lora_A (R, I) and lora_B (O, R), and W + s lora_B lora_A; here a
stack of kernels (L, I, O) has U (L, I, R) and V (L, R, O), and W + s U V. So U = lora_A^T
and V = lora_B^T, layer by layer.

Axes: L layers, I in, O out, R rank.
"""

import contextlib
import math
import os
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from dwa_jax.backbones import files, names
from dwa_jax.backbones.config import BackboneConfig, BackboneError, find_family
from dwa_jax.messages import shown

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PARTS = {"u": "lora_A", "v": "lora_B"}
# Fields that change what is computed, and how: anything but these values is refused.
_ONLY = {
    "bias": ("none",),
    "use_dora": (False,),
    "use_qalora": (False,),
    "alora_invocation_tokens": (None,),
    "rank_pattern": ({},),
    "alpha_pattern": ({},),
    "layer_replication": (None,),
    "arrow_config": (None,),
    # The others start from changed base weights, of which the file has no trace.
    "init_lora_weights": (True, False, "gaussian"),
}
_NAMED = 5


class Settings(NamedTuple):
    """What an `adapter_config.json` says of its factors.

    rank: R.
    alpha: the scale's numerator.
    rank_stabilized: whether alpha is divided by sqrt(R) instead of R.
    """

    rank: int
    alpha: float
    rank_stabilized: bool

    @property
    def scale(self) -> float:
        """What U V is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


class Adapter(NamedTuple):
    """A PEFT adapter of a trunk.

    factors: nested dict, {"u": (L, I, R), "v": (L, R, O)} under each module's path.
    settings: their rank and scale.
    left: tensors of the file that belong to heads, and so to no trunk.
    """

    factors: dict
    settings: Settings
    left: list[str]


def _modules(config):
    # Path of a matrix's module here -> its name in the trunk there.
    return {
        entry.path[:-1]: entry.name.removesuffix(".weight")
        for entry in find_family(config.family).tensors(config)
        if entry.path[-1] == "kernel"
    }


def to_peft(config: BackboneConfig, factors: dict) -> dict[str, np.ndarray]:
    """Names LoRA factors the way PEFT does.

    Args:
      config: the trunk's configuration.
      factors: nested dict of "u" (L, I, R) and "v" (L, R, O).

    Returns:
      Name -> contiguous array: lora_A (R, I) and lora_B (O, R) of each layer.

    Raises:
      BackboneError: factors of something that is no matrix of the trunk.
    """
    prefix, modules, tensors = find_family(config.family).prefix, _modules(config), {}
    for *path, part in names.paths(factors):
        if tuple(path) not in modules or part not in _PARTS:
            raise BackboneError(f"LoRA factors of {'/'.join(path)!r}, which is no matrix")
        for layer, value in enumerate(np.asarray(names.leaf(factors, (*path, part)))):
            module = prefix + modules[tuple(path)].format(layer)
            name = f"{_PREFIX}{module}.{_PARTS[part]}.weight"
            tensors[name] = np.ascontiguousarray(value.T)
    return tensors


def target_modules(config: BackboneConfig, factors: dict) -> str:
    """Returns the regular expression of the adapted modules' full names.

    A list of endings would not do: one may be the end of two modules' names.

    Args:
      config: the trunk's configuration.
      factors: nested dict of LoRA factors.
    """
    modules = _modules(config)
    found = dict.fromkeys(modules[tuple(path[:-1])] for path in names.paths(factors))
    endings = [re.escape(name).replace(r"\{\}", r"\d+") for name in found]
    return f"{re.escape(find_family(config.family).prefix)}({'|'.join(endings)})"


def read_settings(folder: str | pathlib.Path) -> Settings:
    """Reads a LoRA adapter's configuration.

    Args:
      folder: local, written by PEFT's `save_pretrained`.

    Returns:
      Its settings.

    Raises:
      BackboneError: no such file, another method than LoRA, or a variant of it that is not
        computed here; names the field.
    """
    path = pathlib.Path(os.path.expanduser(folder)) / CONFIG
    source = files.read_json(path)
    if source.get("peft_type") != "LORA":
        raise BackboneError(f"{path}: peft_type {shown(source.get('peft_type'))} is not LORA")
    for field, accepted in _ONLY.items():
        value = source.get(field, accepted[0])
        # Newer versions write null for what is not set.
        if value is not None and not any(type(value) is type(a) and value == a for a in accepted):
            known = ", ".join(map(repr, accepted))
            raise BackboneError(f"{path}: {field} = {shown(value)} is not supported; only {known}")
    rank, alpha = source.get("r"), source.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= 2**31 - 1:
        raise BackboneError(f"{path}: r must be a positive integer, got {shown(rank)}")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) <= 2**31 - 1:
        raise BackboneError(f"{path}: lora_alpha must be a number, got {shown(alpha)}")
    return Settings(rank, float(alpha), source.get("use_rslora") is True)


def load(folder: str | pathlib.Path, config: BackboneConfig) -> Adapter:
    """Reads a LoRA adapter.

    Args:
      folder: local, written by PEFT's `save_pretrained`.
      config: of the trunk that it belongs to.

    Returns:
      The adapter; every factor in float32.

    Raises:
      BackboneError: the configuration is not usable (see `read_settings`), the weights are
        missing or damaged, or hold a tensor that has no place in the trunk, is of another
        shape, or misses in some layers; names it.
    """
    settings = read_settings(folder)
    path, family = pathlib.Path(os.path.expanduser(folder)) / WEIGHTS, find_family(config.family)
    if not path.exists():
        raise BackboneError(f"{path} does not exist; save the adapter as safetensors")
    with contextlib.ExitStack() as stack:
        tensors = files.open_safetensors(stack, path)
        found, left, problems = {}, [], []
        known = {
            f"{name.format(layer)}.{_PARTS[part]}.weight"
            for name in _modules(config).values()
            for layer in range(config.num_layers)
            for part in _PARTS
        }
        for name, tensor in tensors.items():
            bare = name.removeprefix(_PREFIX).removeprefix(family.prefix)
            if bare in known and bare not in found:
                found[bare] = tensor
            elif any(re.fullmatch(pattern, bare) for pattern in family.ignored):
                left.append(name)
            else:
                problems.append(f"unexpected {shown(name)}")
        factors: dict[str, Any] = {}
        shapes = {
            entry.path[:-1]: entry.shape
            for entry in family.tensors(config)
            if entry.path[-1] == "kernel"
        }
        for module, name in _modules(config).items():
            wanted = [
                f"{name.format(layer)}.{_PARTS[part]}.weight"
                for layer in range(config.num_layers)
                for part in _PARTS
            ]
            missing = [one for one in wanted if one not in found]
            if len(missing) == len(wanted):
                continue
            problems += [f"missing {one}" for one in missing]
            out, into = shapes[module]
            expected = {"u": (settings.rank, into), "v": (out, settings.rank)}
            for part, label in _PARTS.items():
                these = [one for one in wanted if one in found and f".{label}." in one]
                problems += [
                    f"{one} is {found[one][0]}, not {expected[part]}"
                    for one in these
                    if found[one][0] != expected[part]
                ]
                if not problems:
                    stacked = np.stack([_floats(found[one], path, one).T for one in these])
                    _put(factors, (*module, part), stacked)
    if problems:
        more = [f"and {len(problems) - _NAMED} more"] if len(problems) > _NAMED else []
        raise BackboneError(f"{path}: {'; '.join(problems[:_NAMED] + more)}")
    if not factors:
        raise BackboneError(f"{path} holds no LoRA factor of this {config.family} trunk")
    return Adapter(factors, settings, left)


def _floats(tensor, path, name):
    value = tensor[1]()
    if value.dtype.kind not in "fV" and value.dtype.name != "bfloat16":
        raise BackboneError(f"{path}: {name} is {value.dtype}, not floating point")
    return np.asarray(value, np.float32)


def _put(tree, path, value):
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value
