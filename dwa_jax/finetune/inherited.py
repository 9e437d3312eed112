"""What a backbone brings beside its trunk: heads, the thresholds between categories, a pooling.

A backbone is a Hugging Face folder or hub id, or what left this library: an export (the folder of
both tasks, or of one) or the folder of a run. A run is opened by `saved`, the others here.

Axes: D width, K categories.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from dwa_jax import backbones, heads, regular_files
from dwa_jax.backbones import files

# In an export, the names of its files.
MARKER = ".dwa_jax_export.json"
TASKS = ("regression", "classification")
# Ours -> what sentence-transformers' Pooling calls it.
SENTENCE_POOLINGS = {
    "first": "pooling_mode_cls_token",
    "last": "pooling_mode_lasttoken",
    "mean": "pooling_mode_mean_tokens",
}
# Of a head's first matrix -> the module of torch that a Dense names.
SENTENCE_ACTIVATIONS = {
    "tanh": "torch.nn.modules.activation.Tanh",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
}
_MODULES = "modules.json"


class Offered(NamedTuple):
    """What a backbone brings beside its trunk.

    Attributes:
      heads: {task: parameters as in `heads.init`}, whatever their number of outputs.
      pooling: what the heads were trained on.
      notes: sentences on what is there and cannot be taken.
    """

    heads: dict[str, dict]
    pooling: str
    notes: list[str]


def is_run(backbone: str) -> bool:
    """Says whether a backbone is the folder of a run, or one that `save` wrote."""
    found = _config(backbone)
    return "model_type" not in found and isinstance(found.get("config"), dict)


def opens_elsewhere(backbone: str) -> bool:
    """Says whether `from_pretrained` of transformers takes a backbone by the same name."""
    if backbone == "scratch":
        return False
    return not _folder(backbone).is_dir() or "model_type" in _config(backbone)


def _folder(backbone):
    return Path(os.path.expanduser(backbone))


def _config(backbone):
    path = _folder(backbone) / files.CONFIG
    return _json(path) if backbone != "scratch" and path.is_file() else {}


def _json(path):
    # What is wrong with a file is said where it is read for its weights.
    try:
        return files.read_json(path)
    except backbones.BackboneError:
        return {}


def trunk_folder(backbone: str) -> str:
    """Returns the folder or hub id that holds a backbone's trunk.

    Raises:
      ValueError: it is an export for PEFT, which has no trunk of its own.
    """
    task = next(iter(_tasks(backbone).values()), None)
    if task is None:
        return backbone
    if not (task / files.CONFIG).exists():
        raise ValueError(
            f"backbone={backbone!r} is an export for PEFT, without a trunk; give the backbone that "
            f"it adapts, and lora_adapter={str(task)!r}"
        )
    return str(task)


def _tasks(backbone):
    # The folders of an export of several tasks.
    folder = _folder(backbone)
    if backbone == "scratch" or (folder / files.CONFIG).exists():
        return {}
    names = (files.CONFIG, backbones.peft.CONFIG)
    return {
        task: folder / task
        for task in TASKS
        if any((folder / task / name).is_file() for name in names)
    }


def inherited_thresholds(backbone: str) -> list[float] | None:
    """Returns the thresholds that an export or a run has; None for any other backbone.

    A folder that is damaged has none; where its weights are read it is said why.
    """
    if backbone == "scratch":
        return None
    folder = _folder(backbone)
    if is_run(backbone):
        # Of a run no link is followed; where it is opened it is said.
        summary = folder / "summary.json"
        regular = regular_files.kind_of(summary) == "a file"
        found = _json(summary).get("thresholds") if regular else None
    else:
        place = next(iter(_tasks(backbone).values()), folder)
        found = _json(place / files.CONFIG).get("thresholds")
    if not isinstance(found, list) or not all(isinstance(x, int | float) for x in found):
        return None
    return [float(x) for x in found] or None


def offered(backbone: str, trunk: Path, settings: backbones.BackboneConfig) -> Offered:
    """Reads the heads that lie beside a trunk.

    Args:
      backbone: as the configuration names it.
      trunk: the local folder that its trunk was read from.
      settings: the trunk's.

    Raises:
      BackboneError: a damaged file.
    """
    folders = _tasks(backbone) or {"": trunk}
    found: dict[str, dict] = {}
    notes: list[str] = []
    pooling = heads.default_pooling(settings)
    for folder in folders.values():
        if (folder / _MODULES).is_file():
            head, pooling = _of_modules(folder, settings, pooling, notes)
        else:
            head = _of_classifier(folder, settings, notes)
        if head is None:
            continue
        outputs = num_outputs(head)
        kind = _json(folder / files.CONFIG).get("problem_type")
        if kind == "multi_label_classification":
            notes.append("its head is not taken: it gives several labels a text")
        else:
            regression = kind == "regression" or (kind is None and outputs == 1)
            found["regression" if regression else "classification"] = head
    return Offered(found, pooling, notes)


def num_outputs(head: Mapping) -> int:
    """Returns how many outputs a head has."""
    return head["score" if "score" in head else "out_proj"]["kernel"].shape[-1]


def pick_heads(
    given: Offered, backbone: str, config: backbones.BackboneConfig, outputs: dict, pooling: str
) -> tuple[dict[str, dict], list[str]]:
    """Picks the heads that a run can start from, and says of each whether it does.

    Args:
      given: what the backbone brings.
      backbone: as the configuration names it.
      config: of the trunk.
      outputs: {task of the run: how many outputs it has}.
      pooling: what the configuration asks for; "" leaves it to the heads.

    Returns:
      ({task: head}, notes for the reader).
    """
    taken, notes = {}, [f"backbone={backbone}: {note}" for note in given.notes]
    if not given.heads:
        return {}, notes
    if pooling and pooling != given.pooling:
        names = " and ".join(given.heads)
        return {}, [
            *notes,
            f"backbone={backbone}: its heads, {names}, are not taken: they were trained on "
            f"pooling={given.pooling!r}, this is pooling={pooling!r}",
        ]
    for task, count in outputs.items():
        if task not in given.heads:
            notes.append(f"backbone={backbone} has no head for {task}, which starts afresh")
            continue
        head, wanted = given.heads[task], heads.shapes(config.family, config.hidden_size, count)
        if jax.tree.map(np.shape, head) == jax.tree.map(np.shape, wanted):
            taken[task] = head
            notes.append(f"the head for {task} starts from that of backbone={backbone}")
        else:
            there = num_outputs(head)
            notes.append(
                f"the head for {task} of backbone={backbone} is not taken: it has {there} "
                f"outputs, here there are {count}; it starts afresh"
            )
    for task in [name for name in given.heads if name not in outputs]:
        notes.append(f"the head for {task} of backbone={backbone} is not taken: no such task here")
    return taken, notes


def _of_classifier(folder, settings, notes):
    # The head of a model for sequence classification; None where it is no such model.
    classifier = backbones.FAMILIES[settings.family].classifier
    named = _json(folder / files.CONFIG).get("architectures")
    if not isinstance(named, list) or classifier.architecture not in named:
        return None
    head: dict[str, dict] = {}
    with files.open_tensors(folder) as tensors:
        missing = [name for name in classifier.tensors.values() if name not in tensors]
        if missing:
            notes.append(f"its head is not taken: there is no {missing[0]}")
            return None
        for (module, leaf), name in classifier.tensors.items():
            value = _numbers(tensors[name][1](), folder, name, 2 if leaf == "kernel" else 1)
            head.setdefault(module, {})[leaf] = value.T if leaf == "kernel" else value
    return head


def _of_modules(folder, settings, pooling, notes):
    # The head that Dense modules of sentence-transformers make; none in most.
    try:
        listed = files.parse_json(folder / _MODULES)
        modules = [(str(one["type"]).rsplit(".", 1)[-1], str(one["path"])) for one in listed]
    except (backbones.BackboneError, KeyError, TypeError):
        return None, pooling
    if not any(kind == "Dense" for kind, _ in modules):
        return None, pooling
    classifier = backbones.FAMILIES[settings.family].classifier
    table = list(classifier.tensors)
    parts = list(dict.fromkeys(module for module, _ in table))
    kinds = ["LayerNorm" if part == "norm" else "Dense" for part in parts]
    pooled = _json(folder / Path(modules[1][1]).name / files.CONFIG) if len(modules) > 1 else {}
    how = [ours for ours, mode in SENTENCE_POOLINGS.items() if pooled.get(mode) is True]
    if [kind for kind, _ in modules] != ["Transformer", "Pooling", *kinds] or len(how) != 1:
        notes.append(f"its modules Dense are not taken: they are no head of {settings.family}")
        return None, pooling
    head: dict[str, dict] = {}
    for part, (_, path) in zip(parts, modules[2:], strict=True):
        inner = folder / Path(path).name  # nothing outside the folder
        about = _json(inner / files.CONFIG)
        wanted = SENTENCE_ACTIVATIONS[classifier.activation]
        if part == parts[0] != parts[-1] and about.get("activation_function") != wanted:
            notes.append(f"its head is not taken: {inner.name} has another activation")
            return None, pooling
        with files.open_tensors(inner) as tensors:
            values = {
                name: _numbers(read(), inner, name, 2 if name == "linear.weight" else 1)
                for name, (_, read) in tensors.items()
            }
        ours = {
            {"linear.weight": "kernel", "linear.bias": "bias", "norm.weight": "scale"}.get(n, n): v
            for n, v in values.items()
            if n != "norm.bias" or v.any()
        }
        if set(ours) != {leaf for module, leaf in table if module == part}:
            notes.append(f"its head is not taken: {inner.name} holds {', '.join(sorted(values))}")
            return None, pooling
        head[part] = {leaf: v.T if leaf == "kernel" else v for leaf, v in ours.items()}
    return head, how[0]


def _numbers(value, folder, name, axes):
    if value.ndim != axes:
        raise backbones.BackboneError(f"{folder}: {name} has {value.ndim} axes, not {axes}")
    # bfloat16 is no kind of numpy's own.
    if value.dtype.kind not in "fV" and value.dtype.name != "bfloat16":
        raise backbones.BackboneError(f"{folder}: {name} is {value.dtype}, not floating point")
    value = np.asarray(value, np.float32)
    if not np.isfinite(value).all():
        raise backbones.BackboneError(f"{folder}: {name} holds something else than finite numbers")
    return value
