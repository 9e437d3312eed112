"""The rows of a run: read or generated, split, cut into categories."""

import glob
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dwa_jax import data, stratify
from dwa_jax.data import tables, vader
from dwa_jax.finetune import bad_rows, cautions, choices, inherited, row_cache
from dwa_jax.finetune.config import Config

_OTHER_FILES = ("validation", "test", "also_test")
# Keys of what is read, but those for labels: these have a meaning in memory, too.
_OF_FILES = (
    *("text_column", "score_column", "category_column", "on_bad_row"),
    *("delimiter", "encoding", "columns", "time_format"),
)
# Where rows came from that a program handed over instead of a file's name.
IN_MEMORY = "memory:"


@dataclass
class Corpus:
    """Rows of each split with categories, the thresholds, and what there is to tell of them.

    Attributes:
      rows: split -> rows: "train", "validation", "test", and each file of `also_test`.
      categories: split -> (N,) integers, -1 where missing.
      thresholds: (K-1,), or None where no row has a score.
      notes: sentences for the reader: rows left out, duplicates dropped.
      left_out: the bad rows of all files, where `on_bad_row` is "skip".
      machine_scored: split -> how many of its scores `label_with` gave; without those that
        people gave all of.
      thresholds_from: the backbone whose thresholds these are; "" where they were fitted.
    """

    rows: dict[str, data.Rows]
    categories: dict[str, np.ndarray]
    thresholds: np.ndarray | None
    notes: list[str] = field(default_factory=list)
    left_out: list[data.LeftOut] = field(default_factory=list)
    machine_scored: dict[str, int] = field(default_factory=dict)
    thresholds_from: str = ""


def expand_names(text: str, key: str) -> list[str]:
    """Returns the files that a text names.

    Args:
      text: files, folders, patterns and data sets of the hub, with commas between; where a name
        holds a comma, alone or as a list in JSON.
      key: whose value it is.

    Raises:
      ValueError: a pattern matches nothing, a folder holds no table, or there is no such user.
    """
    found = []
    for name in _names(text, key):
        # The brackets of hub:NAME:train[:100] are a slice.
        if name.startswith("hub:"):
            found.append(name)
            continue
        path = os.path.expanduser(name)
        if os.path.isdir(path):
            matches = [str(file) for file in sorted(Path(path).iterdir()) if _is_table(file)]
            if not matches:
                raise ValueError(f"{key}={name!r} is a folder without a table in it")
        elif not os.path.lexists(path) and any(c in name for c in "*?["):
            matches = sorted(file for file in glob.glob(path) if not os.path.isdir(file))
            if not matches:
                raise ValueError(f"{key}={name!r} matches no file")
        else:
            matches = [path]
        found += matches
    return found


def _names(text, key):
    text = text.strip()
    if text.startswith("[") and text.endswith("]") and text[1:2] in '"]':
        try:
            names = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{key}={text!r:.200} is no list in JSON: {error}") from None
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"{key}={text!r:.200} must list names of files")
    elif "\0" not in text and os.path.lexists(os.path.expanduser(text)):
        names = [text]
    else:
        names = [part.strip() for part in text.split(",")]
    return [name for name in names if name]


def _is_table(path):
    try:
        return path.is_file() and not path.name.startswith(".") and bool(tables.ending_of(path))
    except data.DataError:
        return False


@dataclass(frozen=True)
class Uncut:
    """Rows as they were read, before they are split.

    Attributes:
      everything: what is split, or trained on where others are given.
      held_out: split -> rows that are given.
      also_test: file -> rows.
      notes: sentences for the reader.
      left_out: the bad rows.
      machine_scored: (file, row) of those that `label_with` scored.
    """

    everything: data.Rows
    held_out: dict[str, data.Rows]
    also_test: dict[str, data.Rows]
    notes: list[str]
    left_out: list[data.LeftOut]
    machine_scored: set[tuple[str, int]]


def read_corpus(config: Config, given: Mapping[str, data.Rows] | None = None) -> Corpus:
    """Reads or generates the rows, splits them, and fits thresholds on the training rows.

    Args:
      config: the whole configuration; where it has folds, of one of them.
      given: {"train", and it may be "validation" and "test": rows} that are in memory already;
        None reads the files that the configuration names.

    Raises:
      ValueError: a file, a row or a split is not usable.
    """
    return divide(config, read_rows(config, given))


