"""One run, from a configuration and rows to a trained model: read, train, evaluate, write."""

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dwa_jax import data, heads, host_memory, lora, paths, processes, regular_files, sharding
from dwa_jax.checkpoints import Checkpoints, MemoryCheckpoints, remove_all
from dwa_jax.finetune import (
    bad_rows,
    cautions,
    facts,
    loop,
    memory,
    own_files,
    plots,
    predictions_file,
    run_folder,
    saved,
    writers,
)
from dwa_jax.finetune.config import Config, later
from dwa_jax.finetune.corpus import Corpus, counts, read_corpus
from dwa_jax.finetune.interrupts import Stop, ignore
from dwa_jax.finetune.listener import Listener
from dwa_jax.finetune.model import Model
from dwa_jax.finetune.predictions_file import SplitPredictions
from dwa_jax.finetune.setup import Setup, make_batches, make_setup, make_tasks, make_weighting
from dwa_jax.finetune.uncertainty import calibration, conformal
from dwa_jax.finetune.uncertainty import reference as references


def finish(
    config: Config,
    folder: Path | None,
    *,
    given: Mapping[str, data.Rows] | None = None,
    corpus: Corpus | None = None,
    listener: Listener | None = None,
    listen: Callable[[], contextlib.AbstractContextManager[Stop]] = ignore,
    started: float | None = None,
) -> saved.Trained:
    """Trains to the end, evaluates, and writes the run's folder if it has one.

    Args:
      config: the whole configuration.
      folder: the run's; continued if it holds an unfinished run of the same configuration but
        for what may change (`run_folder.open_folder`), or a finished one that this extends; read
        if it holds any other finished one. None writes nothing.
      given: rows that are in memory, see `corpus.read_corpus`.
      corpus: what that would return, where it is known already.
      listener: told how it goes; nobody by default.
      listen: yields what is asked whether to stop, such as `interrupts.listen`.
      started: `time.perf_counter()` where the time of the run begins; now by default.

    Returns:
      The trained model, of the best epoch.

    Raises:
      ValueError: something of the user's is not usable; one line says what.
      OSError: something cannot be read or written.
      interrupts.Interrupted: a signal came; the folder can be continued.
      health.Diverged: too many updates in a row were left out.
    """
    started = time.perf_counter() if started is None else started
    if listener is None or not processes.is_first():
        listener = Listener()
    config = run_folder.located(config)
    processes.agree("another configuration", config.to_dict())
    if folder is not None and processes.first(lambda: is_over(config, folder)):

        def rows():
            return fingerprint(read_corpus(config, given) if corpus is None else corpus)

        handed_over = corpus is not None or given is not None
        return read_finished(config, folder, rows, listener, handed_over=handed_over)
    with contextlib.ExitStack() as held:
        return _finish(config, folder, given, corpus, listener, listen, started, held)


def is_over(config: Config, folder: Path) -> bool:
    """Says whether a folder holds a finished run, of which this configuration trains no more.

    Raises:
      ValueError: summary.json is damaged.
      OSError: it cannot be read.
    """
    path = folder / "summary.json"
    if not regular_files.check_regular(path):
        return False
    summary = run_folder.read_object(path)
    done, best = summary.get("epochs"), summary.get("best_epoch")
    # What else they may be is said where the run is read.
    if not isinstance(done, int) or not isinstance(best, int):
        return True
    return loop.is_trained(config, done, best)


