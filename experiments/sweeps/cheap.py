"""What the same rows and splits give without fine-tuning: a mean, a lexicon, two ridge regressions.

Beside these a reader sees what fine-tuning buys. Axes: N rows, D width.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from dwa_jax import metrics, stratify, trunk
from dwa_jax.data import vader
from dwa_jax.finetune import run_folder, saved
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import Corpus, read_corpus
from dwa_jax.finetune.setup import make_batches
from experiments.sweeps import runner
from experiments.sweeps.comparison import COMMON_THRESHOLDS
from experiments.sweeps.plan import Run, Sweep

MEAN, LEXICON = "mean of the training scores", "VADER"
TFIDF, FROZEN = "ridge on TF-IDF", "ridge on frozen vectors"
# Of ridge regression; one is chosen by leaving each training row out in turn.
_STRENGTHS = tuple(10.0**k for k in range(-2, 6))
# Beside a run's folder, as its log is.
_FILE = "cheap.json"


def measure_missing(
    sweep: Sweep,
    folder: Path,
    places: Mapping[str, str],
    weights: Mapping[str, str],
    say: Callable[[str], None] = print,
) -> None:
    """Measures what is not there yet: once a dataset, backbone and seed.

    Args:
      sweep: whose runs have ended. The baseline's tell rows, splits and weights.
      folder: of the cells.
      places: what {data} and the like stand for.
      weights: folders with the weights of some backbones.
      say: prints one line.
    """
    for dataset, backbone, seed in _cells(sweep):
        run = sweep.run(dataset, backbone, sweep.baseline, seed)
        place = folder / run.id
        if runner.state_of(place) != "finished" or _file(folder, run).exists():
            continue
        path = place / "config.json"
        config = run_folder.stored_config(path, run_folder.read_object(path)["config"])
        if "regression" not in config.tasks:
            continue
        # What an archive brought here tells of another machine's files.
        keys = run.placed(places, weights)
        here = ("train", "validation", "test", "backbone")
        try:
            config = Config.of(config, **{name: keys[name] for name in here if name in keys})
            found, missing = fit_and_score(config)
        except (OSError, ValueError) as error:
            say(f"{dataset}, {backbone}, seed {seed}: nothing without fine-tuning: {error}")
            continue
        for name, reason in missing.items():
            say(f"{dataset}, {backbone}, seed {seed}: no {name}: {reason}")
        run_folder.write_json(_file(folder, run), run_folder.plain(found))


def read(sweep: Sweep, folder: Path) -> list[dict]:
    """Returns what was measured: dataset, backbone, seed, name and metrics of each."""
    entries = []
    for dataset, backbone, seed in _cells(sweep):
        path = _file(folder, sweep.run(dataset, backbone, sweep.baseline, seed))
        if not path.exists():
            continue
        for name, found in json.loads(path.read_text("utf-8")).items():
            where = {"dataset": dataset, "backbone": backbone, "seed": seed, "name": name}
            entries.append(where | found)
    return entries


def _cells(sweep):
    return [(d, b, s) for s in sweep.seeds for d in sweep.datasets for b in sweep.backbones]


def _file(folder: Path, run: Run) -> Path:
    place = folder / run.id
    return place.parent / f"{place.name}.{_FILE}"


def fit_and_score(config: Config) -> tuple[dict[str, dict], dict[str, str]]:
    """Fits on a run's training rows, and compares with its test rows' scores.

    Scores are kept within [-1, 1]; categories are those of the common thresholds. The vectors are
    the trunk's own as it was loaded, pooled as the run pools, each number brought to deviation 1.

    Args:
      config: of the run.

    Returns:
      ({name: mse, mae, r2, balanced_mse, accuracy}, {name: why it is not there}); the test split
      is validation where the run has no other, as everywhere in a report.
    """
    # Thresholds play no part, and others are quicker to fit; nor do factors that are zero.
    config = Config.of(
        config,
        stratifier="equal_width",
        lora_rank=0,
        lora_adapter="",
        batch_size=config.eval_batch_size,
    )
    corpus = read_corpus(config)
    last = "test" if len(corpus.rows["test"]) else "validation"
    known = {
        split: np.flatnonzero(~np.isnan(corpus.rows[split].scores)) for split in ("train", last)
    }
    train, test = (corpus.rows[split].take(rows) for split, rows in known.items())
    predicted = {MEAN: np.full(len(test), train.scores.mean())}
    missing = {}
    try:
        unscored = dataclasses.replace(test, scores=np.full(len(test), np.nan))
        predicted[LEXICON] = vader.fill_scores(unscored)[0].scores
    except ValueError as error:
        missing[LEXICON] = str(error)
    try:
        import sklearn  # noqa: F401
    except ImportError:
        reason = "scikit-learn is not installed: pip install 'dwa_jax[baselines]'"
        missing |= {TFIDF: reason, FROZEN: reason}
    else:
        predicted[TFIDF] = _by_words(train, test)
        if config.backbone == "scratch":
            missing[FROZEN] = "a trunk from scratch knows nothing yet"
        else:
            vectors = _frozen_vectors(config, corpus, known)
            predicted[FROZEN] = _by_vectors(vectors["train"], train.scores, vectors[last])
    return {name: _compare(test.scores, values) for name, values in predicted.items()}, missing


def _by_words(train, test):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = make_pipeline(words, RidgeCV(_STRENGTHS)).fit(train.texts, train.scores)
    return model.predict(test.texts)


def _by_vectors(of_train, scores, of_test):
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeCV(_STRENGTHS)).fit(of_train, scores)
    return model.predict(of_test)


def _frozen_vectors(config: Config, corpus: Corpus, wanted: dict[str, np.ndarray]) -> dict:
    """Returns {split: (N, D)} of the wanted rows, as the run would pool them before any step."""
    model = saved.begin_model(config, corpus, jax.random.key(config.seed))
    batches, _ = make_batches(config, corpus, model)
    theta, frozen = trunk.split_parameters(model.params)
    pooled = jax.jit(trunk.make_trunk(model.module, pooling=model.pooling))
    found = {}
    for split, rows in wanted.items():
        vectors = np.zeros((len(corpus.rows[split]), model.module.config.hidden_size), np.float32)
        for batch in batches[split].sequential():
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            real = batch["row"] >= 0
            vectors[batch["row"][real]] = np.asarray(pooled(theta, frozen, inputs))[real]
        found[split] = vectors[rows]
    return found


def _compare(scores, predicted):
    cuts = np.array(COMMON_THRESHOLDS)
    predicted = np.clip(predicted, -1, 1)
    true, found = (np.asarray(stratify.categorize(one, cuts)) for one in (scores, predicted))
    every = metrics.evaluate(scores, predicted, true, found, len(cuts) + 1)
    return {name: every[name] for name in ("mse", "mae", "r2", "balanced_mse", "accuracy")}
