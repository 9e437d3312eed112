"""How often 90 % intervals hold the true scores of test rows, over files and seeds.

    PYTHONPATH=. python docs/examples/interval_coverage.py FILE.csv ...
    PYTHONPATH=. python docs/examples/interval_coverage.py --backbone=DIR --seeds=3 FILE.csv ...

Of each file and seed a small model from scratch is trained on rows of a split of its own, or with
LoRA one whose weights are there: the promise holds for any, and a good one has narrower intervals.
Prints the share of the test rows whose interval holds their score, the mean width, and the error of
calibration before and after the temperature; ten seeds from scratch of four files take about half
an hour of one core.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import dwa_jax
from dwa_jax.finetune.uncertainty import calibration, conformal

# Of every run.
ROWS = {"max_rows": 930, "fractions": (0.45, 0.25, 0.3), "temperature": True, "log_every": 50}
SCRATCH = {
    **{"epochs": 8, "batch_size": 32, "eval_batch_size": 64, "learning_rate": 2e-3},
    **{"max_length": 32, "max_buckets": 1, "pad_to_multiple_of": 32},
    "gradient_scope": "representation",
    "scratch": {
        **{"vocab_size": 1000, "width": 32, "layers": 1, "heads": 2},
        **{"feed_forward": 64, "max_positions": 64},
    },
}
PRETRAINED = {
    **{"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "lora_rank": 16, "pooling": "mean"},
    "gradient_scope": "representation",
}


def settings(backbone: str) -> dict:
    """Returns the keys of a run from scratch, or of one that begins with these weights."""
    return ROWS | (PRETRAINED | {"backbone": backbone} if backbone else SCRATCH)


def measure(
    file: str, seeds: Sequence[int], backbone: str = "", **changes
) -> Iterator[dict[str, float]]:
    """Trains once a seed; yields (held, width) of each kind of interval, and errors."""
    for seed in seeds:
        keys = settings(backbone) | {"train": file, "seed": seed} | changes
        model = dwa_jax.train(listener=dwa_jax.Listener(), **keys)
        test, found = model.summary["test"], model.run.predictions
        before = calibration.tempered(found.probabilities, 1 / model.summary["temperature"])
        line = {
            "calibration error": calibration.calibration_error(before, found.categories),
            "after the temperature": test["expected_calibration_error"],
        }
        lengths = model.tokens(found.texts).lengths
        for how in conformal.HOW:
            fitted = conformal.fit_intervals(
                model.run.reference, len(model.thresholds) + 1, 0.9, how
            )
            around = fitted.around(found.predicted_scores, found.predicted_categories, lengths)
            graded = conformal.grade_intervals(around, found.scores)
            line[f"{how} held"] = graded["interval_coverage"]
            line[f"{how} width"] = graded["interval_width"]
        yield line


def main(
    files: Sequence[str], seeds: Sequence[int] = range(10), backbone: str = "", **changes
) -> None:
    """Prints what the runs of each file came to."""
    held = []
    for file in files:
        lines = list(measure(file, seeds, backbone, **changes))
        means = {name: float(np.mean([line[name] for line in lines])) for name in lines[0]}
        held += [line["marginal held"] for line in lines]
        print(Path(file).stem, ", ".join(f"{name} {mean:.3f}" for name, mean in means.items()))
    print(f"marginal, over {len(held)} runs: {np.mean(held):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--backbone", default="", help="folder of pretrained weights")
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    main(args.files, range(args.seeds), args.backbone)
