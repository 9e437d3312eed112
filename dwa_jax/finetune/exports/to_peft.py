"""PEFT: a folder a task that `PeftModel.from_pretrained` opens on the run's backbone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dwa_jax import backbones
from dwa_jax.backbones import files
from dwa_jax.finetune import inherited
from dwa_jax.finetune.exports import pieces, to_transformers
from dwa_jax.finetune.exports.form import ExportForm
from dwa_jax.finetune.run_folder import write_json
from dwa_jax.finetune.saved import Trained

# Where a backbone is that nobody else has.
_BASE = "base"


def refusal(run: Trained) -> str:
    """Says why PEFT cannot hold a run; "" where it can."""
    if run.adapter is None:
        where = f"the run in {run.folder}" if run.folder else "the run"
        return (
            f"{where} trained the trunk itself, without LoRA: there is no "
            "adapter; another format, or none, holds it"
        )
    return to_transformers.refusal(run)


def _brings_base(run):
    return not inherited.opens_elsewhere(run.config.backbone)


def write(run: Trained, folder: Path) -> None:
    """Writes a folder a task, and the backbone where it is from scratch or a run's."""
    settings, adapter = run.module.config, run.adapter
    assert adapter is not None, "refused above"
    factors = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), adapter.factors)
    shared = backbones.peft.to_peft(settings, factors)
    classifier = pieces.family(run).classifier
    if _brings_base(run):
        place = folder / _BASE
        place.mkdir()
        tensors = pieces.trunk_tensors(run, merged=False)
        backbones.save_tensors(place / "model.safetensors", tensors)
        config = pieces.trunk_config(run) | classifier.poolings[run.pooling]
        write_json(place / "config.json", config)
        pieces.save_tokenizer(run, place)
    for task in run.tasks:
        place = folder / task.name
        place.mkdir()
        head = {f"base_model.model.{k}": v for k, v in pieces.head_tensors(run, task).items()}
        backbones.save_tensors(place / backbones.peft.WEIGHTS, shared | head)
        rank = jax.tree.leaves(_ranks(factors))[0]
        about = {
            "peft_type": "LORA",
            "task_type": "SEQ_CLS",
            "base_model_name_or_path": None if _brings_base(run) else run.config.backbone,
            "r": rank,
            # Where the scale is rank-stabilized, too, this division gives it.
            "lora_alpha": adapter.scale * rank,
            "lora_dropout": run.config.lora_dropout,
            "bias": "none",
            "target_modules": backbones.peft.target_modules(settings, factors),
            "modules_to_save": list(classifier.modules),
            "inference_mode": True,
        }
        write_json(place / backbones.peft.CONFIG, about)
        pieces.save_tokenizer(run, place)


def _ranks(factors):
    return jax.tree.map(lambda pair: pair["u"].shape[-1], factors, is_leaf=lambda x: "u" in x)


def _differs(run: Trained) -> dict[str, Any]:
    # What the backbone's own configuration does not say.
    classifier = pieces.family(run).classifier
    differs = dict(classifier.poolings[run.pooling])
    if classifier.needs_pad_id:
        differs["pad_token_id"] = run.tokenizer.pad_token_id
    return differs


def outputs(run: Trained, folder: Path, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Opens each task's adapter on the backbone and applies it to texts."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    where = folder / _BASE if _brings_base(run) else files.locate(run.config.backbone)
    found = {}
    for task in run.tasks:
        base = AutoModelForSequenceClassification.from_pretrained(
            str(where),
            num_labels=task.outputs,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )
        for field, value in _differs(run).items():
            setattr(base.config, field, value)
        model = PeftModel.from_pretrained(base, folder / task.name)
        found[task.name] = to_transformers.logits(model, folder / task.name, texts)
    return found


def opening(run: Trained) -> list[str]:
    """Writes the card's lines on how to open it."""
    where = _BASE if _brings_base(run) else run.config.backbone
    lines = []
    for task in run.tasks:
        # A backbone that comes with a head of another size is no hindrance. The type is named
        # since one that is stored in bfloat16 would compute in it.
        options = f"num_labels={task.outputs}, dtype=torch.float32, ignore_mismatched_sizes=True"
        lines += [
            "base = AutoModelForSequenceClassification.from_pretrained(",
            f"    {where!r}, {options}",
            ")",
            *(f"base.config.{field} = {value!r}" for field, value in _differs(run).items()),
            f'{task.name} = PeftModel.from_pretrained(base, "{task.name}")',
        ]
    return [
        *to_transformers.code(run, lines, ["from peft import PeftModel"]),
        "",
        "The head that `transformers` warns is new comes with the adapter.",
        "",
        "From elsewhere, or from the hub, `subfolder=` names the task.",
    ]


FORM = ExportForm(("peft", "torch"), refusal, write, outputs, opening)
