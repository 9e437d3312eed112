"""Which shapes a server compiles before it answers, and which of them the next batch takes.

What waits at a moment is a few texts of any length. Each batch is the one in which most of the
time goes into tokens that are real, among those that have the text that waits longest in them: so
nobody waits for ever, and short texts are not padded to long ones.

N texts that wait.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

# Tokens of the shortest shape.
_SHORTEST = 16


def warm_shapes(
    longest: int, batch_size: int, most_tokens: int, steps: int, multiple: int = 1
) -> list[tuple[int, int]]:
    """Returns the shapes (rows, tokens) to compile.

    Rows grow fourfold: what does not fill a shape goes through several smaller ones.

    Args:
      longest: tokens of the longest text that may come.
      batch_size: most rows.
      most_tokens: in a batch of several rows, so that it does not keep others waiting for long.
      steps: lengths from one power of two to the next.
      multiple: what numbers of rows are multiples of: the number of devices.
    """
    lengths = [longest]
    size = _SHORTEST
    while size < longest:
        lengths += [n for n in range(size, 2 * size, size // steps) if n < longest]
        size *= 2
    rows = [multiple]
    while rows[-1] * 4 < batch_size:
        rows.append(rows[-1] * 4)
    if rows[-1] < batch_size:
        rows.append(batch_size)
    return [
        (count, length)
        for length in sorted(lengths)
        for count in rows
        if count == multiple or count * length <= most_tokens
    ]


def choose_batch(
    lengths: Sequence[int], shapes: Iterable[tuple[int, int]], overhead: float
) -> list[int]:
    """Chooses which of the texts that wait go through the model next.

    Args:
      lengths: (N,) their tokens, in the order in which they came.
      shapes: (rows, tokens) that are compiled; one fits the first text.
      overhead: of one batch, in tokens that could be computed instead.

    Returns:
      Places of those texts, the first among them.
    """
    tokens = np.asarray(lengths)
    order = np.argsort(-tokens, kind="stable")
    descending = tokens[order]
    sums = np.concatenate([[0], np.cumsum(descending)])
    oldest = int(np.flatnonzero(order == 0)[0])
    best, chosen = -1.0, np.zeros(1, int)
    for rows, length in shapes:
        if length < tokens[0]:
            continue
        start = int(np.searchsorted(-descending, -length))
        end = min(start + rows, len(order))
        # The longest that fit; of them the shortest makes room where the oldest is not among them.
        others = end if oldest < end else end - 1
        real = sums[others] - sums[start] + (0 if oldest < end else tokens[0])
        share = real / (rows * length + overhead)
        if share > best:
            taken = order[start:others]
            best, chosen = share, taken if oldest < end else np.append(taken, 0)
    return chosen.tolist()


def overhead_in_tokens(seconds: Mapping[tuple[int, int], float]) -> float:
    """Returns what a batch costs beside its tokens, in tokens, by a line through the times.

    Args:
      seconds: of a batch of each shape.
    """
    tokens = np.array([rows * length for rows, length in seconds], float)
    taken = np.array(list(seconds.values()))
    if len(set(tokens)) < 2:
        return 0.0
    # Relative errors count: the largest shapes would settle a line of absolute ones alone.
    slope, start = np.polyfit(tokens, taken, 1, w=1 / taken)
    return float(max(0.0, start / slope)) if slope > 0 else 0.0
