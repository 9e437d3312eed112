"""Fine-tunes a model on scored texts.

python -m experiments.main --config=configs/demo.py [--workdir=DIR] [--config.KEY=VALUE ...]
"""

import ast
import contextlib
import os
import re
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any, NoReturn

# Before the libraries that read them are imported: no start-up chatter.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from dwa_jax.finetune import interrupts
from experiments.terminal import usage

if __name__ == "__main__":
    # The imports below take seconds, in which a signal would end in a traceback.
    interrupts.end_at_once()
    usage.answer(sys.argv[1:], __doc__)

import jax
from absl import app, flags
from ml_collections import config_flags

from dwa_jax import host_memory, lora
from dwa_jax.checkpoints import Checkpoints
from dwa_jax.finetune import bad_rows, loop, memory, plots, run_folder, validation, writers
from dwa_jax.finetune import setup as pipeline
from dwa_jax.finetune.health import Diverged
from dwa_jax.finetune.model import only_here
from experiments.terminal import command, overview, preview
from experiments.terminal.console import Console

_CONFIG = config_flags.DEFINE_config_file("config", None, "File with the configuration.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; by default runs/NAME of the configuration."
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Prints what the data come to, and neither trains nor writes anything."
)
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Shows where in the code an error was raised.")


def run(config, folder: Path, console: Console, started: float) -> dict:
    """Trains, evaluates and writes a run's folder.

    Args:
      config: the whole configuration.
      folder: the run's; continued if it holds an unfinished run of the same configuration.
      console: where progress goes.
      started: `time.perf_counter()` at the start of the program.

    Returns:
      The summary.

    Raises:
      ValueError: something of the user's is not usable; one line says what.
      OSError: something cannot be read or written.
      loop.Interrupted: a signal came; the folder can be continued.
      Diverged: too many updates in a row were left out.
    """
    with contextlib.ExitStack() as held:
        return _run(config, folder, console, started, held)


