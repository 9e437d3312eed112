"""What several forms of export hold alike: tensors, configuration, tokenizer.

Axes: D width, K categories.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from dwa_jax import backbones
from dwa_jax.finetune.categories import labels
from dwa_jax.finetune.run_folder import read_object, write_json
from dwa_jax.finetune.saved import Trained
from dwa_jax.training import Task


def trunk_tensors(run: Trained, *, merged: bool) -> dict[str, np.ndarray]:
    """Returns the trunk's tensors by their names in a model that has a head, in float32.

    Args:
      run: what is exported.
      merged: whether LoRA is added to what it adapts.
    """
    params = run.trunk_parameters(merged=merged)
    return backbones.to_huggingface(run.module.config, params, prefix=family(run).prefix)


def head(run: Trained, task: Task) -> dict:
    """Returns a task's head, see `heads.init`, as arrays in float32."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), run.psi[task.name])


def head_tensors(run: Trained, task: Task) -> dict[str, np.ndarray]:
    """Returns a task's head by the names that the family's own classifier has."""
    return backbones.head_to_huggingface(run.module.config.family, head(run, task))


def family(run: Trained) -> backbones.Family:
    """Returns the entry of the run's family."""
    return backbones.FAMILIES[run.module.config.family]


def trunk_config(run: Trained) -> dict[str, Any]:
    """Returns what `config.json` says of the trunk."""
    settings = run.module.config
    config = settings.to_huggingface() | {"dtype": "float32"}
    # Where the last token is pooled it is found by this id, and many a configuration has none.
    if not settings.positions_from_pad:
        config["pad_token_id"] = run.tokenizer.pad_token_id
    return config


def task_config(run: Trained, task: Task) -> dict[str, Any]:
    """Returns what `config.json` says of a task: kind of problem, names, thresholds."""
    if task.name == "regression":
        config: dict[str, Any] = {"problem_type": "regression", "id2label": {"0": "score"}}
    else:
        names = labels(run.config.category_names, run.thresholds, run.config.num_classes)
        config = {
            "problem_type": "single_label_classification",
            "id2label": {str(k): name for k, name in enumerate(names)},
        }
    config["label2id"] = {name: int(k) for k, name in config["id2label"].items()}
    return config | {"thresholds": run.thresholds}


def save_tokenizer(run: Trained, folder: Path) -> None:
    """Writes the tokenizer, which cuts where the run did and pads on the right."""
    run.tokenizer.save_pretrained(folder)
    # So that `truncation=True` alone cuts where the run did, and pads on the side that serves every
    # family.
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokenizer.model_max_length, tokenizer.padding_side = run.max_tokens, "right"
    tokenizer.save_pretrained(folder)
    # The same class by the name that it had in transformers 4, which both know.
    path = folder / "tokenizer_config.json"
    about = read_object(path)
    if about.get("tokenizer_class") == "TokenizersBackend":
        write_json(path, about | {"tokenizer_class": "PreTrainedTokenizerFast"})