def read_finished(
    config: Config,
    folder: Path,
    rows: Callable[[], str],
    listener: Listener,
    *,
    handed_over: bool,
) -> saved.Trained:
    """Reads a finished run, if it is this configuration's.

    Args:
      config: the whole configuration.
      folder: the run's.
      rows: makes the fingerprint of the rows; files that are named as they were are not read
        again for that.
      listener: told what of the configuration has no effect.
      handed_over: whether the rows are in memory, and so may be any.

    Raises:
      ValueError: it is another run, or cannot be used; one line says why.
      OSError: something cannot be read.
    """
    found = run_folder.differences(folder, config)
    kinds = {key: later(key) for key in found.changes}
    read = rows() if handed_over or "same rows" in kinds.values() else None
    weights = None
    if "same weights" in kinds.values():
        weights = saved.begin_model(config, None, jax.random.key(0)).digests
    run_folder.differences(folder, config, read, weights)
    listener.note(
        f"{folder} holds this run, finished; its numbers are in {folder / 'summary.json'}"
    )
    idle = [words for key, words in found.changes.items() if kinds[key] in ("any", "extending")]
    if idle:
        listener.note(f"note: of a finished run nothing changes by {'; '.join(idle)}")
    kept = found.file["config"].get("keep_checkpoints", False)
    if not kept and regular_files.check_regular(folder / saved.WEIGHTS):
        # Where it was killed at its very end they are there yet.
        remove_all(folder / "checkpoints")
    return saved.load(folder, config.backbone)