def _run(config, folder, console, started, held):
    validation.check(config)
    chosen = writers.choose(config.writers)
    run_folder.open_folder(folder, config.to_dict())
    begun = (folder / "config.json").exists()
    if begun:
        held.enter_context(run_folder.lock(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are heard below, once
        pipeline.make_weighting(config, len(pipeline.make_tasks(config)))
    corpus = pipeline.read_corpus(config)
    loop.check_monitor(config, corpus)
    key = jax.random.key(config.seed)
    model_key, state_key = jax.random.split(key)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        model = pipeline.load_model(config, corpus, model_key)
        batches, notes = pipeline.make_batches(config, corpus, model)
        notes += only_here(model)
        setup = pipeline.make_run(config, corpus, model, len(batches["train"]), state_key)
    notes += [str(item.message) for item in caught if item.category is UserWarning]
    check_step(setup, batches["train"])
    if not begun:
        # Only now: a mistake above leaves no folder.
        folder.mkdir(parents=True, exist_ok=True)
        held.enter_context(run_folder.lock(folder))
    notes += run_folder.open_folder(folder, config.to_dict(), fingerprint(corpus))
    for note in [*corpus.notes, *notes]:
        console.note(f"note: {note}")
    trained = {
        "trunk": lora.count(setup.state.theta),
        "heads": lora.count(setup.state.psi),
        "weighting and losses": lora.count(setup.state.phi),
    }
    total = lora.count(setup.state.frozen) + sum(trained.values())
    needs = memory.estimate(config, model, setup, batches["train"].shapes)
    overview.describe(console, config, corpus, batches, model, setup, trained, total, needs, folder)
    model.tokenizer.save_pretrained(folder / "tokenizer")
    run_folder.write_json(folder / "backbone.json", model.module.config.to_huggingface())

    checkpoints = Checkpoints(folder / "checkpoints")
    log = writers.Log(folder, config.to_dict(), chosen, console.note)
    held.callback(log.close)
    host_memory.keep()
    before = time.perf_counter()
    try:
        state, progress = loop.train(config, setup, corpus, batches, checkpoints, log, console)
    finally:
        checkpoints.close()

    results = {}
    for split in ("validation", "test"):
        if split in batches:
            results[split], predictions = loop.evaluate(
                setup, state, batches, corpus, split, config.num_classes
            )
            last = split
    also_tested = {
        name: loop.evaluate(setup, state, batches, corpus, name, config.num_classes)[0]
        for name in batches
        if name not in ("train", "validation", "test")
    }
    run_folder.write_predictions(folder / "predictions.csv", corpus.rows[last], predictions)
    plots.draw_run(folder / "plots", corpus, log.read(), results[last], predictions, last)
    summary = {
        "rows": overview.count(corpus, config.num_classes),
        "validation": results["validation"],
        "test": results.get("test"),
        "also_tested": also_tested,
        "predictions": last,
        "thresholds": corpus.thresholds,
        "best_epoch": progress.best_epoch,
        "epochs": progress.evaluated,
        "skipped_steps": sum(record["kind"] == "skipped" for record in log.read()),
        "monitor": config.monitor,
        "parameters": {"trained": trained, "total": total},
        "timing": {
            "train_seconds": progress.seconds,
            "seconds": time.perf_counter() - started,
            "setup_seconds": before - started,
        },
        "memory": memory.peak(),
        "left_out": bad_rows.summarize(corpus.left_out),
        "machine_scored": corpus.machine_scored,
        "notes": [*corpus.notes, *notes],
    }
    run_folder.write_json(folder / "summary.json", summary)
    log.conclude(summary, int(state.step))
    return summary


def fingerprint(corpus) -> str:
    """Returns a digest of every split's texts and labels, in their order."""
    parts = []
    for split, rows in corpus.rows.items():
        parts += [split, *rows.texts, rows.scores, corpus.categories[split]]
    return run_folder.digest(parts)


def check_step(setup, batches) -> None:
    """Traces the step without running it, so that options that do not fit fail now.

    Raises:
      ValueError: one line, where the step cannot be built.
    """
    batch = next(batches.epoch(0))
    del batch["row"]
    try:
        jax.eval_shape(setup.step, setup.state, batch)
    except TypeError as error:
        raise ValueError(f"the train step cannot be built: {error}") from error


def main(argv: list[str]) -> None:
    """Runs the program; it ends with one line and status 2 after a mistake of the user's,
    and with status 3 where training diverged.
    """
    started = time.perf_counter()
    if len(argv) > 1:
        _fail(f"unexpected argument {argv[1]!r}; options are --config, --workdir, --config.KEY")
    if flags.FLAGS["config"].value is None:
        _fail(f"give a configuration, --config=FILE; there are: {_configurations()}; see --help")
    name = Path(_config_path()).stem
    try:
        config = _CONFIG.value.lock()
    except Exception as error:  # whatever the configuration's own code raises
        _fail(f"{_config_path()} cannot be loaded: {_last_line(error)}")
    folder = Path(_WORKDIR.value or f"runs/{name}")
    console = Console()
    try:
        if _DRY_RUN.value:
            preview.preview(config, console)
            return
        finished = folder / "summary.json"
        if finished.exists():
            run_folder.open_folder(folder, config.to_dict())
            console.note(f"{folder} holds this run, finished; its numbers are in {finished}")
            return
        overview.conclude(console, run(config, folder, console, started), folder)
    except loop.Interrupted as stop:
        console.note(f"{stop}; saved. The same command continues the run.")
        _end(128 + stop.signum)
    except Diverged as error:
        print(f"error: {error}", file=sys.stderr)
        _end(3)
    except Exception as error:
        words = command.words_of(error)
        if words is None:
            raise
        if _TRACEBACK.value:
            traceback.print_exc()
        print(f"error: {words}", file=sys.stderr)
        _end(2)


def _end(status):
    # Not sys.exit: nothing can end a compilation that is left on its thread, and what Orbax
    # left unfinished would have its say.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _config_path():
    flag: Any = flags.FLAGS["config"]  # of ml_collections, which says nothing of types
    return flag.config_filename


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; a mistake ends the program with one line and status 2."""
    paths = [a.partition("=")[2] for a in argv if a.startswith("--config=")]
    path = paths[-1] if paths else None
    if path is not None and not Path(path).is_file():
        _fail(f"--config={path}: no such file; there are: {_configurations()}")
    try:
        return flags.FLAGS(argv)
    except Exception as error:  # a configuration is code and may raise anything
        if "--traceback" in argv:
            raise
        if isinstance(error, flags.Error | AttributeError | KeyError | TypeError | ValueError):
            _fail(_one_line(error, argv))
        _fail(f"{path} cannot be loaded: {type(error).__name__}: {_last_line(error)}")


def _configurations():
    return ", ".join(map(str, usage.configurations()))


def _last_line(error):
    return [line for line in str(error).splitlines() if line.strip()][-1].strip()


def _one_line(error, argv):
    text = str(error)
    # A KeyError's text is its argument in quotes, and one may hold another.
    with contextlib.suppress(SyntaxError, ValueError):
        while isinstance(inner := ast.literal_eval(text), str):
            text = inner
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    # ml_collections puts a dump of all fields between what is wrong and what would be right.
    near = [line for line in lines if line.startswith("Did you mean")]
    key = first.strip("'")
    given = [a[9:].partition("=")[0] for a in argv if a.startswith("--config.")]
    asked = next((name for name in given if name.rpartition(".")[2] == key), None)
    if isinstance(error, AttributeError | KeyError) and asked is not None:
        found = re.search('Did you mean "(.+?)"', " ".join(near))
        nearest = f"; the nearest is {found[1]!r}" if found else "; --help lists them"
        return f"--config.{asked}: there is no key {key!r}{nearest}"
    if first.startswith(("Error whilst parsing", "Configuration is not available")):
        first = f"the configuration cannot be loaded: {_last_line(error)}"
    return " ".join([first.split(" Other fields present")[0], *near])


if __name__ == "__main__":
    host_memory.begin()
    app.run(main, flags_parser=parse_flags)
