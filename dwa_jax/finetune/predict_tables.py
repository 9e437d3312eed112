"""Tables of texts in, the same tables with predictions out, chunk by chunk."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dwa_jax import data
from dwa_jax.data import DataError, cells, tables
from dwa_jax.data.rows import BadRow
from dwa_jax.finetune import occlusion
from dwa_jax.finetune.predictor import Predictor, scores_in_range

# Texts explained at once, each of which costs as many predictions as it has words.
_EXPLAINED = 64


def predict_table(
    predictor: Predictor,
    reader: tables.TableReader,
    destination: Any,
    *,
    on_bad_row: str,
    explain: str = "none",
    name: str = "",
    show: Callable[[int, float | None], None] = lambda rows, share: None,
    cut: Callable[[int], None] = lambda texts: None,
    spreadsheet_safe: bool = False,
) -> tuple[int, list[str]]:
    """Predicts a table chunk by chunk.

    Args:
      predictor: of the run.
      reader: of the table, whole.
      destination: the file to make, or an open one.
      on_bad_row: "error" stops at a row without a usable text, "skip" leaves it out.
      explain: "none" or "occlusion".
      name: that the file will have, whose ending says how it is made.
      show: told how many rows are done, and the share of the table where that is known.
      cut: told how many texts of a chunk are longer than what the run allows.
      spreadsheet_safe: puts an apostrophe before cells of a CSV that a spreadsheet would run.

    Returns:
      (rows written, what was wrong with those left out).

    Raises:
      DataError: the table cannot be read, or a row is bad; names file and row.
    """
    added = columns(predictor, explain)
    writer = tables.TableWriter(destination, reader, added, name, spreadsheet_safe)
    done = 0
    left_out: list[str] = []
    try:
        for chunk in reader.chunks():
            kept, texts, encoded = _usable(predictor, reader.name, chunk, on_bad_row, left_out)
            cut(encoded.num_truncated)
            found = predictor.predict_ids(encoded.ids)._replace(truncated=encoded.truncated)
            values = _values(predictor, found)
            if explain == "occlusion":
                values["explanation"] = list(_explained(predictor, texts, found))
            writer.write(chunk.keep(kept), values)
            done += len(kept)
            show(done, chunk.share)
        writer.close()
    except BaseException:
        writer.abandon()
        raise
    return done, left_out


def columns(predictor: Predictor, explain: str) -> dict[str, type]:
    """Returns the columns that are added: name -> type."""
    run = predictor.run
    added: dict[str, type] = {}
    tasks = [task.name for task in run.tasks]
    if "regression" in tasks:
        added["predicted_score"] = float
        if run.config.score_range:
            added["predicted_in_range"] = float
    added["predicted_category"] = int
    if predictor.names:
        added["predicted_name"] = str
    if "classification" in tasks:
        added |= {f"probability_{k}": float for k in range(run.config.num_classes)}
    added["truncated"] = int
    if explain == "occlusion":
        added["explanation"] = list
    return added


def _usable(predictor, name, chunk, on_bad_row, left_out):
    # Places of the rows that can be predicted, their texts and their tokens.
    kept, texts = [], []

    def bad(message):
        if on_bad_row == "error":
            raise DataError(message)
        left_out.append(message)

    for i, row in enumerate(chunk.cells):
        try:
            if isinstance(row, BadRow):
                raise cells.BadCell(row.problem)
            texts.append(cells.text(row[0]))
            kept.append(i)
        except cells.BadCell as problem:
            bad(f"{name}, row {chunk.numbers[i]}: {problem}")
    origin = [(name, chunk.numbers[i]) for i in kept]
    encoded = predictor.tokens(texts, origin, allow_wordless=True)
    for i in np.flatnonzero(encoded.wordless).tolist():
        bad(f"{name}, row {origin[i][1]}: {data.no_token(texts[i])}")
    good = np.flatnonzero(~encoded.wordless)
    encoded = data.Encoded([encoded.ids[i] for i in good], *(x[good] for x in encoded[1:]))
    return [kept[i] for i in good], [texts[i] for i in good], encoded


def _values(predictor, found):
    values = {
        "predicted_category": list(found.category),
        "truncated": list(map(int, found.truncated)),
    }
    if found.score is not None:
        values["predicted_score"] = _short(found.score)
        in_range = scores_in_range(predictor.run.config, found.score)
        if in_range is not None:
            values["predicted_in_range"] = in_range.tolist()
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
