"""Which shapes prediction pads its batches to.

XLA compiles a program a shape, and a padded token costs as much as a real one. Lengths known
beforehand (training's) are dealt with by `data.bucket_lengths`; texts to predict come a call at a
time, ten of them or a million. So compilation has a price in tokens, and each call takes the
shapes, new ones or those compiled before, that cost least in all.

B rows of a batch, T tokens, N rows in all.
"""

from collections.abc import Iterable, Sequence

import numpy as np

# Lengths are multiples of this, so that texts of like lengths share a program.
_MULTIPLE = 4
# Programs that may be compiled, beyond those that nothing compiled would do instead of.
_MOST = 24


class PaddedShapes:
    """Shapes (B, T) for batches of texts, those in use first.

    Attributes:
      used: shapes that were chosen before; each is compiled.
    """

    def __init__(self, longest: int, price: float, multiple: int = 1):
        """Begins with nothing compiled.

        Args:
          longest: T of the longest text that may come.
          price: of one compilation, in tokens that could be computed instead.
          multiple: what numbers of rows are multiples of: the number of devices.
        """
        self.used: set[tuple[int, int]] = set()
        self._longest, self._price, self._multiple = longest, price, multiple
        self._fixed = False

    def fix(self, shapes: Iterable[tuple[int, int]]) -> None:
        """Has these shapes compiled, and from here on no others where texts fit one of them."""
        self.used = set(shapes)
        self._fixed = True

    def choose(self, lengths: Sequence[int] | np.ndarray, batch_size: int) -> list[tuple[int, int]]:
        """Chooses the shapes of one call's batches, and counts them as compiled.

        Args:
          lengths: (N,) tokens a text, descending: batch i holds the texts from B i on.
          batch_size: B, a multiple of the number of devices.

        Returns:
          (rows, tokens) of each batch, at least those of its texts.
        """
        lengths = np.asarray(lengths)
        whole, rest = divmod(len(lengths), batch_size)
        tops = self._rounded(lengths[::batch_size])
        found = self._of_whole_batches(tops[:whole], batch_size)
        self.used |= set(found)
        if rest:
            found.append(self._of_the_last(rest, int(tops[-1]), batch_size))
            self.used.add(found[-1])
        return found

    def _rounded(self, lengths):
        return np.minimum(-(-lengths // _MULTIPLE) * _MULTIPLE, self._longest)

    def _cost_of_new(self):
        return self._price if len(self.used) < _MOST and not self._fixed else np.inf

    def _of_whole_batches(self, tops, size):
        # Exactly, by dynamic programming over the lengths that could be compiled, ascending:
        # cost[j] is the least for the batches that fit length j, which is the last one taken.
        if not len(tops):
            return []
        compiled = {length for rows, length in self.used if rows == size}
        lengths = np.array(sorted(compiled | set(tops.tolist())))
        prices = np.array([0.0 if n in compiled else self._cost_of_new() for n in lengths])
        if not np.isfinite(prices[lengths >= tops[0]]).any():
            prices[lengths == tops[0]] = self._price
        upto = np.concatenate([[0], (tops[None] <= lengths[:, None]).sum(1)])
        cost, before = np.zeros(len(lengths) + 1), np.zeros(len(lengths) + 1, int)
        for j, (length, price) in enumerate(zip(lengths, prices, strict=True), 1):
            choices = cost[:j] + (upto[j] - upto[:j]) * size * length + price
            before[j] = np.argmin(choices)
            cost[j] = choices[before[j]]
        ends = np.flatnonzero(upto == len(tops))
        end = int(ends[ends > 0][np.argmin(cost[ends[ends > 0]])])
        taken = []
        while end:
            taken.append(int(lengths[end - 1]))
            end = int(before[end])
        ascending = np.array(taken[::-1])
        return [(size, int(ascending[np.searchsorted(ascending, top)])) for top in tops]

    def _of_the_last(self, rest, top, size):
        # Fewer rows than a batch: a shape of its own, or one that is there.
        own = (min(size, self._multiple * _steps(-(-rest // self._multiple))), top)
        fits = [shape for shape in self.used if shape[0] >= rest and shape[1] >= top]
        costs = {shape: shape[0] * shape[1] for shape in fits}
        costs.setdefault(own, own[0] * own[1] + (self._cost_of_new() if costs else 0))
        return min(costs, key=lambda shape: (costs[shape], shape))


def _steps(number):
    # 1, 2, 3, 4, 6, 8, 12, 16, ...: at most a third of the rows is filled up.
    power = 1 << (number - 1).bit_length()
    return power * 3 // 4 if power >= 4 and number <= power * 3 // 4 else power
