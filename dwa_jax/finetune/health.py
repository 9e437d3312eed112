"""Watches a run: how it begins, which updates are left out, when a bound is passed."""

from collections import deque
from collections.abc import Callable, Sequence

import jax
import numpy as np

from dwa_jax import processes
from dwa_jax.finetune.listener import Listener
from dwa_jax.finetune.writers import Log

# Notes of single updates left out; further ones are in metrics.jsonl.
_MOST_NOTES = 5
# Times the spread of the scores, from which on the first loss of the regression is told.
_SHOUTS = 3
# Steps whose outcome may be outstanding: far more than a device is ever behind.
_MOST_PENDING = 100
_SHARED_PENDING = 2


class Diverged(Exception):
    """Too many updates in a row were left out."""


class Health:
    """Follows the steps without waiting for them.

    The outcome of a step is looked at once it is there, so a run may go on for a few steps
    past the one that ends it. These change nothing: their updates are left out, too, or
    the run is ended before they are saved.
    """

    def __init__(
        self,
        max_bad_steps: int,
        in_a_row: int,
        origin: Sequence[tuple[str, int]],
        last_saved: Callable[[], str],
        log: Log,
        listener: Listener,
        scores: np.ndarray | None = None,
    ):
        """Starts to watch.

        Args:
          max_bad_steps: updates left out in a row that end the run.
          in_a_row: of them before the first step.
          origin: (file, row number) of each training row.
          last_saved: names the last checkpoint.
          log: metrics.jsonl.
          listener: told what was left out.
          scores: (N,) of each training row, nan where it has none; None where the regression's
            loss is no mean squared error of them.
        """
        self._scores = scores
        self._most, self._in_a_row, self._origin = max_bad_steps, in_a_row, origin
        self._last_saved, self._log, self._listener = last_saved, log, listener
        self._pending: deque[tuple] = deque()
        self._noted = 0
        self._left: set[str] = set()

    def follow(self, step: int, epoch: int, rows: np.ndarray, values: dict) -> None:
        """Takes note of a step that was started, and looks at those that are through.

        Args:
          step: counted from 1.
          epoch: likewise.
          rows: (B,) the batch's training rows, -1 for filler.
          values: the step's metrics, still on the device.

        Raises:
          Diverged: too many updates in a row were left out.
        """
        self._pending.append((step, epoch, rows, values))
        while self._pending:
            if self._may_wait():
                return
            self._judge(*self._pending.popleft())

    def _may_wait(self):
        # Several processes look at the same steps, or one of them would end alone.
        if processes.how_many() > 1:
            return len(self._pending) <= _SHARED_PENDING
        ready = self._pending[0][3]["skipped"].is_ready()
        return not ready and len(self._pending) <= _MOST_PENDING

    def settle(self) -> None:
        """Looks at every step, waiting where needed; before anything is saved.

        Raises:
          Diverged: too many updates in a row were left out.
        """
        while self._pending:
            self._judge(*self._pending.popleft())

    def is_sound(self) -> bool:
        """Settles, and returns whether the last update was made.

        Raises:
          Diverged: too many updates in a row were left out.
        """
        self.settle()
        return self._in_a_row == 0

    def check_bounds(self, step: int, record: dict) -> None:
        """Says once when alpha or beta is negative: the loss has no minimum from there on."""
        for name in ("alpha", "beta"):
            if record.get(name, 0) < 0 and name not in self._left:
                self._left.add(name)
                self._listener.note(
                    f"warning: step {step}: {name} = {record[name]:.4g} has left its bounds "
                    "(below 0): the imbalance loss has no minimum there, the run diverges"
                )

    def _check_start(self, scores, rows, loss):
        # A batch of unusual texts is no reason: its own spread counts as well.
        mean, variance = np.nanmean(scores), np.nanvar(scores)
        here = scores[rows[rows >= 0]]
        here = here[~np.isnan(here)]
        least = max(variance, np.mean((here - mean) ** 2)) if len(here) else variance
        if loss > _SHOUTS * least > 0:
            self._listener.note(
                f"warning: the regression's first loss is {loss:.3g}, {loss / variance:.1f} times "
                f"the variance of the scores ({variance:.3g}), which their mean alone would give: "
                "the first steps will undo what the backbone knows. Its head is for scores of "
                "another range (score_range), or its vectors are too long for it"
            )

    def _judge(self, step, epoch, rows, values):
        if step == 1 and self._scores is not None:
            self._check_start(self._scores, rows, float(values["loss_regression"]))
        if not int(values["skipped"]):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        values = jax.device_get(values)
        bad = [name for name, value in values.items() if not np.isfinite(value)]
        # A head's own gradient is the one thing that may be bad and is not among the values.
        spike = np.isfinite(values["gradient_norm"]) and not bad
        reason = "a spike, or a head's gradient" if spike else f"not finite: {', '.join(bad)}"
        where = self._rows(rows)
        self._log.write(
            {
                "kind": "skipped",
                "step": step,
                "epoch": epoch,
                "in_a_row": self._in_a_row,
                "reason": reason,
                "rows": where,
            }
        )
        if self._in_a_row >= self._most:
            raise Diverged(
                f"step {step}: {self._in_a_row} updates in a row were left out, this one on "
                f"{where} ({reason}); last good checkpoint: {self._last_saved()}"
            )
        self._noted += 1
        if self._noted <= _MOST_NOTES:
            more = "; any more are in metrics.jsonl" if self._noted == _MOST_NOTES else ""
            self._listener.note(f"step {step}: update left out ({reason}){more}")

    def _rows(self, rows):
        numbers: dict[str, list[int]] = {}
        for row in rows[rows >= 0]:
            file, number = self._origin[row]
            numbers.setdefault(file, []).append(number)
        return ", ".join(
            f"{file} rows {', '.join(map(str, sorted(found)))}" for file, found in numbers.items()
        )
