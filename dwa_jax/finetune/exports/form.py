"""What a form of export is: what `exports.get` returns."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dwa_jax.finetune.saved import Trained


class ExportForm(NamedTuple):
    """A form that other programs open.

    Attributes:
      packages: what opening takes, the one that opens first; their modules' names.
      refusal: run -> why the form cannot hold it and what would; "" where it can.
      write: (run, empty folder) -> None.
      outputs: (run, folder, N texts) -> {task: (N, outputs)}, by the package and no line of ours.
      opening: run -> the card's lines on how to open it.
      near: ("FILE", the same as `outputs` by it) of a file whose numbers are near the run's and
        not the same, or None.
    """

    packages: tuple[str, ...]
    refusal: Callable[[Trained], str]
    write: Callable[[Trained, Path], None]
    outputs: Callable[[Trained, Path, Sequence[str]], dict[str, np.ndarray]]
    opening: Callable[[Trained], list[str]]
    near: tuple[str, Callable[[Trained, Path, Sequence[str]], dict[str, np.ndarray]]] | None = None
