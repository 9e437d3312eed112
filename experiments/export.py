"""Takes a finished run elsewhere: to transformers, PEFT, sentence-transformers or ONNX Runtime.

python -m experiments.export --workdir=DIR --output=DIR
python -m experiments.export --workdir=DIR --format=transformers --output=DIR
python -m experiments.export --workdir=DIR --format=peft --output=DIR
python -m experiments.export --workdir=DIR --format=sentence_transformers --output=DIR
python -m experiments.export --workdir=DIR --format=onnx --output=DIR

Without a format it writes the first that can hold the run, in this order, and says which.

transformers: one folder a task, `regression` and `classification`, which
`AutoModelForSequenceClassification.from_pretrained` opens; LoRA is merged.
peft: likewise, for `PeftModel.from_pretrained` on the run's backbone; of a trunk from scratch, or
of another run's, that backbone is there too, as `base`.
sentence_transformers: likewise, for `SentenceTransformer`, whose `encode` gives scores and logits;
LoRA is merged, and it holds every pooling.
onnx: both tasks in one model.onnx, and in model_int8.onnx with 8-bit matrices, for ONNX Runtime;
needs pip install -e ".[onnx]".
README.md is the model card of each. Where torch and the package are installed, what was written is
opened and compared with the run: more than 1e-4 apart, it is removed again.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

from dwa_jax.finetune.exports import FORMATS
from experiments.terminal import command


def parse(argv: list[str] | None = None):
    """Parses the command line; a mistake ends the program with one line and status 2."""
    parser = command.Parser(prog="experiments.export", description=__doc__)
    add = parser.add_argument
    add("--workdir", required=True, help="folder of the finished run")
    add("--backbone", default="", help=command.BACKBONE)
    add("--format", default="", choices=FORMATS, help="by default what fits the run")
    add("--output", required=True, help="folder to write; a new one, or an earlier export")
    add(
        "--overwrite",
        action="store_true",
        help="replaces an earlier export also where its files were changed since",
    )
    add("--license", default="unknown", help="identifier for the model card, such as apache-2.0")
    add(
        "--check",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="opens what was written where that is installed, and compares it with the run",
    )
    parser.add_compilation_cache()
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.check_first(lambda: command.check_run(parse().workdir))

from absl import logging

from dwa_jax import compilation_cache
from dwa_jax.atomic_files import check_folder
from dwa_jax.finetune import saved
from dwa_jax.finetune.export import MARKER, export, fitting


def main(argv: list[str]) -> None:
    """Runs the program.

    Raises:
      ValueError: a mistake of the user's; one line says which.
      OSError: something cannot be read or written.
    """
    args = parse(argv)
    logging.set_verbosity(logging.ERROR)
    compilation_cache.enable(args.compilation_cache)
    output = Path(os.path.expanduser(args.output)).absolute()
    check_folder(output, MARKER, overwrite=args.overwrite)  # before the model is read
    run = saved.load(args.workdir, args.backbone)
    given = [argument for argument in argv if argument != "--traceback"]
    made_by = shlex.join(["python", "-m", "experiments.export", *given])
    form = args.format or fitting(run)
    told: list[str] = []
    export(
        run,
        form,
        output,
        made_by=made_by,
        license=args.license,
        overwrite=args.overwrite,
        check=args.check,
        note=told.append,
    )
    tasks = ", ".join(task.name for task in run.tasks)
    command.say(f"{args.output}: {tasks}, for {form}; README.md says how to open them")
    for words in told:
        command.say(f"note: {words}")
    if run.config.normalize_tweets:
        command.say("note: users and links must be replaced before the tokenizer; see README.md")


if __name__ == "__main__":
    command.run(lambda: main(sys.argv[1:]))
