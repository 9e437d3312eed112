"""Train and load from Python: texts and labels in, a model out."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from dwa_jax import data, regular_files
from dwa_jax.data import cells
from dwa_jax.finetune import cross_validation
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import IN_MEMORY
from dwa_jax.finetune.listener import Listener, ProgressBar
from dwa_jax.finetune.predictor import Predictor


def train(
    texts: Iterable[str] | None = None,
    scores: Iterable[float | None] | None = None,
    *,
    categories: Iterable[int | str | None] | None = None,
    validation: Any = None,
    test: Any = None,
    folder: str | os.PathLike | None = None,
    config: Config | Mapping | None = None,
    listener: Listener | None = None,
    **keys: Any,
) -> Predictor:
    """Fine-tunes a model on scored texts.

    >>> model = dwa_jax.train(texts, scores, backbone="FacebookAI/roberta-large", epochs=3)
    >>> model(["EUR/USD jumps after ECB"])[0].score

    Args:
      texts: N strings: a list, an array, or a column of pandas or pyarrow. None reads the files
        that the key `train` names.
      scores: N numbers in [-1, 1], or in the key `score_range`; None or nan where a text has
        none. None where no text has one.
      categories: N integers in [0, K), or names where the key `category_names` gives their
        order; None or nan where a text has none. None leaves them to the scores.
      validation: rows that pick the best epoch, as (texts, scores), (texts, scores, categories)
        or a mapping with these names, or files, as in the key of this name; None takes a part of
        the texts, by the key `fractions`.
      test: rows that are scored once at the end, likewise.
      folder: where the run is kept; an unfinished run of the same configuration and texts is
        continued, a finished one is read, or goes on where `epochs` is larger and it was run with
        `keep_checkpoints`. None keeps nothing on disk.
      config: a `Config`, or whatever maps keys to values; its defaults by default.
      listener: told how it goes; by default notes and a bar are shown. `Listener()` is silent.
      **keys: keys of the configuration, see `Config`.

    Returns:
      The model, of the best epoch. With the key `folds` that of one fold, and its `summary` says
      which, and what mean and interval all folds come to.

    Raises:
      ValueError: a key, a text, a label or the folder is not usable; one line says which.
      TypeError: an argument is of another type than above.
      OSError: something cannot be read or written.
      dwa_jax.Diverged: too many updates in a row were left out.
    """
    # Both names are keys too, of files.
    splits = {"validation": validation, "test": test}
    keys |= {split: name for split, name in splits.items() if isinstance(name, str | os.PathLike)}
    splits = {split: None if split in keys else rows for split, rows in splits.items()}
    settings = Config.of(config, **keys)
    if listener is not None and not isinstance(listener, Listener):
        raise TypeError(f"listener must be a dwa_jax.Listener, got {listener!r:.60}")
    given = None
    if texts is not None:
        if isinstance(texts, str) or hasattr(texts, "columns"):
            raise ValueError(
                f"texts must be a list or a column, got {type(texts).__name__}; of a table give "
                "table['text'] and table['score'], of a file its name as train=..."
            )
        given = {"train": given_rows(settings, texts, scores, categories)}
        for split, rows in splits.items():
            if rows is not None:
                given[split] = data.from_split(rows, split, **_options(settings))
        for split in ("train", "validation", "test"):
            if getattr(settings, split) and split in given:
                raise ValueError(
                    f"{split}={getattr(settings, split)!r} names files, and rows are given too; "
                    "one of the two"
                )
        settings = Config.of(settings, **dict.fromkeys(given, IN_MEMORY))
    elif any(rows is not None for rows in (scores, categories, *splits.values())):
        raise ValueError("labels or splits are given without texts")
    trained = cross_validation.complete(
        settings,
        None if folder is None else regular_files.named_path(folder),
        given=given,
        listener=ProgressBar() if listener is None else listener,
    )
    return Predictor(trained)


def given_rows(
    config: Config,
    texts: Iterable[str],
    scores: Iterable[float | None] | None,
    categories: Iterable[int | str | None] | None,
) -> data.Rows:
    """Checks texts and labels as `train` does, by the keys that say what labels mean.

    Raises:
      ValueError: one of them is not usable.
    """
    if scores is None and categories is None and not config.label_with:
        raise ValueError("texts need scores, categories or both (or label_with='vader')")
    return data.from_columns(texts, scores, categories, name="texts", **_options(config))


def _options(config):
    return {
        "category_names": config.category_names or None,
        "num_classes": config.num_classes,
        "score_range": config.score_range or None,
        "labels": config.labels or None,
        "written": cells.Written(config.decimal_comma, config.percent),
    }


def load(
    folder: str | os.PathLike,
    batch_size: int | None = None,
    *,
    backbone: str | os.PathLike = "",
) -> Predictor:
    """Loads a model: the best epoch of a finished run, or what `save` wrote.

    Args:
      folder: of the run.
      batch_size: texts that go through the model at once; by default what it evaluated with.
      backbone: where the backbone is now, of a run with LoRA or frozen parameters that was moved
        away from it: a folder or hub id of the same weights.

    Raises:
      ValueError: there is no finished run, or it cannot be used; one line says why.
      TypeError: the folder is neither a text nor a path.
      OSError: a file cannot be read.
    """
    return Predictor.load(folder, batch_size, backbone)