def _finish(config, folder, given, corpus, listener, listen, started, held):
    chosen = check_choices(config)
    if folder is None and chosen:
        raise ValueError(f"writers={config.writers!r} need a folder to write in: folder=...")
    begun = folder is not None and processes.first(lambda: _begun(config, folder, held))
    if corpus is None:
        corpus = read_corpus(config, given)
    rows = fingerprint(corpus)  # before some that have no token are left out
    processes.agree("other rows", rows)
    known = processes.first(lambda: run_folder.lengths(folder, config))
    lengths = [run_folder.Length(*one) for one in known]
    model, batches, setup, notes = prepare(config, corpus, lengths)
    processes.agree("another backbone", model.digests)
    if folder is not None:

        def open_folder():
            if not begun:
                # Only now: a mistake above leaves no folder.
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(run_folder.lock(folder))
            elif run_folder.is_unbegun(folder):
                # Another tokenizer may have other files.
                own_files.remove_own(folder, "tokenizer")
            return run_folder.open_folder(folder, config, rows, model.digests)

        notes += processes.first(open_folder)
    notes = [*corpus.notes, *notes]
    for note in notes:
        listener.note(f"note: {note}")
    trained = {
        "trunk": lora.count(setup.state.theta),
        "heads": lora.count(setup.state.psi),
        "weighting and losses": lora.count(setup.state.phi),
    }
    total = lora.count(setup.state.frozen) + sum(trained.values())
    if model.vocabulary is not None:
        total += model.vocabulary.left_out
    needs = memory.estimate(config, model, setup, batches["train"].shapes)
    told = facts.describe(config, corpus, batches["train"], model, setup, trained, total, needs)
    listener.begin(told | ({"folder": str(folder)} if folder is not None else {}))
    checkpoints: Checkpoints | MemoryCheckpoints = MemoryCheckpoints()
    if folder is not None:

        def write_beginnings():
            with own_files.placing(folder, adopt=True) as place:
                saved.write_tokens_and_shape(
                    place, model.tokenizer, model.whole_module, model.pooling
                )

        processes.first(write_beginnings)
        checkpoints = Checkpoints(folder / "checkpoints")
    # One process writes; what the others note goes with them.
    writes = processes.is_first()
    log = writers.Log(
        folder if writes else None, config.to_dict(), chosen if writes else {}, listener.note
    )
    held.callback(log.close)
    host_memory.keep()
    before = time.perf_counter()
    try:
        state, progress = loop.train_loop(
            config, setup, corpus, batches, checkpoints, log, listener, listen
        )
    finally:
        checkpoints.close()

    temperature = None
    if config.temperature:
        state, temperature = _tempered(config, setup, state, batches, corpus)
    reference = references.gather(config, setup, state, batches, corpus, model.tokenizer)
    intervals = conformal.fit_intervals(
        reference, config.num_classes, config.coverage, config.intervals
    )

    misleading: list[str] = []

    def evaluate(split):
        found, outputs = loop.evaluate_split(config, setup, state, batches, corpus, split)
        # On the validation rows, which they come from, they hold as often as they are made to.
        if intervals is not None and split != "validation":
            lengths, scores = batches[split].lengths, corpus.rows[split].scores
            around = intervals.around(outputs["score"], outputs["category"], lengths)
            found |= conformal.grade_intervals(around, scores)
        misleading.extend(
            cautions.of_predictions(
                split,
                corpus.rows[split].scores,
                corpus.categories[split],
                np.asarray(outputs["score"], float),
                np.asarray(outputs["category"]),
                config.category_names,
            )
        )
        return found, outputs

    results: dict[str, Any] = {}
    for split in ("validation", "test"):
        if split in batches:
            results[split], outputs = evaluate(split)
            last = split
    also_tested = {
        name: evaluate(name)[0] for name in batches if name not in ("train", "validation", "test")
    }
    for note in misleading:
        listener.note(f"note: {note}")
    notes += misleading
    records = log.read()
    if not progress.best_epoch:
        notes.append(loop.undefined(config.monitor))
    summary = {
        "rows": counts(corpus, config.num_classes),
        "score_histogram": plots.histogram(corpus.rows["train"].scores),
        "validation": results["validation"],
        "test": results.get("test"),
        "also_tested": also_tested,
        "predictions": last,
        "thresholds": corpus.thresholds,
        "thresholds_from": corpus.thresholds_from,
        "best_epoch": progress.best_epoch or progress.evaluated,
        "epochs": progress.evaluated,
        "skipped_steps": sum(record["kind"] == "skipped" for record in records),
        "monitor": config.monitor,
        "temperature": temperature,
        "parameters": {"trained": trained, "total": total},
        "timing": {
            "train_seconds": progress.seconds,
            "seconds": time.perf_counter() - started,
            "setup_seconds": before - started,
        },
        "memory": memory.peak(),
        "left_out": bad_rows.summarize(corpus.left_out),
        "machine_scored": corpus.machine_scored,
        "notes": notes,
    }
    summary = run_folder.plain(summary)
    if model.vocabulary is not None:
        state = state._replace(theta=model.vocabulary.restored(state.theta))
    found = _predicted(corpus, last, outputs)
    if folder is not None:
        weights = state.theta, state.psi
        if processes.how_many() > 1:
            weights = sharding.to_host(weights)

        def write_results():
            with own_files.placing(folder, adopt=True) as place:
                predictions_file.write_predictions(place / "predictions.csv", found)
                saved.write_weights(place, *weights)
                references.write(place, reference)
                plots.save(plots.draw(summary, records, found), place / "plots")
            # Last: that it is there says that the run has ended.
            with own_files.placing(folder, adopt=True) as place:
                run_folder.write_json(place / "summary.json", summary)
            if not config.keep_checkpoints:
                remove_all(folder / "checkpoints")

        processes.first(write_results)
    log.conclude(summary, int(state.step))
    return saved.Trained(
        config=config,
        module=model.whole_module,
        tokenizer=model.tokenizer,
        pooling=model.pooling,
        lora_scale=model.lora_scale,
        theta=state.theta,
        frozen=state.frozen,
        psi=state.psi,
        tasks=setup.tasks,
        thresholds=summary["thresholds"],
        summary=summary,
        metrics=records,
        predictions=found,
        folder=folder,
        digests=model.digests,
        reference=reference,
    )


def _tempered(config, setup, state, batches, corpus):
    # The state whose classifier is calibrated on the validation rows, and the temperature.
    _, found = loop.evaluate_split(config, setup, state, batches, corpus, "validation")
    temperature = calibration.fit_temperature(found["probabilities"], found["categories"])
    if temperature is None:
        return state, None
    head = heads.with_outputs_scaled(state.psi["classification"], 1 / temperature)
    return state._replace(psi={**state.psi, "classification": head}), temperature


_WRITTEN = (
    "tokenizer",
    "backbone.json",
    "predictions.csv",
    saved.WEIGHTS,
    references.FILE,
    "plots",
    "summary.json",
)


