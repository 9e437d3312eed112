"""Takes a finished run elsewhere: to transformers, or to PEFT.

python -m experiments.export --workdir=DIR --format=transformers --output=DIR
python -m experiments.export --workdir=DIR --format=peft --output=DIR

transformers: one folder a task, `regression` and `classification`, which
`AutoModelForSequenceClassification.from_pretrained` opens; LoRA is merged.
peft: likewise, for `PeftModel.from_pretrained` on the run's backbone; of a trunk from scratch
that backbone is there too, as `base`. README.md is the model card of both.
"""

import os
import shlex
import shutil
import signal
import sys
from pathlib import Path

# Before the libraries that read them are imported: no start-up chatter.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

if __name__ == "__main__":
    # The imports below take seconds, in which Ctrl-C would end in a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import jax
import numpy as np
from absl import logging

from dwa_jax import backbones, lora, trunk
from experiments import card, command, trained
from experiments.categories import labels
from experiments.whole import check_folder, whole_folder
from experiments.workdir import read_json, write_json

FORMATS = ("transformers", "peft")
MARKER = ".dwa_jax_export.json"


def export(
    run: trained.Trained, form: str, output: Path, *, made_by: str = "", license: str = "unknown"
) -> Path:
    """Writes a run in a form that other programs open.

    Args:
      run: from `trained.load`.
      form: "transformers" or "peft".
      output: the folder; a new one, or an earlier export.
      made_by: the command, for the model card.
      license: identifier for the model card.

    Returns:
      The folder.

    Raises:
      ValueError: the form does not exist or cannot hold this run, or the folder holds
        something else than an export; nothing is written.
      OSError: the folder cannot be written.
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
        raise ValueError(
            f"the run in {run.folder} trained the trunk itself, without LoRA: there is no "
            "adapter; use --format=transformers"
        )
    with whole_folder(output, MARKER) as folder:
        writer = _write_transformers if form == "transformers" else _write_peft
        writer(run, folder)
        curve = run.folder / "plots" / "weights.png"
        if curve.exists():
            shutil.copyfile(curve, folder / curve.name)
        text = card.write(run, form, made_by=made_by, license=license, curve=curve.exists())
        (folder / "README.md").write_text(text, "utf-8")
    return output


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


def parse(argv: list[str] | None = None):
    """Parses the command line; a mistake ends the program with one line and status 2."""
    parser = command.Parser(prog="experiments.export", description=__doc__)
    add = parser.add_argument
    add("--workdir", required=True, help="folder of the finished run")
    add("--format", required=True, choices=FORMATS)
    add("--output", required=True, help="folder to write; a new one, or an earlier export")
    add("--license", default="unknown", help="identifier for the model card, such as apache-2.0")
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    """Runs the program.

    Raises:
      ValueError: a mistake of the user's; one line says which.
      OSError: something cannot be read or written.
    """
    args = parse(argv)
    logging.set_verbosity(logging.ERROR)
    output = Path(args.output).absolute()
    check_folder(output, MARKER)  # before the model is read
    run = trained.load(args.workdir)
    given = [argument for argument in argv if argument != "--traceback"]
    made_by = shlex.join(["python", "-m", "experiments.export", *given])
    export(run, args.format, output, made_by=made_by, license=args.license)
    tasks = ", ".join(task.name for task in run.tasks)
    print(f"{args.output}: {tasks}, for {args.format}; README.md says how to open them")
    if run.config.normalize_tweets:
        print("note: users and links must be replaced before the tokenizer; see README.md")


if __name__ == "__main__":
    command.run(lambda: main(sys.argv[1:]))
