"""A finished run in a form that other programs open: for transformers, or for PEFT.

transformers: one folder a task, `regression` and `classification`, which
`AutoModelForSequenceClassification.from_pretrained` opens; LoRA is merged.
peft: likewise, for `PeftModel.from_pretrained` on the run's backbone; of a trunk from scratch
that backbone is there too, as `base`. README.md is the model card of both.
"""

import contextlib
from pathlib import Path

import jax
import numpy as np

from dwa_jax import backbones, lora, trunk
from dwa_jax.atomic_files import whole_folder
from dwa_jax.finetune import card, plots, saved
from dwa_jax.finetune.categories import labels
from dwa_jax.finetune.run_folder import read_json, write_json

FORMATS = ("transformers", "peft")
MARKER = ".dwa_jax_export.json"


def export(
    run: saved.Trained,
    form: str,
    output: Path,
    *,
    made_by: str = "",
    license: str = "unknown",
    overwrite: bool = False,
) -> Path:
    """Writes a run in a form that other programs open.

    Args:
      run: from `saved.load`.
      form: one of `FORMATS`; "" takes the first that can hold this run.
      output: the folder; a new one, or an earlier export.
      made_by: the command, for the model card.
      license: identifier for the model card.
      overwrite: whether an earlier export is replaced whose files were changed since.

    Returns:
      The folder.

    Raises:
      ValueError: the form does not exist or cannot hold this run, or the folder holds
        something else than an export; nothing is written.
      OSError: the folder cannot be written.
    """
    form = form or fitting(run)
    check_form(run, form)
    with whole_folder(output, MARKER, overwrite=overwrite) as folder:
        writer = _write_transformers if form == "transformers" else _write_peft
        writer(run, folder)
        curve = plots.draw(run.summary, run.metrics, None).get("weights")
        if curve is not None:
            plots.save({"weights": curve}, folder)
        text = card.write(run, form, made_by=made_by, license=license, curve=curve is not None)
        (folder / "README.md").write_text(text, "utf-8")
    return output


def fitting(run: saved.Trained) -> str:
    """Returns the first of `FORMATS` that can hold a run.

    Raises:
      ValueError: none can; says why the first cannot.
    """
    for form in FORMATS:
        with contextlib.suppress(ValueError):
            check_form(run, form)
            return form
    check_form(run, FORMATS[0])
    raise AssertionError("the first format was refused above")


def check_form(run: saved.Trained, form: str) -> None:
    """Checks that a form exists and can hold a run.

    Raises:
      ValueError: it does not, or cannot; says what would.
    """
    if form not in FORMATS:
        raise ValueError(f"--format={form!r} is not one of {', '.join(FORMATS)}")
    settings = run.module.config
    classifier = backbones.FAMILIES[settings.family].classifier
    if run.pooling != classifier.pooling:
        raise ValueError(
            f"pooling={run.pooling!r} has no counterpart in transformers, whose "
            f"{classifier.architecture} takes the {classifier.pooling} token; nothing is written. "
            f"A run with --config.pooling={classifier.pooling} can be exported"
        )
    if form == "peft" and run.adapter is None:
        where = f"the run in {run.folder}" if run.folder else "the run"
        raise ValueError(
            f"{where} trained the trunk itself, without LoRA: there is no "
            "adapter; use --format=transformers"
        )


def _write_transformers(run, folder):
    shared = _trunk_tensors(run, merged=True)
    for task in run.tasks:
        place = folder / task.name
        place.mkdir()
        tensors = shared | _head_tensors(run, task)
        backbones.save_tensors(place / "model.safetensors", tensors)
        write_json(place / "config.json", _config(run, task))
        _save_tokenizer(run, place)


def _write_peft(run, folder):
    settings, adapter = run.module.config, run.adapter
    factors = jax.tree.map(_float32, adapter.factors)
    shared = backbones.peft.to_peft(settings, factors)
    from_scratch = run.config.backbone == "scratch"
    if from_scratch:
        place = folder / "base"
        place.mkdir()
        backbones.save_tensors(place / "model.safetensors", _trunk_tensors(run, merged=False))
        write_json(place / "config.json", _trunk_config(run))
        _save_tokenizer(run, place)
    for task in run.tasks:
        place = folder / task.name
        place.mkdir()
        head = {f"base_model.model.{k}": v for k, v in _head_tensors(run, task).items()}
        backbones.save_tensors(place / backbones.peft.WEIGHTS, shared | head)
        rank = jax.tree.leaves(_ranks(factors))[0]
        about = {
            "peft_type": "LORA",
            "task_type": "SEQ_CLS",
            "base_model_name_or_path": None if from_scratch else run.config.backbone,
            "r": rank,
            # Where the scale is rank-stabilized, too, this division gives it.
            "lora_alpha": adapter.scale * rank,
            "lora_dropout": run.config.lora_dropout,
            "bias": "none",
            "target_modules": backbones.peft.target_modules(settings, factors),
            "modules_to_save": list(backbones.FAMILIES[settings.family].classifier.modules),
            "inference_mode": True,
        }
        write_json(place / backbones.peft.CONFIG, about)
        _save_tokenizer(run, place)


def _ranks(factors):
    return jax.tree.map(lambda pair: pair["u"].shape[-1], factors, is_leaf=lambda x: "u" in x)


def _trunk_tensors(run, *, merged):
    # Merged in float32 whatever the trunk computes in: rounding again would add an error.
    joined = trunk.variables(run.theta, run.frozen)
    params = jax.tree.map(lambda leaf: leaf.astype("float32"), joined["params"])
    if merged and run.adapter is not None:
        params = lora.merge(params, run.adapter)
    params = jax.tree.map(np.asarray, params)
    prefix = backbones.FAMILIES[run.module.config.family].prefix
    return backbones.to_huggingface(run.module.config, params, prefix=prefix)


def _float32(leaf):
    return np.asarray(leaf, np.float32)


def _head_tensors(run, task):
    head = jax.tree.map(_float32, run.psi[task.name])
    return backbones.head_to_huggingface(run.module.config.family, head)


def _trunk_config(run):
    settings = run.module.config
    config = settings.to_huggingface() | {"dtype": "float32"}
    # RoBERTa counts positions from its own; a decoder finds a text's last token by it, and its
    # configuration often has none.
    if settings.family != "roberta":
        config["pad_token_id"] = run.tokenizer.pad_token_id
    return config


def _config(run, task):
    classifier = backbones.FAMILIES[run.module.config.family].classifier
    config = _trunk_config(run) | {"architectures": [classifier.architecture]}
    if task.name == "regression":
        config |= {"problem_type": "regression", "id2label": {"0": "score"}}
    else:
        names = labels(run.config.category_names, run.thresholds, run.config.num_classes)
        config |= {
            "problem_type": "single_label_classification",
            "id2label": {str(k): name for k, name in enumerate(names)},
        }
    config["label2id"] = {name: int(k) for k, name in config["id2label"].items()}
    return config | {"thresholds": run.thresholds}


def _save_tokenizer(run, folder):
    run.tokenizer.save_pretrained(folder)
    # So that `truncation=True` alone cuts where the run did, and pads where BERT must be padded.
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokenizer.model_max_length, tokenizer.padding_side = run.max_tokens, "right"
    tokenizer.save_pretrained(folder)
    # The same class by the name that it had in transformers 4, which both know.
    path = folder / "tokenizer_config.json"
    about = read_json(path)
    if about.get("tokenizer_class") == "TokenizersBackend":
        write_json(path, about | {"tokenizer_class": "PreTrainedTokenizerFast"})
