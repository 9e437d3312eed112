"""Methods, datasets and backbones that several sweeps share."""

from typing import Any

# The papers' baseline: w_c = 0.25, w_r = 0.75; weights are (regression, classification).
CONSTANT = {"constant .25/.75": {"weighting": "constant(weights=(0.75, 0.25))"}}
EQUAL = {"constant .5/.5": {"weighting": "constant(weights=(0.5, 0.5))"}}
# Constant weights are the plainest rival, so they weigh a plain loss.
for _keys in (*CONSTANT.values(), *EQUAL.values()):
    _keys["classification_loss"] = "cross_entropy"
SINGLE_TASK = {"regression alone": {"tasks": ("regression",), "weighting": "single_task"}}
ADAPTIVE = {
    "adaptive_lambda": {"weighting": "adaptive_lambda"},
    "adaptive_w": {"weighting": "adaptive_w"},
}
DWA = {"dwa (paper)": {"weighting": "dwa"}}
# What table 2 of the papers calls them.
TABLE2_ROWS = {"constant .25/.75": "Constant", "dwa (paper)": "DWA"}
REPRESENTATION = {
    "dwa, representation": {"weighting": "dwa", "gradient_scope": "representation"},
}
STABLE = {"dwa (stable)": {"weighting": "dwa", "preset": "stable"}}
RIVALS = {
    "gradnorm": {"weighting": "gradnorm", "classification_loss": "cross_entropy"},
    "uncertainty": {"weighting": "uncertainty", "classification_loss": "cross_entropy"},
}
GRAMIAN = {
    name: {"weighting": name, "classification_loss": "cross_entropy"}
    for name in ("upgrad", "fairgrad")
}
# What differs between a constant weight and DWA, one thing at a time.
OTHER_LOSS = {
    "constant .25/.75 + imbalance loss": {"weighting": "constant(weights=(0.75, 0.25))"},
    "dwa + cross-entropy": {"weighting": "dwa", "classification_loss": "cross_entropy"},
}
AT_DWAS_END = "constant where dwa ends"
ATTRIBUTION = {
    **OTHER_LOSS,
    # Its weights follow, see `ends_of`; the loss is DWA's.
    AT_DWAS_END: {"weighting": "constant"},
    "constant .25/.75, no clipping": {**CONSTANT["constant .25/.75"], "clip_norm": 0.0},
    "dwa, no clipping": {"weighting": "dwa", "clip_norm": 0.0},
    "gradnorm, no clipping": {**RIVALS["gradnorm"], "clip_norm": 0.0},
}
# "das" is the default, and so dwa itself; equal_width is the first manual setting.
STRATIFIERS = {
    f"dwa, {name}": {"weighting": "dwa", "stratifier": choice}
    for name, choice in {
        "das_exact": "das_exact(spacing_penalty=0.01)",
        "thresholds ±.2, ±.6": "manual(thresholds=(-0.6, -0.2, 0.2, 0.6))",
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
    }.items()
}

# What the validation split chooses among. First, for each method, what is its own: where it learns
# weights, their learning rate decides whether they move at all: the default, which is the papers'
# of DWA, GradNorm's own (.025, Chen et al. 2018) and one beyond. Then one learning rate of the
# trunk for all. The defaults, 1e-3 of either, are not named: other sweeps have the same runs.
_WEIGHTS_RATES: tuple[dict, ...] = ({}, {"phi_learning_rate": 0.025}, {"phi_learning_rate": 0.1})
_LDS: tuple[dict, ...] = (
    {},
    {"regression_loss": 'lds(weight="inverse")'},
    {"regression_loss": "lds(sigma=4)"},
)
TRUNK_RATES: tuple[dict, ...] = ({}, {"learning_rate": 2e-3})
_LEARNS_WEIGHTS = ("adaptive_w", "dwa", "gradnorm", "uncertainty")


def candidates(methods) -> dict[str, tuple[dict[str, Any], ...]]:
    """Returns {method: its candidates}, of which the first changes nothing; of those that have any.

    A method that follows another one has none.
    """
    found: dict[str, tuple[dict[str, Any], ...]] = {}
    for name, keys in methods.items():
        if name == AT_DWAS_END:
            continue
        if keys["weighting"].partition("(")[0] in _LEARNS_WEIGHTS:
            found[name] = _WEIGHTS_RATES
        if "lds" in keys.get("regression_loss", ""):
            found[name] = _LDS
    return found


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
# Where one text in a hundred is several times as long as the rest, every seed's split would bring
# lengths of its own to compile for; at 64 tokens 1 % (amazon) and .1 % (movies) are cut short.
_LONG_TAIL = {"max_length": 64, "pad_to_multiple_of": 16}
MORE_DATASETS: dict[str, dict[str, Any]] = {
    **DATASETS,
    # Sentences of one review stay on one side, see `streams`.
    "vader_amazon": {
        "train": "{streams}/vader_amazon.csv",
        "group_column": "group",
        "max_rows": 1000,
        "fractions": (0.4, 0.1, 0.5),
        **_LONG_TAIL,
    },
    "vader_movies": {
        "train": "{data}/vader_movies.csv",
        "max_rows": 1000,
        "fractions": (0.4, 0.1, 0.5),
        **_LONG_TAIL,
    },
}
AMAZON = {"source": "{data}/vader_amazon.csv", "groups": "id"}
SEMEVAL = {"semeval_headlines": DATASETS["semeval_headlines"]}
MINILM = {"minilm": "configs/minilm.py"}
SEEDS = tuple(range(10))
TUNING_SEEDS = SEEDS[:2]

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

# Table 2 trains all of the trunk, at the learning rate of the backbone's own configuration.
FULL = {key: value for key, value in SHORT.items() if key != "learning_rate"} | {"lora_rank": 0}