def read_files(
    config: Config, files: str | Path | Sequence[str | Path], **more: Any
) -> tuple[data.Rows, list[data.LeftOut]]:
    """Reads tables as a configuration says that columns are called, written and meant.

    Args:
      config: the whole configuration.
      files: names of tables.
      **more: what else `data.read` takes, or takes instead.

    Raises:
      ValueError: a file or a row is not usable.
    """
    return data.read(files, **{**_how(config), **more})


def _how(config):
    return {
        "text_column": config.text_column,
        "score_column": config.score_column or None,
        "category_column": config.category_column or None,
        "category_names": config.category_names or None,
        "num_classes": config.num_classes,
        "score_range": config.score_range or None,
        "labels": config.labels or None,
        "decimal_comma": config.decimal_comma,
        "percent": config.percent,
        "time_format": config.time_format,
        "layout": tables.Layout(config.delimiter, config.encoding, config.columns),
    }


def read_rows(config: Config, given: Mapping[str, data.Rows] | None = None) -> Uncut:
    """Reads or generates the rows; see `read_corpus`."""
    notes: list[str] = []
    bad: list[data.LeftOut] = []
    machine_scored: set[tuple[str, int]] = set()

    def read(key, files=None):
        rows, skipped = row_cache.read_once(
            data.read,
            files or expand_names(getattr(config, key), key),
            {
                **_how(config),
                "on_bad_row": config.on_bad_row,
                "unscored": config.label_with == "vader",
                "split_column": config.split_column or None if key == "train" else None,
                "group_column": config.group_column or None,
                "time_column": config.time_column or None if key == "train" else None,
            },
            normalizer(config),
            notes.append,
        )
        if skipped:
            notes.append(bad_rows.note(key, skipped))
            bad.extend(skipped)
        if config.label_with == "vader":
            rows, filled = vader.fill_scores(rows)
            machine_scored.update(rows.origin[i] for i in np.flatnonzero(filled).tolist())
        return rows

    if given is not None:
        _check_in_memory(config)
        everything = given["train"]
    elif config.train == IN_MEMORY:
        raise ValueError(
            f"train={IN_MEMORY!r}: the texts were handed over in Python, and are in no file; call "
            "dwa_jax.train with them again"
        )
    elif config.train:
        everything = read("train")
    else:
        everything = data.headlines.generate(config.generated_rows, config.seed)
    if 0 < config.max_rows < len(everything):
        drawn = np.random.default_rng(config.seed).permutation(len(everything))
        everything = everything.take(np.sort(drawn[: config.max_rows]))
    held_out = {
        split: given[split] if given and split in given else read(split)
        for split in ("validation", "test")
        if getattr(config, split)
    }
    also_test = {
        name: read("also_test", [name]) for name in expand_names(config.also_test, "also_test")
    }
    return Uncut(everything, held_out, also_test, notes, bad, machine_scored)


def divide(config: Config, uncut: Uncut) -> Corpus:
    """Splits rows, and fits thresholds on those that train.

    Args:
      config: the whole configuration; where it has folds, of one of them.
      uncut: from `read_rows`.

    Raises:
      ValueError: a split is not usable.
    """
    notes, bad, machine_scored = [*uncut.notes], [*uncut.left_out], uncut.machine_scored
    normalize = normalizer(config)
    if config.folds:
        rows = _fold(config, uncut.everything, normalize)
    else:
        rows = _split(config, uncut.everything, uncut.held_out, normalize, notes)
    _check_rows(rows)
    for name, part in uncut.also_test.items():
        rows[name], dropped = data.check_disjoint(
            part, rows["train"], rows["validation"], normalize=normalize
        )
        if dropped:
            notes.append(f"{name}: {dropped} rows left out, whose text the run trains on")

    by_machine = {}
    if config.label_with == "vader":
        for split, part in rows.items():
            count = sum(where in machine_scored for where in part.origin)
            if count:
                by_machine[split] = count
                notes.append(_machine_scored(split, count, len(part)))
        if not by_machine:
            notes.append("label_with='vader' gave no score: every row has one")

    thresholds, categories, origin = _labelled(config, rows, notes)
    if "classification" in config.tasks:
        notes += cautions.untrained_classes(categories, config.num_classes, config.category_names)
    if config.protocol == "paper":
        notes.append(
            f"protocol=paper: {config.epochs} epochs and no test split; the numbers are of the "
            "validation split, on which the best epoch is chosen, and so better than of new texts"
        )
    return Corpus(rows, categories, thresholds, notes, bad, by_machine, origin)


