"""What a run is about to do, and what came of it, on a terminal of 80 columns."""

from pathlib import Path

import numpy as np

from dwa_jax.finetune import memory
from dwa_jax.finetune.categories import intervals
from experiments.terminal.console import Console

_METRICS = ("mse", "mae", "r2", "pearson", "spearman", "accuracy", "f1_macro", "balanced_mse")


def describe(
    console: Console, config, corpus, batches, model, setup, trained, total, needs, folder
) -> None:
    """Prints what is about to run.

    Args:
      console: where to print.
      config: the whole configuration.
      corpus: labelled rows.
      batches: of each split.
      model: the backbone with its tokenizer.
      setup: the `pipeline.Run`.
      trained: {what: number of parameters that train}.
      total: parameters in all.
      needs: from `memory.estimate`.
      folder: the run's.
    """
    settings = model.module.config
    train = batches["train"]
    what = f"LoRA rank {config.lora_rank}" if config.lora_rank else "all of the trunk"
    if config.lora_adapter:
        what = "a LoRA adapter"
    elif config.freeze and not config.lora_rank:
        what = "part of the trunk"
    count, devices = sum(trained.values()), setup.mesh.size
    rows = {
        "model": f"{settings.family}, {settings.num_layers} layers of {settings.hidden_size}, "
        f"{config.dtype}; {config.backbone}",
        "trained": f"{count:,} of {total:,} parameters ({count / total:.1%}): {what}, heads, "
        "weighting",
        "weighting": f"{config.weighting}, {config.preset}; Gramian over {config.gradient_scope}",
        "rows": ", ".join(f"{split} {len(part):,}" for split, part in corpus.rows.items()),
        "classes": "\n".join(classes(config, corpus)),
        "steps": f"{setup.total_steps:,}: {config.epochs} x {len(train):,} batches of "
        f"{config.batch_size} texts",
        "tokens": f"{', '.join(str(tokens) for _, tokens in train.shapes)} a text by length; "
        f"{train.padding_fraction(0):.0%} padding",
        "memory": f"about {memory.readable(sum(needs.values()))} of arrays in the largest step"
        + (", a device:\n" if devices > 1 else ":\n")
        + ", ".join(f"{name} {memory.readable(size)}" for name, size in needs.items()),
        "devices": f"{devices} x {setup.mesh.devices.flat[0].device_kind}",
        "folder": str(folder),
    }
    console.table("dwa_jax", rows)


def count(corpus, num_classes: int) -> dict[str, dict]:
    """Returns {split: {"count": rows, "by_class": (K,) those of each category}}."""
    return {
        split: {
            "count": len(categories),
            "by_class": np.bincount(categories[categories >= 0], minlength=num_classes).tolist(),
        }
        for split, categories in corpus.categories.items()
    }


def classes(config, corpus) -> list[str]:
    """Returns a line for each class: its name, its scores, its training rows and their share."""
    categories = corpus.categories["train"]
    counts = np.bincount(categories[categories >= 0], minlength=config.num_classes)
    numbers = [str(k) for k in range(config.num_classes)]
    given = list(config.category_names)
    names = [f"{k} {name}" for k, name in zip(numbers, given, strict=True)] if given else numbers
    ranges = intervals(corpus.thresholds) or [""] * len(names)
    # As numbers of columns, for they stand below each other.
    wide, far = max(map(len, names)), max(map(len, ranges))
    lines = [
        f"{name:<{wide}}  {scores:<{far}}  {count:>7,} rows  {count / max(counts.sum(), 1):>4.0%}"
        for name, scores, count in zip(names, ranges, counts, strict=True)
    ]
    if missing := int((categories < 0).sum()):
        lines.append(f"{missing:,} rows without one")
    return lines


def conclude(console: Console, summary: dict, folder: Path) -> None:
    """Prints what came of a run.

    Args:
      console: where to print.
      summary: as in summary.json.
      folder: the run's.
    """
    results = {"test": summary["test"], "validation": summary["validation"]}
    results |= summary["also_tested"]
    results = {split: result for split, result in results.items() if result is not None}
    found = {
        name: [result[name] for result in results.values()]
        for name in _METRICS
        if any(_is_there(result[name]) for result in results.values())
    }
    console.columns("results", list(results), found)
    timing, size = summary["timing"], summary["memory"]
    device = max((size[name] for name in size if name != "process_bytes"), default=None)
    rows = {
        "best epoch": f"{summary['best_epoch']} of {summary['epochs']}, by the "
        f"{summary['monitor']} of validation",
        "time": f"{timing['seconds']:.0f} s: {timing['setup_seconds']:.0f} to begin, "
        f"{timing['train_seconds']:.0f} in steps and their compilation",
        "peak memory": memory.readable(size["process_bytes"])
        + (f"; {memory.readable(device)} on a device" if device else ""),
        "numbers": folder / "summary.json",
        "predictions": folder / "predictions.csv",
        "pictures": folder / "plots",
    }
    if summary["skipped_steps"]:
        rows["updates left out"] = f"{summary['skipped_steps']}, see metrics.jsonl"
    console.table("the run", rows)


def _is_there(value):
    return value is not None and np.isfinite(value)
