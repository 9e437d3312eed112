"""What a run is about to do, as names and words for its reader."""

from collections import Counter

import numpy as np

from dwa_jax.data import Batches
from dwa_jax.finetune import memory
from dwa_jax.finetune.categories import intervals
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import Corpus
from dwa_jax.finetune.model import Model
from dwa_jax.finetune.setup import Setup


def describe(
    config: Config,
    corpus: Corpus,
    train: Batches,
    model: Model,
    setup: Setup,
    trained: dict[str, int],
    total: int,
    needs: dict[str, int],
) -> dict[str, str]:
    """Says what is about to run.

    Args:
      config: the whole configuration.
      corpus: labelled rows.
      train: batches of the training split.
      model: the backbone with its tokenizer.
      setup: what the loop works with.
      trained: {what: number of parameters that train}.
      total: parameters in all.
      needs: from `memory.estimate`.

    Returns:
      {name of a fact: words}, in the order to be read.
    """
    settings = model.module.config
    what = f"LoRA rank {config.lora_rank}" if config.lora_rank else "all of the trunk"
    if config.lora_adapter:
        what = "a LoRA adapter"
    elif config.freeze and not config.lora_rank:
        what = "part of the trunk"
    words = model.vocabulary
    rows = f"\n{len(words.kept):,} of the word table's {len(words.rows):,} rows" if words else ""
    count, devices = sum(trained.values()), setup.mesh.size
    return {
        "model": f"{settings.family}, {settings.num_layers} layers of {settings.hidden_size}, "
        f"{config.dtype}; {config.backbone}",
        "trained": f"{count:,} of {total:,} parameters ({count / total:.1%}): {what}, heads, "
        f"weighting{rows}",
        "weighting": f"{config.weighting}, {config.preset}; Gramian over {config.gradient_scope}"
        + _ways(config, train, model, setup),
        "rows": ", ".join(f"{split} {len(part):,}" for split, part in corpus.rows.items()),
        "classes": "\n".join(classes(config, corpus)),
        "steps": f"{setup.total_steps:,}: {config.epochs} x {len(train):,} batches of "
        f"{config.batch_size} texts",
        "tokens": f"{', '.join(str(tokens) for _, tokens in train.shapes)} a text by length; "
        f"{train.padding_fraction(0):.0%} padding",
        "memory": f"about {memory.readable(sum(needs.values()))} of arrays in the largest step"
        + (", a device:\n" if devices > 1 else ":\n")
        + ", ".join(f"{name} {memory.readable(size)}" for name, size in needs.items())
        + "\nthe process about "
        + memory.readable(
            memory.process_bytes(needs, on_host=setup.mesh.devices.flat[0].platform == "cpu")
        ),
        "devices": f"{devices} x {setup.mesh.devices.flat[0].device_kind}" + _split_over(setup),
    }


def classes(config: Config, corpus: Corpus) -> list[str]:
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
    if smallest := int(counts.min()):
        # What the thresholds do to balance.
        lines.append(f"the largest is {counts.max() / smallest:.1f} times the smallest")
    if missing := int((categories < 0).sum()):
        lines.append(f"{missing:,} rows without one")
    return lines


def _split_over(setup):
    parts = setup.mesh.shape["fsdp"]
    return f", parameters split over {parts}" if parts > 1 else ""


def _ways(config, train, model, setup):
    # How the longest batch's gradients are compared, where they are in the whole trunk.
    if not setup.uses_gramian or config.gradient_scope != "trainable":
        return ""
    plan = memory.records_of(config, model, setup, *train.shapes[-1])
    if plan is None:
        return ", a whole gradient a task"
    counts: Counter[str] = Counter()
    for site, way in plan.items():
        counts[way] += len(site.layers or (None,))
    ways = ", ".join(f"{count} {_WAYS[way]}" for way, count in counts.items())
    return f", {config.gradient_norms}: matrices in the largest batch {ways}"


_WAYS = {
    "rows": "by rows of a table",
    "direct": "directly",
    "ghost": "by kernels of tokens",
    "sketch": "sketched",
}