def leave_out(config: Config, corpus: Corpus, wordless: Mapping[str, np.ndarray]) -> None:
    """Leaves out rows whose texts have no token, and fits thresholds to the others.

    Args:
      config: the whole configuration.
      corpus: what is changed.
      wordless: split -> (N,) booleans, True where a row is left out.

    Raises:
      ValueError: what is left is not usable.
    """
    for split, mask in wordless.items():
        rows = corpus.rows[split]
        left = [
            data.LeftOut(*rows.origin[i], data.no_token(rows.texts[i]))
            for i in np.flatnonzero(mask).tolist()
        ]
        if left:
            corpus.rows[split] = rows.take(np.flatnonzero(~mask))
            corpus.left_out += left
            corpus.notes.append(bad_rows.note(split, left))
    _check_rows(corpus.rows)
    corpus.thresholds, corpus.categories, _ = _labelled(config, corpus.rows, [])


def _check_rows(rows):
    for split in ("train", "validation"):
        if not len(rows[split]):
            raise ValueError(f"the {split} split has no row")


def _labelled(config, rows, notes):
    # Thresholds, categories of each split, and whose thresholds they are if not fitted.
    scores = rows["train"].scores
    scores = scores[~np.isnan(scores)]
    thresholds = _inherited(config, notes) if len(scores) else None
    origin = "" if thresholds is None else config.backbone
    if len(scores) and thresholds is None:
        name, options = choices.parse(config.stratifier, "stratifier")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                thresholds = np.asarray(stratify.fit(name, scores, config.num_classes, **options))
        except TypeError as error:
            raise ValueError(f"stratifier={config.stratifier!r}: {error}") from None
        notes += [str(item.message) for item in caught if item.category is UserWarning]
    elif not len(scores) and "regression" in config.tasks:
        raise ValueError("no training row has a score; set tasks=('classification',)")
    categories = {split: _categories(part, thresholds, config) for split, part in rows.items()}
    for split, values in categories.items():
        if values.size and values.max() >= config.num_classes:
            row = int(values.argmax())
            raise ValueError(
                f"{split}: category {values[row]} of {rows[split].origin[row]} is not below "
                f"num_classes={config.num_classes}"
            )
    if "classification" in config.tasks and not (categories["train"] >= 0).any():
        raise ValueError("no training row has a category; set tasks=('regression',)")
    return thresholds, categories, origin


def _check_in_memory(config):
    # Keys that say how files are read, and so nothing of rows that are handed over.
    for key in ("split_column", "group_column", "time_column"):
        if getattr(config, key):
            raise ValueError(
                f"{key}={getattr(config, key)!r} names a column of files; these rows are none"
            )
    # Other splits may be in files.
    if any(getattr(config, key) not in ("", IN_MEMORY) for key in _OTHER_FILES):
        return
    for key in _OF_FILES:
        if getattr(config, key) != getattr(Config(), key):
            raise ValueError(f"{key} is a key for files, and texts are given")


def _inherited(config, notes):
    # The thresholds of a trained model that is the backbone: what its heads learned to tell.
    found = inherited.inherited_thresholds(config.backbone)
    if found is None:
        return None
    if len(found) != config.num_classes - 1:
        notes.append(
            f"the {len(found)} thresholds of backbone={config.backbone} are not taken: "
            f"num_classes={config.num_classes} has {config.num_classes - 1}"
        )
        return None
    told = f"the thresholds of backbone={config.backbone}, {', '.join(f'{x:+.3f}' for x in found)},"
    if config.stratifier != Config().stratifier:
        notes.append(f"{told} are not taken: stratifier={config.stratifier!r} fits others")
        return None
    try:
        thresholds = stratify.STRATIFIERS["manual"]([], config.num_classes, thresholds=found)
    except ValueError as error:
        notes.append(f"{told} are not taken: {error}")
        return None
    notes.append(f"{told} are taken; a stratifier of your own fits others")
    return thresholds