def check_choices(config: Config) -> dict[str, Any]:
    """Checks what is chosen by name, before there are rows.

    Returns:
      The writers.

    Raises:
      ValueError: a choice does not exist, or its options cannot be.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are heard in `prepare`
        make_weighting(config, len(make_tasks(config)))
    return dict(writers.choose_writers(config.writers))


def prepare(
    config: Config, corpus: Corpus, lengths: Sequence[run_folder.Length] = ()
) -> tuple[Model, dict[str, data.Batches], Setup, list[str]]:
    """Makes all that a run works with, and writes nothing.

    Args:
      config: the whole configuration.
      corpus: labelled rows.
      lengths: from `run_folder.lengths`, where the run was extended.

    Returns:
      (model, batches, setup, notes for the reader).

    Raises:
      ValueError: something of the user's is not usable; one line says what.
      OSError: something cannot be read.
    """
    loop.check_monitor(config, corpus)
    model_key, state_key = jax.random.split(jax.random.key(config.seed))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        model = saved.begin_model(config, corpus, model_key)
        batches, notes = make_batches(config, corpus, model)
        setup = make_setup(config, corpus, model, len(batches["train"]), state_key, lengths)
    notes += [str(item.message) for item in caught if item.category is UserWarning]
    trunk = paths.flatten(setup.state.frozen) | paths.flatten(setup.state.theta)
    norm = "params/final_norm/scale"
    if norm in trunk and all("score" in head for head in setup.state.psi.values()):
        notes += cautions.fast_heads(sharding.to_host(trunk[norm]), config.head_learning_rate)
    check_step(setup, batches["train"])
    return model, batches, setup, notes


def _begun(config, folder, held):
    run_folder.open_folder(folder, config)
    if not (folder / "config.json").exists():
        return False
    check_extensible(folder)
    held.enter_context(run_folder.lock(folder))
    # Before hours of training: what the run will write must find its place.
    own_files.check_own(folder, _WRITTEN, adopt=True)
    return True


def check_extensible(folder: Path) -> None:
    """Checks that a run can be trained further.

    Raises:
      ValueError: it is finished, and its checkpoints are gone.
    """
    finished = regular_files.check_regular(folder / "summary.json")
    if finished and not regular_files.kind_of(folder / "checkpoints" / "saved.json"):
        raise ValueError(
            f"{folder} holds this run, finished, without the checkpoints that more epochs take: "
            "keep_checkpoints=True would have kept them; a new run can begin from what it learned, "
            f"in another folder: --config.backbone={folder}"
        )


def _predicted(corpus: Corpus, split: str, outputs: dict) -> SplitPredictions:
    rows = corpus.rows[split]
    return SplitPredictions(
        list(rows.texts),
        rows.scores,
        np.asarray(outputs["score"], float),
        np.asarray(outputs["categories"]),
        np.asarray(outputs["category"]),
        outputs["probabilities"],
    )


def fingerprint(corpus: Corpus) -> str:
    """Returns a digest of every split's texts and labels, in their order, whatever their files."""
    parts: list[str | np.ndarray] = []
    for split, rows in corpus.rows.items():
        known = split in ("train", "validation", "test")
        parts += [
            split if known else "also_test",
            *rows.texts,
            rows.scores,
            corpus.categories[split],
        ]
    return run_folder.digest(parts)


def check_step(setup: Setup, batches: data.Batches) -> None:
    """Traces the step without running it, so that options that do not fit fail now.

    Raises:
      ValueError: one line, where the step cannot be built.
    """
    batch = next(batches.epoch(0))
    del batch["row"]
    # Placed as the loop places it, which need not trace it again.
    placed = sharding.shard_rows(batch, setup.mesh, setup.options.microbatches)
    try:
        setup.step.trace(setup.state, placed)
    except TypeError as error:
        raise ValueError(f"the train step cannot be built: {error}") from error
