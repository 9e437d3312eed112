"""sentence-transformers: a folder a task, as modules Transformer, Pooling and Dense.

It carries every pooling. `SentenceTransformer(folder).encode(texts)` gives the score, (N, 1), or
the logits, (N, K). Modules and options have the names that all versions since 2 know.

Axes: N texts, D width, K categories.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dwa_jax import backbones
from dwa_jax.finetune.exports import pieces
from dwa_jax.finetune.exports.form import ExportForm
from dwa_jax.finetune.inherited import SENTENCE_ACTIVATIONS, SENTENCE_POOLINGS
from dwa_jax.finetune.run_folder import write_json
from dwa_jax.finetune.saved import Trained

# Of its norm, which takes no other.
_NORM_EPS = 1e-5
_NO_ACTIVATION = "torch.nn.modules.linear.Identity"


def refusal(run: Trained) -> str:
    """Says why these modules cannot hold a run; "" where they can."""
    eps = run.module.config.norm_eps
    if ("norm", "scale") in pieces.family(run).classifier.tensors and eps != _NORM_EPS:
        return (
            f"the head's norm adds {eps:g} to the variance, that of sentence-transformers "
            f"{_NORM_EPS:g}; nothing is written"
        )
    return ""


def write(run: Trained, folder: Path) -> None:
    """Writes a folder a task."""
    prefix = pieces.family(run).prefix
    shared = {
        name.removeprefix(prefix): value
        for name, value in pieces.trunk_tensors(run, merged=True).items()
    }
    for task in run.tasks:
        place = folder / task.name
        place.mkdir()
        # Some families count a part of the head to the trunk.
        inside = {
            name.removeprefix(prefix): value
            for name, value in pieces.head_tensors(run, task).items()
            if name.startswith(prefix)
        }
        backbones.save_tensors(place / "model.safetensors", shared | inside)
        # The tasks' keys are read by `inherited`, when such a folder is a run's backbone.
        config = pieces.trunk_config(run) | pieces.task_config(run, task)
        write_json(place / "config.json", config)
        pieces.save_tokenizer(run, place)
        about = {"max_seq_length": run.max_tokens, "do_lower_case": False}
        write_json(place / "sentence_bert_config.json", about)
        modules = [("", "Transformer")]
        for number, (kind, about, tensors) in enumerate(_behind(run, task), 1):
            inner = place / f"{number}_{kind}"
            inner.mkdir()
            write_json(inner / "config.json", about)
            if tensors:
                backbones.save_tensors(inner / "model.safetensors", tensors)
            modules.append((inner.name, kind))
        listed = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ]
        write_json(place / "modules.json", listed)
        # Or it would take a prompt or a similarity from elsewhere.
        plain: dict[str, Any] = {"prompts": {}, "default_prompt_name": None}
        plain["similarity_fn_name"] = None
        write_json(place / "config_sentence_transformers.json", plain)


def _behind(run, task):
    # (kind, config.json, tensors) of each module after the transformer.
    width = run.module.config.hidden_size
    pooling: dict[str, Any] = {"word_embedding_dimension": width}
    pooling |= {mode: how == run.pooling for how, mode in SENTENCE_POOLINGS.items()}
    yield "Pooling", pooling, {}
    head = pieces.head(run, task)
    last = next(reversed(pieces.family(run).classifier.tensors))[0]
    activation = SENTENCE_ACTIVATIONS[pieces.family(run).classifier.activation]
    for module in sorted(head, key=("dense", "norm", "out_proj", "score").index):
        params = head[module]
        if module == "norm":
            tensors = {"norm.weight": params["scale"], "norm.bias": np.zeros_like(params["scale"])}
            yield "LayerNorm", {"dimension": width}, tensors
            continue
        tensors = {"linear.weight": params["kernel"].T}
        if "bias" in params:
            tensors["linear.bias"] = params["bias"]
        about = {
            "in_features": params["kernel"].shape[0],
            "out_features": params["kernel"].shape[1],
            "bias": "bias" in params,
            "activation_function": _NO_ACTIVATION if module == last else activation,
        }
        yield "Dense", about, tensors


def outputs(run: Trained, folder: Path, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Opens each task's folder and encodes texts."""
    from sentence_transformers import SentenceTransformer

    return {
        task.name: np.asarray(
            SentenceTransformer(
                str(folder / task.name), device="cpu", local_files_only=True
            ).encode(list(texts), show_progress_bar=False)
        )
        for task in run.tasks
    }


_RESULTS = {
    "regression": "scores = regression.encode(texts)[:, 0]",
    "classification": "logits = classification.encode(texts, convert_to_tensor=True)",
}


def opening(run: Trained) -> list[str]:
    """Writes the card's lines on how to open it."""
    lines = [
        "In this folder:",
        "",
        "```python",
        "from sentence_transformers import SentenceTransformer",
        "",
        'texts = ["EUR/USD jumps after ECB", "Pound slips"]',
    ]
    for task in run.tasks:
        lines += [f'{task.name} = SentenceTransformer("{task.name}")', _RESULTS[task.name]]
        if task.name == "classification":
            lines.append("probabilities = logits.softmax(-1)")
    lines += ["```", "", "What `encode` gives are scores and logits, no embeddings to compare."]
    classifier = pieces.family(run).classifier
    if classifier.pooling == "first":
        lines.append("A pooler that `transformers` warns is new is not used.")
    return lines


FORM = ExportForm(("sentence_transformers", "torch"), refusal, write, outputs, opening)
