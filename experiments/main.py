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
from pathlib import Path
from typing import Any, NoReturn

from experiments.terminal import command, ending, usage

if __name__ == "__main__":
    # The imports below take seconds, in which a signal would end in a traceback.
    ending.end_at_once()
    command.begin_in_utf8()
    usage.answer(sys.argv[1:], __doc__)

from absl import flags
from ml_collections import config_flags

from dwa_jax.finetune.config import Config
from dwa_jax.messages import one_line

# Of this program alone: a script that imports it may have flags of the same names.
FLAGS = flags.FlagValues()
config_flags.DEFINE_config_file("config", None, "File with the configuration.", flag_values=FLAGS)
flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run; by default runs/NAME of the configuration.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "dry_run",
    False,
    "Prints what the data come to, and neither trains nor writes anything.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "compilation_cache",
    "",
    "Folder for compiled programs; by default in the user's cache folder; off: none.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "token_cache",
    "",
    "Folder for the token ids of many texts; by default in the user's cache folder; off: none.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "coordinator",
    "",
    "HOST:PORT of process 0, where several processes train one run; each is given the same.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("processes", 0, "How many processes there are.", flag_values=FLAGS)
flags.DEFINE_integer("process_id", -1, "Which of them this one is, from 0.", flag_values=FLAGS)
flags.DEFINE_integer(
    "start_timeout",
    120,
    "Seconds until all processes must have come.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "hang_timeout",
    900,
    "Seconds after which a process that comes no further ends the run of all that wait for it.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "traceback", False, "Shows where in the code an error was raised.", flag_values=FLAGS
)


def _config_path():
    flag: Any = FLAGS["config"]  # of ml_collections, which says nothing of types
    return flag.config_filename


def _fail(message: str) -> NoReturn:
    command.complain(message)
    sys.exit(2)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; a mistake ends the program with one line and status 2."""
    paths = [a.partition("=")[2] for a in argv if a.startswith("--config=")]
    path = paths[-1] if paths else None
    if path is not None and not Path(path).is_file():
        _fail(f"--config={path}: no such file; there are: {_configurations()}")
    try:
        return FLAGS(argv)
    except Exception as error:  # a configuration is code and may raise anything
        if "--traceback" in argv:
            raise
        if isinstance(error, flags.Error | AttributeError | KeyError | TypeError | ValueError):
            _fail(_one_line(error, argv))
        _fail(f"{path} cannot be loaded: {type(error).__name__}: {_last_line(error)}")


def _configurations():
    return ", ".join(map(str, usage.configuration_files()))


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


def asked(argv: list[str]) -> tuple[Config, Path]:
    """Returns the configuration and the run's folder that a parsed command line asks for.

    Args:
      argv: what `parse_flags` left over.

    A mistake ends the program with one line and status 2.
    """
    if len(argv) > 1:
        _fail(f"unexpected argument {argv[1]!r}; options are --config, --workdir, --config.KEY")
    if FLAGS["config"].value is None:
        _fail(f"give a configuration, --config=FILE; there are: {_configurations()}; see --help")
    name = Path(_config_path()).stem
    try:
        given = FLAGS.config
    except Exception as error:  # whatever the configuration's own code raises
        _fail(f"{_config_path()} cannot be loaded: {_last_line(error)}")
    try:
        return Config.of(given), Path(os.path.expanduser(FLAGS.workdir or f"runs/{name}"))
    except ValueError as error:
        if FLAGS.traceback:
            traceback.print_exc()
        _fail(one_line(error, 4000))


if __name__ == "__main__":
    REST = parse_flags(sys.argv)
    asked(REST)

from dwa_jax import compilation_cache, host_memory, processes
from dwa_jax.finetune import cross_validation, disk_cache, interrupts, run_folder
from dwa_jax.finetune.health import Diverged
from dwa_jax.finetune.listener import Listener
from experiments.terminal import overview, preview
from experiments.terminal.console import Terminal


def main(argv: list[str]) -> None:
    """Runs the program; it ends with one line and status 2 after a mistake of the user's,
    and with status 3 where training diverged.
    """
    started = time.perf_counter()
    config, folder = asked(argv)
    try:
        processes.join(
            FLAGS.coordinator,
            FLAGS.processes,
            FLAGS.process_id,
            give_up=_give_up,
            timeout=FLAGS.start_timeout,
            hanging=FLAGS.hang_timeout,
        )
    except ValueError as error:
        _fail(str(error))
    compilation_cache.enable(FLAGS.compilation_cache)
    disk_cache.enable_disk_cache(FLAGS.token_cache)
    console = Terminal()
    if FLAGS.dry_run and not processes.is_first():
        return
    try:
        if FLAGS.dry_run:
            config = preview.preview(config, console, sys.argv[1:])
            run_folder.differences(folder, run_folder.located(config))
            return
        told = console if processes.is_first() else Listener()
        finished = cross_validation.is_complete(config, folder)
        trained = cross_validation.complete(
            config, folder, listener=told, listen=interrupts.listen, started=started
        )
        if not finished and processes.is_first():
            overview.conclude(console, trained.summary, folder)
        processes.end()
    except interrupts.Interrupted as stop:
        if processes.is_first():
            console.note(f"{stop}; saved. The same command continues the run.")
        _end(128 + stop.signum)
    except Diverged as error:
        if processes.is_first():
            command.complain(str(error))
        _end(3)
    except Exception as error:
        words = command.words_of(error)
        if words is None:
            if processes.how_many() > 1:
                # Most often another process is gone, and soon it is known which.
                processes.wait_for_word()
            raise
        if FLAGS.traceback:
            traceback.print_exc()
        if not processes.is_heard(error):
            command.complain(words)
        _end(2)


def _give_up(line):
    command.complain(line)
    os._exit(4)


def _end(status):
    processes.end()
    # Not sys.exit: nothing can end a compilation that is left on its thread, and what Orbax
    # left unfinished would have its say.
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            file.flush()
    os._exit(status)


if __name__ == "__main__":
    host_memory.begin()
    main(REST)
