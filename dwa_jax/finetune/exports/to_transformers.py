"""transformers: a folder a task that `AutoModelForSequenceClassification` opens, LoRA merged."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dwa_jax import backbones
from dwa_jax.finetune.exports import pieces
from dwa_jax.finetune.exports.form import ExportForm
from dwa_jax.finetune.run_folder import write_json
from dwa_jax.finetune.saved import Trained

_RESULTS = {
    "regression": "scores = regression(**inputs).logits[:, 0]",
    "classification": "probabilities = classification(**inputs).logits.softmax(-1)",
}


def refusal(run: Trained) -> str:
    """Says why the family's classifier there cannot hold a run; "" where it can."""
    classifier = pieces.family(run).classifier
    if run.pooling in classifier.poolings:
        return ""
    return (
        f"pooling={run.pooling!r} has no counterpart in transformers, whose "
        f"{classifier.architecture} takes the {classifier.pooling} token; nothing is written. "
        "format='sentence_transformers' holds it, and a run with "
        f"pooling={classifier.pooling!r} can be exported"
    )


def write(run: Trained, folder: Path) -> None:
    """Writes a folder a task."""
    shared = pieces.trunk_tensors(run, merged=True)
    classifier = pieces.family(run).classifier
    for task in run.tasks:
        place = folder / task.name
        place.mkdir()
        tensors = shared | pieces.head_tensors(run, task)
        backbones.save_tensors(place / "model.safetensors", tensors)
        config = pieces.trunk_config(run) | classifier.poolings[run.pooling]
        config |= {"architectures": [classifier.architecture]} | pieces.task_config(run, task)
        write_json(place / "config.json", config)
        pieces.save_tokenizer(run, place)


def outputs(run: Trained, folder: Path, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Opens each task's folder and applies it to texts."""
    from transformers import AutoModelForSequenceClassification

    return {
        task.name: logits(
            AutoModelForSequenceClassification.from_pretrained(folder / task.name),
            folder / task.name,
            texts,
        )
        for task in run.tasks
    }


def logits(model: Any, folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Applies an opened model and the tokenizer beside it.

    Returns:
      (N, outputs).
    """
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    inputs = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**inputs).logits.float().numpy()


def opening(run: Trained) -> list[str]:
    """Writes the card's lines on how to open it."""
    opened = [
        f'{task.name} = AutoModelForSequenceClassification.from_pretrained("{task.name}")'
        for task in run.tasks
    ]
    return [*code(run, opened), "", "From elsewhere, or from the hub, `subfolder=` names the task."]


def code(run: Trained, opened: Sequence[str], imports: Sequence[str] = ()) -> list[str]:
    """Writes the lines around those that open the models."""
    return [
        "In this folder:",
        "",
        "```python",
        *("import torch", *imports),
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{run.tasks[0].name}")',
        'texts = ["EUR/USD jumps after ECB", "Pound slips"]',
        'inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")',
        "",
        *opened,
        "",
        "with torch.no_grad():",
        *(f"    {_RESULTS[task.name]}" for task in run.tasks),
        "```",
    ]


FORM = ExportForm(("transformers", "torch"), refusal, write, outputs, opening)
