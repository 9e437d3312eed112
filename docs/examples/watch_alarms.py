"""How often `watch` raises an alarm: about texts that have not changed, and about others.

    PYTHONPATH=. python docs/examples/watch_alarms.py FILE.csv OTHER.csv
    PYTHONPATH=. python docs/examples/watch_alarms.py --backbone=DIR FILE.csv OTHER.csv

Of each of two files a model is trained, as by interval_coverage.py. Then it watches samples of its
own training rows, labels included, drawn with replacement: texts that have not changed, about which
at most 5 of 100 alarms are to be expected. And it watches rows of the other file. Prints how many
of the samples raised an alarm, and by which tests.
"""

import argparse
import collections
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from interval_coverage import settings

import dwa_jax
from dwa_jax.data import Rows
from dwa_jax.finetune import corpus
from dwa_jax.finetune.drift.later_rows import with_categories
from dwa_jax.finetune.drift.watched import watch


def alarms(model, rows: Rows, samples: int, size: int, *, seed: int = 0) -> list[list[str]]:
    """Watches samples of rows, drawn with replacement; returns the alarms of each."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(samples):
        part = rows.take(draw.integers(0, len(rows), size))
        categories = with_categories(model.config, part, model.thresholds)
        found.append(watch(model, part, categories).alarms)
    return found


def describe(found: Sequence[Sequence[str]]) -> str:
    """Returns how many samples raised an alarm, and how often each test did."""
    tests = collections.Counter(name for one in found for name in one)
    by = ", ".join(f"{name} {count}" for name, count in tests.most_common())
    raised = sum(map(bool, found))
    return f"alarm in {raised} of {len(found)}" + (f" (by {by})" if by else "")


def main(files: Sequence[str], backbone: str = "", samples: int = 100, size: int = 200, **changes):
    """Prints what `watch` says of each file's own rows and of the other's."""
    models, rows = {}, {}
    for file in files:
        keys = settings(backbone) | {"train": file} | changes
        models[file] = dwa_jax.train(listener=dwa_jax.Listener(), **keys)
        rows[file] = corpus.read_corpus(models[file].config).rows["train"]
    for file, other in zip(files, reversed(files), strict=True):
        name = Path(file).stem
        own = alarms(models[file], rows[file], samples, size)
        print(f"{name}: {samples} samples of {size} of its training rows: {describe(own)}")
        others = alarms(models[file], rows[other], 1, size)
        print(f"{name}: {size} rows of {Path(other).stem}: {describe(others)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs=2)
    parser.add_argument("--backbone", default="", help="folder of pretrained weights")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--size", type=int, default=200, help="texts of a sample")
    args = parser.parse_args()
    main(args.files, args.backbone, args.samples, args.size)
