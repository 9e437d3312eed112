"""What `--help` of the main program says: options, configurations, and the keys of one.

Imports no jax, so that the answer is there at once.
"""

import ast
import importlib.util
import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

from dwa_jax.finetune.config import Config, meanings
from dwa_jax.messages import one_line
from experiments.terminal import command

_OPTIONS = {
    "--config=FILE": "a configuration, which is needed",
    "--config.KEY=VALUE": "changes one of its keys",
    "--workdir=DIR": "folder of the run; by default runs/NAME of the configuration",
    "--coordinator=HOST:PORT": "of process 0, where several processes train one run; SLURM, Open "
    "MPI and Kubernetes say it themselves",
    "--processes=N": "how many there are",
    "--process_id=I": "which of them this one is, from 0",
    "--start_timeout=SECONDS": "until all of them must have come, by default 120",
    "--hang_timeout=SECONDS": "until one that lives, and is behind the others, ends them all; "
    "by default 900, more than a step takes to compile",
    "--dry_run": "prints what the data come to, and neither trains nor writes anything",
    "--compilation_cache=DIR": "where compiled programs are kept for the next start; by default in "
    "the user's cache folder, off keeps none",
    "--token_cache=DIR": "likewise, where rows and token ids of 20,000 texts and more are kept",
    "--traceback": "shows where in the code an error was raised",
    "--help, -h": "this; with --config=FILE the keys of that configuration",
}


def answer(arguments: list[str], about: str) -> None:
    """Prints help and ends the program, if it is asked for.

    Args:
      arguments: of the command line.
      about: what the program does.
    """
    if not {"--help", "-help", "-h"} & set(arguments):
        return
    path = next((a.partition("=")[2] for a in arguments if a.startswith("--config=")), None)
    try:
        text = keys(Path(path)) if path else program_help(about)
    except Exception as error:  # a configuration is code and may raise anything
        if "--traceback" in arguments:
            raise
        words = one_line(error, 1000)
        command.complain(f"{path} cannot be loaded: {type(error).__name__}: {words}")
        sys.exit(2)
    try:
        command.say(text)
        sys.stdout.flush()
    except BrokenPipeError:
        command.end_unread()
    sys.exit(0)


def program_help(about: str) -> str:
    """Returns what the program does, its options, and a line for each configuration."""
    # Python without docstrings (PYTHONOPTIMIZE=2) has none.
    lines = [(about or "").strip(), "", "options:", *_table(_OPTIONS), ""]
    files = configuration_files()
    lines += [f"configurations, each a --config={files[0].parent}/NAME.py:"]
    lines += _table({path.stem: summary(path) for path in files})
    lines += ["", "the keys of one, with their values and meanings:"]
    lines += [f"  python -m experiments.main --help --config={files[0].parent}/demo.py"]
    return "\n".join(lines)


def configuration_files() -> list[Path]:
    """Returns the files of the configurations, that with every key first."""
    folder = _file("configs").parent
    # As a person would type them, who is where the project is.
    folder = Path(os.path.relpath(folder)) if folder.is_relative_to(Path.cwd()) else folder
    return sorted(folder.glob("[a-z]*.py"), key=lambda path: (path.stem != "base", path.stem))


def summary(path: Path) -> str:
    """Returns the first line of a file's docstring."""
    documented = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return documented.partition("\n")[0]


def keys(path: Path) -> str:
    """Returns every key of a configuration with its value, and its meaning.

    Args:
      path: of the configuration.

    Raises:
      Exception: whatever running the file raises.
    """
    config, defaults = load(path), Config().to_dict()
    told = {key: (heading, meaning) for key, heading, meaning in meanings()}
    lines = [f"keys of {path}; * where it differs from the defaults"]
    # Those that a configuration of one's own has besides come last.
    section = None
    for key in sorted(config, key=lambda key: list(told).index(key) if key in told else len(told)):
        heading, meaning = told.get(key, ("of its own", ""))
        if heading != section:
            lines += ["", *_wrapped(heading, "")]
            section = heading
        for name, value in _flat(key, config[key]):
            mark = " " if (name, value) in _flat(key, defaults.get(key)) else "*"
            lines += _wrapped(f"{mark} --config.{name}={value!r}", "      ")
        lines += _wrapped(meaning, "      ", first="      ")
    return "\n".join(lines)


def _file(name: str) -> Path:
    specification = importlib.util.find_spec(name)
    if specification is None or specification.origin is None:
        raise ImportError(f"there is no file of {name}")
    return Path(specification.origin)


def load(path: Path) -> Any:
    """Returns what a configuration file's `get_config` does.

    Raises:
      Exception: whatever running the file raises.
    """
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or specification.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.get_config()


def _flat(key, value):
    if hasattr(value, "items"):
        return [pair for name in value for pair in _flat(f"{key}.{name}", value[name])]
    return [(key, value)]


def _table(rows: dict[str, str]) -> list[str]:
    wide = max(map(len, rows)) + 4
    return [
        line
        for name, text in rows.items()
        for line in _wrapped(text, " " * wide, first=f"  {name}".ljust(wide))
    ]


def _wrapped(text, indent, first=""):
    width = shutil.get_terminal_size().columns
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
    )
