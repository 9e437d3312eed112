"""Methods, datasets and backbones that several sweeps share."""

from typing import Any

# The papers' baseline: w_c = 0.25, w_r = 0.75; weights are (regression, classification).
CONSTANT = {"constant .25/.75": {"weighting": "constant(weights=(0.75, 0.25))"}}
EQUAL = {"constant .5/.5": {"weighting": "constant(weights=(0.5, 0.5))"}}
# Constant weights are the plainest rival, so they weigh a plain loss.
for _keys in (*CONSTANT.values(), *EQUAL.values()):
    _keys["classification_loss"] = "cross_entropy"
SINGLE_TASK = {"single_task": {"tasks": ("regression",), "weighting": "single_task"}}
ADAPTIVE = {
    "adaptive_lambda": {"weighting": "adaptive_lambda"},
    "adaptive_w": {"weighting": "adaptive_w"},
}
DWA = {"dwa (paper)": {"weighting": "dwa"}}
STABLE = {"dwa (stable)": {"weighting": "dwa", "preset": "stable"}}
RIVALS = {
    "gradnorm": {"weighting": "gradnorm", "classification_loss": "cross_entropy"},
    "uncertainty": {"weighting": "uncertainty", "classification_loss": "cross_entropy"},
    "upgrad": {"weighting": "upgrad", "classification_loss": "cross_entropy"},
}
# "das" is the default, and so dwa itself.
STRATIFIERS = {
    f"dwa, {name}": {"weighting": "dwa", "stratifier": choice}
    for name, choice in {
        "das_exact": "das_exact(spacing_penalty=0.01)",
        "manual": "manual(thresholds=(-0.6, -0.2, 0.2, 0.6))",
        "equal_width": "equal_width",
        "equal_frequency": "equal_frequency",
        "kmeans": "kmeans",
    }.items()
}
IMBALANCE_LOSSES = {
    f"{name}, .25/.75": {
        "weighting": "constant(weights=(0.75, 0.25))",
        "classification_loss": "cross_entropy",
        **keys,
    }
    for name, keys in {
        "balanced_softmax": {"classification_loss": "balanced_softmax"},
        "LDS": {"regression_loss": "lds"},
        "balanced_mse": {"regression_loss": "balanced_mse"},
    }.items()
}

# Small training splits and large test splits: a difference between two methods is far smaller
# than the noise of the hundred texts that a tenth of these files would leave for the test.
DATASETS: dict[str, dict[str, Any]] = {
    "semeval_headlines": {
        "train": "{data}/semeval_headlines.csv",
        "fractions": (0.7, 0.1, 0.2),
    },
    "vader_tweets": {
        "train": "{data}/vader_tweets.csv",
        "max_rows": 1000,
        "fractions": (0.4, 0.1, 0.5),
    },
}
SEMEVAL = {"semeval_headlines": DATASETS["semeval_headlines"]}
MINILM = {"minilm": "configs/minilm.py"}
SEEDS = (0, 1, 2, 3, 4)

# What keeps a sweep of hundreds of runs within an evening of two cores: LoRA instead of the
# whole trunk, two epochs instead of eight, and rows of all seeds padded to the same few
# lengths, so that one compilation serves them all.
SHORT = {
    "epochs": 2,
    "lora_rank": 16,
    "lora_dropout": 0.0,
    "learning_rate": 1e-3,
    "pad_to_multiple_of": 8,
    "max_buckets": 8,
}
