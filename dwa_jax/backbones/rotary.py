"""Rotary positions over longer texts than a model was first trained on: scaled frequencies.

Axes: E width of one head.
"""

import dataclasses
from typing import Protocol

import numpy as np


class Scaling(Protocol):
    """What is done to the frequencies of a rotary embedding; hashable."""

    def __call__(self, frequencies: np.ndarray) -> np.ndarray:
        """(E / 2,) frequencies, in radians a token -> those that are used."""

    def written(self) -> dict:
        """Returns the entries of `rope_parameters` that say so."""


@dataclasses.dataclass(frozen=True)
class Interpolation:
    """Every position divided by one factor.

    Source: Chen et al. 2023, "Extending Context Window of Large Language Models via
    Positional Interpolation".
    """

    rope_type: str
    factor: float

    def __call__(self, frequencies: np.ndarray) -> np.ndarray:
        return frequencies / self.factor

    def written(self) -> dict:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class ByWavelength:
    """Long waves divided by a factor, short ones kept, a linear passage in between.

    A wave of w tokens turns `original_positions / w` times within the first training's
    texts: fewer turns than `low_freq_factor` make it long, more than `high_freq_factor`
    short.

    Source: Grattafiori et al. 2024, "The Llama 3 Herd of Models", section 3.4.2, and the
    code released with it.
    """

    rope_type: str
    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def __call__(self, frequencies: np.ndarray) -> np.ndarray:
        turns = self.original_max_position_embeddings * frequencies / (2 * np.pi)
        span = self.high_freq_factor - self.low_freq_factor
        kept = np.clip((turns - self.low_freq_factor) / span, 0, 1)
        return kept * frequencies + (1 - kept) * frequencies / self.factor

    def written(self) -> dict:
        return dataclasses.asdict(self)
