"""Batches: rows of token ids -> padded batches of few shapes and little padding.

XLA compiles a step once a shape, and a padded token costs as much as a real
one. So each row is padded to one of a few bucket lengths, chosen to waste least,
and every batch has exactly the same number of rows. An epoch is a pure function
of (seed, epoch): a run can resume in the middle of one.

B rows a batch, T tokens (one of the bucket lengths), N rows in all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dwa_jax.data.token_rows import TokenRows


def bucket_lengths(
    lengths: Sequence[int] | np.ndarray, max_buckets: int, multiple: int = 1
) -> tuple[int, ...]:
    """Chooses the bucket lengths that pad the given rows least.

    Minimises sum_i (bucket of row i) over all choices of at most `max_buckets` lengths,
    exactly, by dynamic programming over the histogram of lengths.

    Args:
        lengths: (N,) tokens a row, each at least 1.
        max_buckets: most lengths to return.
        multiple: each length is a multiple of this.

    Returns:
        Ascending lengths; the last one holds the longest row.

    Raises:
        ValueError: there are no lengths, or one of the numbers is below 1.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if lengths.size == 0 or lengths.min() < 1:
        raise ValueError(f"lengths of at least 1 expected, got {lengths[:5].tolist()}")
    if max_buckets < 1 or multiple < 1:
        raise ValueError(
            f"max_buckets and multiple are at least 1, got {max_buckets} and {multiple}"
        )
    tops, counts = np.unique(-(-lengths // multiple) * multiple, return_counts=True)
    rows_up_to = np.concatenate([[0], np.cumsum(counts)])
    num_tops = len(tops)
    # cost[j]: least padded tokens for the rows of the first j lengths, with the buckets so far.
    cost = np.concatenate([[0], rows_up_to[1:] * tops])
    starts = []
    for _ in range(min(max_buckets, num_tops) - 1):
        next_cost, start = cost.copy(), np.zeros(num_tops + 1, dtype=np.int64)
        for j in range(1, num_tops + 1):
            choices = cost[:j] + (rows_up_to[j] - rows_up_to[:j]) * tops[j - 1]
            start[j] = np.argmin(choices)
            next_cost[j] = choices[start[j]]
        cost = next_cost
        starts.append(start)
    chosen, end = [], num_tops
    for start in reversed(starts):
        chosen.append(int(tops[end - 1]))
        end = int(start[end])
        if end == 0:
            break
    if end > 0:
        chosen.append(int(tops[end - 1]))
    return tuple(reversed(chosen))


def pad_rows(
    ids: Sequence[np.ndarray], count: int, length: int, pad_id: int
) -> dict[str, np.ndarray]:
    """Makes a batch of rows of token ids, without labels.

    Args:
        ids: at least one row and at most `count`, each (length of the text,).
        count: B. What fills the batch is a text like any other, so that nothing is undefined.
        length: T, of the longest row or above.
        pad_id: fills rows up, on the right.

    Returns:
        {"input_ids": (B, T) int32, "attention_mask": (B, T) int32}.
    """
    rows = [*ids, *[ids[0]] * (count - len(ids))]
    tokens = np.full((count, length), pad_id, np.int32)
    mask = np.zeros((count, length), np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], mask[i, : len(row)] = row, 1
    return {"input_ids": tokens, "attention_mask": mask}


class Batches:
    """Labelled rows of token ids, served in batches of equal size and few shapes.

    A batch is a dict of numpy arrays:

        input_ids       (B, T) int32, padded on the right
        attention_mask  (B, T) int32, 1 on real tokens
        score           (B,)   float32, 0 where missing
        score_mask      (B,)   float32, 1 where the row has a score
        category        (B,)   int32, 0 where missing
        category_mask   (B,)   float32, 1 where the row has a category
        row             (B,)   int32, index of the row; -1 for a filler row

    Only one batch of an epoch may hold filler rows, which make up its size: no label, and
    attention on the first position alone, so that pooling stays defined.

    Args:
        ids: N rows of token ids, each (length,) with at least one token.
        scores: (N,) floats, nan where missing.
        categories: (N,) integers, -1 where missing.
        batch_size: B.
        buckets: ascending bucket lengths, the last one at least the longest row.
        seed: non-negative integer; with the epoch it settles every batch.
        pad_id: the token id that fills rows up.
        shuffle: false serves the rows in their own order in every epoch, as a stream; each
            batch is then as long as its longest row's bucket.
        rows_of: (V,) int32, what batches have instead of each token id: its row in a word table
            that was cut down. None leaves ids as they are.

    Attributes:
        rows_of: as given.
        pad_id: what fills rows up in the batches.

    Raises:
        ValueError: there are no rows, the columns differ in length, a row is empty or longer
            than every bucket, or a number is out of range.
    """

    def __init__(
        self,
        ids: Sequence[np.ndarray],
        scores: np.ndarray,
        categories: np.ndarray,
        *,
        batch_size: int,
        buckets: Sequence[int],
        seed: int,
        pad_id: int,
        shuffle: bool = True,
        rows_of: np.ndarray | None = None,
    ):
        if not len(ids) == len(scores) == len(categories):
            raise ValueError(
                "ids, scores and categories of equal length expected,"
                f" got {len(ids)}, {len(scores)}, {len(categories)}"
            )
        if len(ids) == 0:
            raise ValueError("at least one row expected, got none")
        if batch_size < 1 or seed < 0 or pad_id is None or pad_id < 0:
            raise ValueError(
                "batch_size >= 1, seed >= 0 and pad_id >= 0 expected,"
                f" got {batch_size}, {seed} and {pad_id}"
            )
        self._buckets = np.asarray(buckets, dtype=np.int64)
        if self._buckets.size == 0 or np.any(np.diff(self._buckets) <= 0) or self._buckets[0] < 1:
            raise ValueError(f"buckets are ascending lengths, got {tuple(buckets)}")
        rows = TokenRows.of(ids)
        self._lengths = rows.lengths
        shortest, longest = int(self._lengths.argmin()), int(self._lengths.argmax())
        if self._lengths[shortest] == 0:
            raise ValueError(f"row {shortest} has no token")
        if self._lengths[longest] > self._buckets[-1]:
            raise ValueError(
                f"row {longest} has {self._lengths[longest]} tokens, more than the longest bucket,"
                f" {self._buckets[-1]}"
            )
        scores = np.asarray(scores, dtype=np.float64)
        categories = np.asarray(categories, dtype=np.int64)
        if np.any(categories < -1):
            row = int(np.argmin(categories))
            raise ValueError(f"row {row} has category {categories[row]}; -1 means missing")
        self._has_score, self._has_category = ~np.isnan(scores), categories >= 0
        self._scores = np.where(self._has_score, scores, 0.0).astype(np.float32)
        self._categories = np.where(self._has_category, categories, 0).astype(np.int32)
        self._ids = rows
        self._bucket_of = np.searchsorted(self._buckets, self._lengths)
        self._batch_size, self._seed, self._shuffle = batch_size, seed, shuffle
        self.rows_of = rows_of
        self.pad_id = pad_id if rows_of is None else int(rows_of[pad_id])

    def __len__(self) -> int:
        """Batches an epoch: ceil(N / B)."""
        return -(-len(self._lengths) // self._batch_size)

    @property
    def lengths(self) -> np.ndarray:
        """(N,) tokens a row, before padding."""
        return self._lengths.copy()

    @property
    def ids(self) -> TokenRows:
        """N rows of token ids, each (length,)."""
        return self._ids

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Every (B, T) that a batch may have."""
        return [(self._batch_size, int(length)) for length in self._buckets]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Returns the batches of one epoch, shuffled unless the rows are a stream.

        Args:
            epoch: non-negative integer; each has its own order and its own batches.
            start: how many batches to leave out at the front, without building them.

        Returns:
            Iterator of ceil(N / B) - start batches; each row is in exactly one of an epoch's.

        Raises:
            ValueError: `epoch` is negative, or `start` is not in [0, ceil(N / B)].
        """
        plan = self._plan(epoch)
        if not 0 <= start <= len(plan):
            raise ValueError(f"start is in [0, {len(plan)}], got {start}")
        return (self._batch(length, rows) for length, rows in plan[start:])

    def sequential(self) -> Iterator[dict[str, np.ndarray]]:
        """Returns every row once, unshuffled, by length; `row` restores the order.

        Returns:
            Iterator of ceil(N / B) batches, the longest rows first: a batch too large for
            the memory fails at once, and the filler rows go where a row is cheapest.
        """
        chunks = self._in_turn(np.argsort(-self._lengths, kind="stable"))
        return (self._batch(length, rows) for length, rows in chunks)

    def token_counts(self, epoch: int) -> tuple[int, int]:
        """Returns an epoch's real tokens and its computed tokens (padding and filler included)."""
        computed = sum(length for length, _ in self._plan(epoch)) * self._batch_size
        return int(self._lengths.sum()), computed

    def padding_fraction(self, epoch: int) -> float:
        """Returns the share of an epoch's computed tokens that is padding or filler, in [0, 1)."""
        real, computed = self.token_counts(epoch)
        return 1 - real / computed

    def _plan(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """Returns (bucket length, row indices) a batch, in the epoch's order."""
        if epoch < 0:
            raise ValueError(f"epoch is at least 0, got {epoch}")
        if not self._shuffle:
            return self._in_turn(np.arange(len(self._lengths)))
        rng = np.random.default_rng([self._seed, epoch])
        order = rng.permutation(len(self._lengths))
        bucket_of = self._bucket_of[order]
        plan: list[tuple[int, np.ndarray]] = []
        left = order[:0]
        for bucket, length in enumerate(self._buckets.tolist()):
            # What a bucket cannot fill a batch with moves to the next longer one. It goes first
            # there: at most B - 1 rows, so a full batch always has a row of the bucket's own.
            pool = np.concatenate([left, order[bucket_of == bucket]])
            num_full = len(pool) // self._batch_size
            full, left = np.split(pool, [num_full * self._batch_size])
            plan.extend((length, rows) for rows in full.reshape(num_full, self._batch_size))
        if len(left):
            plan.append((self._fitting(left), left))
        return [plan[i] for i in rng.permutation(len(plan))]

    def _in_turn(self, order: np.ndarray) -> list[tuple[int, np.ndarray]]:
        size = self._batch_size
        chunks = [order[i : i + size] for i in range(0, len(order), size)]
        return [(self._fitting(rows), rows) for rows in chunks]

    def _fitting(self, rows: np.ndarray) -> int:
        return int(self._buckets[self._bucket_of[rows].max()])

    def _batch(self, length: int, rows: np.ndarray) -> dict[str, np.ndarray]:
        filler = self._batch_size - len(rows)

        def column(values: np.ndarray, dtype: type, fill: int = 0) -> np.ndarray:
            return np.concatenate([values, np.full(filler, fill)]).astype(dtype)

        positions = np.arange(length)
        real = positions < column(self._lengths[rows], np.int64)[:, None]
        # Positions past a row's end would read its neighbour, or run off the end: masked below.
        where = column(self._ids.starts[rows], np.int64)[:, None] + positions
        tokens = self._ids.tokens[np.minimum(where, len(self._ids.tokens) - 1)]
        if self.rows_of is not None:
            tokens = self.rows_of[tokens]
        attention_mask = real.astype(np.int32)
        attention_mask[len(rows) :, 0] = 1
        return {
            "input_ids": np.where(real, tokens, self.pad_id).astype(np.int32),
            "attention_mask": attention_mask,
            "score": column(self._scores[rows], np.float32),
            "score_mask": column(self._has_score[rows], np.float32),
            "category": column(self._categories[rows], np.int32),
            "category_mask": column(self._has_category[rows], np.float32),
            "row": column(rows, np.int32, fill=-1),
        }
