"""Tables of texts in, the same tables with predictions out, chunk by chunk."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dwa_jax import data
from dwa_jax.data import DataError, cells, tables
from dwa_jax.data.rows import BadRow
from dwa_jax.finetune import occlusion
from dwa_jax.finetune.predictor import Predictor

# Texts explained at once, each of which costs as many predictions as it has words.
_EXPLAINED = 64


class Predicted(NamedTuple):
    """What came of a table.

    Attributes:
      rows: that were written.
      blank: what was wrong with those of them that have no prediction.
      left_out: what was wrong with those that were not written.
      at_ends: scores at the ends of the range, where those beyond it are clipped.
      abstained: texts that are marked, where that was asked for.
    """

    rows: int
    blank: list[str]
    left_out: list[str]
    at_ends: int
    abstained: int = 0


def predict_table(
    predictor: Predictor,
    reader: tables.TableReader,
    destination: Any,
    *,
    on_bad_row: str,
    explain: str = "none",
    abstain: float | None = None,
    name: str = "",
    show: Callable[[int, float | None], None] = lambda rows, share: None,
    cut: Callable[[int], None] = lambda texts: None,
    spreadsheet_safe: bool = False,
) -> Predicted:
    """Predicts a table chunk by chunk.

    Whatever ends it, the rows before that are in the destination, as a whole table.

    Args:
      predictor: of the run.
      reader: of the table, whole.
      destination: the file to make, or an open one.
      on_bad_row: "keep" gives a row without a usable text no prediction, "skip" leaves it out,
        "error" stops at it. A row that cannot be read has no place to keep, and is left out.
      explain: "none" or "occlusion".
      abstain: see `Predictor.abstentions`; None marks none.
      name: that the file will have, whose ending says how it is made.
      show: told how many rows are done, and the share of the table where that is known.
      cut: told how many texts of a chunk are longer than what the run allows.
      spreadsheet_safe: puts an apostrophe before cells of a CSV that a spreadsheet would run.

    Raises:
      DataError: the table cannot be read, or a row is bad; names file and row.
    """
    added = columns(predictor, explain, abstain)
    writer = tables.TableWriter(destination, reader, added, name, spreadsheet_safe)
    bad = _BadRows(on_bad_row)
    done = at_ends = marked = 0
    try:
        for chunk in reader.chunks():
            kept, usable, texts, encoded = _usable(predictor, reader.name, chunk, bad)
            cut(encoded.num_truncated)
            found = predictor.predict_tokens(encoded, abstain=abstain)
            if found.abstained is not None:
                marked += int(found.abstained.sum())
            values = _values(predictor, found)
            if explain == "occlusion":
                values["explanation"] = list(_explained(predictor, texts, found))
            if found.score is not None and predictor.clip_scores:
                at_ends += int(np.count_nonzero(np.abs(found.score) == 1))
            place = {row: i for i, row in enumerate(usable)}
            spread = {
                name: [column[place[row]] if row in place else None for row in kept]
                for name, column in values.items()
            }
            if kept or bad.stopped_at is None:
                writer.write(chunk.keep(kept), spread)
            done += len(kept)
            show(done, chunk.share)
            if bad.stopped_at is not None:
                raise bad.stopped_at
        writer.close()
    except BaseException:
        if done:
            with contextlib.suppress(Exception):
                writer.close()
        writer.abandon()
        raise
    return Predicted(done, bad.blank, bad.left_out, at_ends, marked)


class _BadRows:
    def __init__(self, how: str) -> None:
        self.how = how
        self.blank: list[str] = []
        self.left_out: list[str] = []
        self.stopped_at: DataError | None = None

    def take(self, message, whole):
        # Whether the row is written.
        if self.how == "error":
            self.stopped_at = DataError(message)
        elif self.how == "keep" and whole:
            self.blank.append(message)
            return True
        else:
            self.left_out.append(message)
        return False


def columns(predictor: Predictor, explain: str, abstain: float | None = None) -> dict[str, type]:
    """Returns the columns that are added: name -> type."""
    run = predictor.run
    added: dict[str, type] = {}
    tasks = [task.name for task in run.tasks]
    if "regression" in tasks:
        added["predicted_score"] = float
        if run.config.score_range:
            added["predicted_in_range"] = float
        if predictor.fit_intervals() is not None:
            added |= {"interval_low": float, "interval_high": float}
    added["predicted_category"] = int
    if predictor.names:
        added["predicted_name"] = str
    if "classification" in tasks:
        added |= {f"probability_{k}": float for k in range(run.config.num_classes)}
    added["truncated"] = int
    if abstain is not None:
        added |= {"unlike": int, "abstained": int}
    if explain == "occlusion":
        added["explanation"] = list
    return added


def _usable(predictor, name, chunk, bad):
    # Places of the rows that are written and of those that can be predicted, and of the latter
    # their texts and their tokens.
    kept, usable, texts = [], [], []
    for i, row in enumerate(chunk.cells):
        try:
            if isinstance(row, BadRow):
                raise cells.BadCell(row.problem)
            text = cells.text(row[0])
        except cells.BadCell as problem:
            whole = not isinstance(row, BadRow) or row.whole
            if bad.take(f"{name}, row {chunk.numbers[i]}: {problem}", whole):
                kept.append(i)
        else:
            kept.append(i)
            usable.append(i)
            texts.append(text)
        if bad.stopped_at is not None:
            break
    origin = [(name, chunk.numbers[i]) for i in usable]
    encoded = predictor.tokens(texts, origin, allow_wordless=True)
    for place in np.flatnonzero(encoded.wordless).tolist():
        if not bad.take(f"{name}, row {origin[place][1]}: {data.no_token(texts[place])}", True):
            kept.remove(usable[place])
        if bad.stopped_at is not None:
            # It comes before what was found bad behind it.
            kept = [row for row in kept if row < usable[place]]
            break
    left = set(kept)
    good = [i for i in np.flatnonzero(~encoded.wordless).tolist() if usable[i] in left]
    encoded = data.Encoded(encoded.ids.take(np.array(good, int)), *(x[good] for x in encoded[1:]))
    return kept, [usable[i] for i in good], [texts[i] for i in good], encoded


def _values(predictor, found):
    values = {
        "predicted_category": list(found.category),
        "truncated": list(map(int, found.truncated)),
    }
    if found.score is not None:
        values["predicted_score"] = _short(found.score)
        if found.in_range is not None:
            values["predicted_in_range"] = found.in_range.tolist()
    if found.interval is not None:
        for name, ends in zip(("interval_low", "interval_high"), found.interval.T, strict=True):
            values[name] = _short(ends) if found.in_range is None else ends.tolist()
    if found.abstained is not None:
        values["unlike"] = list(map(int, found.unlike))
        values["abstained"] = list(map(int, found.abstained))
    if predictor.names:
        values["predicted_name"] = [predictor.names[category] for category in found.category]
    if found.probabilities is not None:
        for k in range(found.probabilities.shape[1]):
            values[f"probability_{k}"] = _short(found.probabilities[:, k])
    return values


def _short(numbers):
    # As many digits as float32 has: the model computes no others.
    return [float(str(number)) for number in numbers.astype(np.float32)]


def _explained(predictor, texts, found):
    for start in range(0, len(texts), _EXPLAINED):
        part = slice(start, start + _EXPLAINED)
        whole = type(found)(*(None if values is None else values[part] for values in found))
        yield from occlusion.explain(predictor, texts[part], whole)
