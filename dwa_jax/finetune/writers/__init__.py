"""Where the records of metrics.jsonl go besides: any number of writers behind one interface.

A further one is a file here with a class like `protocol.Writer`, and a line in `WRITERS`.
"""

import importlib.util

from dwa_jax.finetune.writers.log import Log as Log
from dwa_jax.finetune.writers.protocol import Opening as Opening
from dwa_jax.finetune.writers.protocol import Writer
from dwa_jax.finetune.writers.tensorboard import TensorBoard
from dwa_jax.finetune.writers.wandb import WeightsAndBiases

# Its name in the configuration -> its class.
WRITERS: dict[str, type[Writer]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


def choose_writers(text: str) -> dict[str, type[Writer]]:
    """Finds writers by their names, and sees to it that their packages are there.

    Args:
      text: names with commas between; "" for none.

    Returns:
      {name: its class}.

    Raises:
      ValueError: a name is unknown or there twice, or a package is missing; one line says
        what to install.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    chosen = {}
    for name in names:
        if name not in WRITERS:
            raise ValueError(f"writers: unknown name {name!r}; there are: {', '.join(WRITERS)}")
        if name in chosen:
            raise ValueError(f"writers={text!r} has {name!r} twice")
        package = WRITERS[name].package
        if package and not _is_installed(package):
            raise ValueError(
                f"writers={text!r} needs the package {package}: "
                f'pip install -e ".[{WRITERS[name].extra}]"'
            )
        chosen[name] = WRITERS[name]
    return chosen


def _is_installed(package):
    specification = importlib.util.find_spec(package)
    # A mere folder of that name, which both of these programs make, can be imported as well.
    return specification is not None and specification.origin is not None