def normalizer(config: Config) -> Callable[[str], str] | None:
    """Returns what texts go through before the tokenizer; None where they stay."""
    return data.normalize_tweet if config.normalize_tweets else None


def folds_of(config: Config, rows: data.Rows) -> np.ndarray:
    """Returns the fold, from 1, that holds out each of the (N,) rows."""
    found = data.fold_of(
        rows,
        folds=config.folds,
        seed=config.seed,
        stratify=config.stratify,
        normalize=normalizer(config),
    )
    return found + 1


def _fold(config, everything, normalize):
    if not config.fold:
        raise ValueError(f"the rows of folds={config.folds} are one fold's: fold says whose")
    held_out = folds_of(config, everything) == config.fold
    others = _train_and_validation(config, everything.take(np.flatnonzero(~held_out)), normalize)
    return others | {"test": everything.take(np.flatnonzero(held_out))}


def _train_and_validation(config, rows, normalize):
    train, validation, _ = config.fractions
    total = train + validation
    return data.split(
        rows,
        fractions=(train / total, validation / total, 0.0),
        seed=config.seed,
        stratify=config.stratify,
        normalize=normalize,
    )


def _split(config, everything, held_out, normalize, notes):
    by = "file"
    if everything.splits is not None:
        everything, held_out = _by_column(config, everything, held_out)
        by = "split"
    if not held_out:
        if everything.times is not None:
            notes.append(f"split by {config.time_column!r}: what is trained on came first")
        return data.split(
            everything,
            fractions=config.fractions,
            seed=config.seed,
            stratify=config.stratify,
            normalize=normalize,
        )
    nothing = everything.take([])
    everything, dropped = data.check_disjoint(
        everything,
        held_out.get("validation", nothing),
        held_out.get("test", nothing),
        normalize=normalize,
    )
    if dropped:
        what = "text or group" if config.group_column else "text"
        notes.append(f"train: {dropped} rows left out, whose {what} a held-out {by} has too")
    if len(held_out) == 2:
        shared = data.count_shared(held_out["validation"], held_out["test"], normalize=normalize)
        if shared:
            notes.append(f"validation: {shared} rows have a text of the test {by}, and stay")
    rows = {"train": everything, "test": nothing, **held_out}
    if "validation" not in held_out:
        halves = _train_and_validation(config, everything, normalize)
        rows |= {"train": halves["train"], "validation": halves["validation"]}
    return rows


def _by_column(config, everything, held_out):
    if held_out:
        raise ValueError(
            f"split_column={config.split_column!r} and {' and '.join(held_out)} both say what is "
            "held out; give one of the two"
        )
    names = np.array(everything.splits)
    parts = {name: everything.take(np.flatnonzero(names == name)) for name in np.unique(names)}
    if "train" not in parts or len(parts) == 1:
        raise ValueError(
            f"split_column={config.split_column!r} says {' and '.join(parts)} alone; train and "
            "validation or test are needed"
        )
    return parts.pop("train"), parts


def counts(corpus: Corpus, num_classes: int) -> dict[str, dict]:
    """Returns {split: {"count": rows, "by_class": (K,) those of each category}}."""
    return {
        split: {
            "count": len(categories),
            "by_class": np.bincount(categories[categories >= 0], minlength=num_classes).tolist(),
        }
        for split, categories in corpus.categories.items()
    }


def _machine_scored(split, count, total):
    note = f"{split}: {count} of {total} scores are VADER's (vaderSentiment {vader.version()})"
    if split == "train":
        return note
    return f"{note}: its metrics tell agreement with VADER there, not with people"


def _categories(rows, thresholds, config):
    given = rows.categories.astype(np.int32)
    if thresholds is None or not config.derive_categories:
        return given
    scored = ~np.isnan(rows.scores)
    derived = np.asarray(stratify.categorize(np.where(scored, rows.scores, 0.0), thresholds))
    return np.where((given < 0) & scored, derived, given).astype(np.int32)
