"""Every key of a run's configuration: its default, its meaning and its range, in one place.

What a configuration file returns, or the keywords of `dwa_jax.train`, becomes a `Config` once, at
the boundary, and everything behind it takes that. Imports no JAX, so that help is there at once.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from dwa_jax import mesh_sizes
from dwa_jax.finetune.config_keys import MANY, Key, check_limits, nearest, setting, typed


def _poolings():
    from dwa_jax.heads import POOLINGS

    return ("", *POOLINGS)


def _scopes():
    from dwa_jax.gradients import SCOPES

    return SCOPES


def _norms():
    from dwa_jax.gradients import NORMS

    return NORMS


def _proportions():
    from dwa_jax.losses import PROPORTIONS

    return PROPORTIONS


def _extension_schedules():
    from dwa_jax.optimizers import EXTENSION_SCHEDULES

    return EXTENSION_SCHEDULES


def _intervals():
    from dwa_jax.finetune.uncertainty.conformal import HOW

    return HOW


def _presets():
    from dwa_jax.presets import PRESETS

    return tuple(PRESETS)


@dataclasses.dataclass(frozen=True)
class Scratch:
    """Shape of a trunk that is built from scratch; `heads` must divide `width`."""

    vocab_size: int = 2000
    width: int = 128
    layers: int = 2
    heads: int = 4
    feed_forward: int = 512
    max_positions: int = 64


@dataclasses.dataclass(frozen=True)
class Config:
    """The configuration of a run; choices with options of their own are written as calls.

    Every field has its meaning in its metadata; `python -m experiments.main --help
    --config=configs/base.py` prints them all.

    Raises:
      ValueError: a value is of the wrong type or out of its range; names key, value and what
        would be right.
    """

    seed: int = setting(
        42,
        "Everything random follows from it: split, heads, LoRA, order of rows, dropout.",
        least=0,
        most=2**31 - 1,
    )
    preset: str = setting(
        "paper",
        '"paper", or "stable" for long runs: options of dwa and imbalance not stated below.',
        choices=_presets,
    )
    protocol: str = setting(
        "",
        '"paper" trains and judges as the papers do: 100 epochs, 9:1 and no test split, whatever '
        "`epochs` and `fractions` say, and batches of 5 to 10. The numbers are then of the "
        "validation split that the best epoch was chosen on.",
        choices=lambda: ("", "paper"),
    )

    # Trunk
    backbone: str = setting(
        "scratch",
        "A local folder or a hub id with Hugging Face weights, a run or an export, whose heads and "
        'thresholds come along; "scratch" builds one.',
        later="same weights",
    )
    scratch: Scratch = dataclasses.field(
        default_factory=Scratch,
        metadata={"key": Key("Shape of a trunk from scratch; heads must divide width.")},
    )
    dtype: str = setting(
        "float32",
        'What the trunk computes in: "float32" or "bfloat16". Trained weights stay float32.',
        choices=lambda: ("float32", "bfloat16"),
    )
    pooling: str = setting(
        "",
        '"first", "last" or "mean" token; "" is what the family\'s own classifier does.',
        choices=_poolings,
    )
    dropout: bool = setting(
        True, "Dropout, inside the trunk as its own configuration states it and of LoRA."
    )
    remat: bool = setting(
        False,
        "Recomputes activations in the backward pass: less memory, about a third more time.",
        later="any",
    )
    unroll: int = setting(
        0,
        "Layers side by side in the compiled program: 1 scans them; 0 is all of up to 12 on a "
        "CPU, where it saves a tenth of the step, and otherwise 1.",
        least=0,
        most=10_000,
        later="any",
    )
    freeze: tuple = setting(
        (), "Regular expressions over parameter paths that do not train (without LoRA)."
    )
    trim_vocabulary: bool = setting(
        True,
        "Where a large word table trains, only the rows of tokens that the run's texts have: the "
        "same numbers but for rounding, for less memory and time. Other rows stay as they are "
        "instead of shrinking by weight decay.",
    )

    # LoRA; rank 0 trains the whole trunk
    lora_rank: int = setting(0, "Rank of the factors.", least=0, most=65_536)
    lora_alpha: float = setting(0.0, "Scale is alpha / rank; 0 sets alpha = rank.", least=0)
    lora_dropout: float = setting(0.05, "Dropout on what the factors see.", least=0, below=1)
    lora_rank_stabilized: bool = setting(False, "Scale alpha / sqrt(rank) instead.")
    lora_targets: tuple = setting(
        (),
        "Regular expressions over kernels; () is every matrix of attention and feed-forward.",
    )
    lora_adapter: str = setting(
        "",
        "Folder of a PEFT LoRA adapter of this backbone to start from; rank, scale and targets "
        "are its own, and the keys above but lora_dropout stay as they are.",
        later="same weights",
    )

    train: str = setting(
        "", 'Texts to train on; "" generates headlines.', later="same rows", as_text=True
    )
    validation: str = setting(
        "",
        'Given splits; where both are "" the training rows are split by `fractions`.',
        later="same rows",
        as_text=True,
    )
    test: str = setting("", "As `validation`.", later="same rows", as_text=True)
    fractions: tuple = setting(
        (0.8, 0.1, 0.1),
        "Train, validation, test; (0.9, 0.1, 0.0) is the papers'.",
        of=float,
    )
    max_rows: int = setting(
        0,
        "At most so many rows of `train`, drawn by the seed before they are split; 0 takes all.",
        least=0,
        most=MANY,
    )
    also_test: str = setting(
        "",
        'Further files to test on at the end, besides `test`: summary.json\'s "also_tested".',
        later="same rows",
        as_text=True,
    )
    generated_rows: int = setting(
        4000,
        'Rows of the embedded generator of FX headlines, where `train` is "".',
        least=1,
        most=10**8,
    )
    text_column: str = setting("text", "Name of the texts' column.", later="same rows")
    score_column: str = setting("score", '"" where there is none.', later="same rows")
    category_column: str = setting("", '"" where there is none.', later="same rows")
    category_names: tuple = setting(
        (), "Names of the categories, in order, where the column holds names; () for integers."
    )
    score_range: tuple = setting(
        (),
        "(lowest, highest) of the file's scores, rescaled to [-1, 1]; () takes them as they are.",
        of=float,
    )
    labels: str = setting(
        "",
        'Numbers of label words, "negative=-1, neutral=0, positive=1": scores, in score_range; '
        "without a score_column the categories, ordered by these numbers.",
        later="same rows",
        as_text=True,
    )
    decimal_comma: bool = setting(False, "0,5 is a half.", later="same rows")
    percent: bool = setting(False, "45% is 0.45.", later="same rows")
    delimiter: str = setting(
        "",
        'Between the cells of a text file; "" finds , ; tab |. "@": from the right.',
        later="same rows",
    )
    encoding: str = setting(
        "", 'Of text files; "" finds UTF-8, UTF-16 and cp1252.', later="same rows"
    )
    columns: tuple = setting(
        (),
        "Names of all columns, in order, of files without a header; () where they have one.",
        later="same rows",
    )
    split_column: str = setting(
        "",
        'Column of `train` that says train, validation or test; "" splits by `fractions`.',
        later="same rows",
    )
    group_column: str = setting(
        "",
        'Column whose value is shared by rows that stay on one side of a split; "" for none.',
        later="same rows",
    )
    time_column: str = setting(
        "",
        'Column by which the past is trained on and what came after tested; "" for none.',
        later="same rows",
    )
    time_format: str = setting(
        "",
        'How that column writes times, "%d/%m/%Y %H:%M" as Python\'s strptime takes it; "" reads '
        "ISO 8601, what mail and Twitter write, and numbers.",
        later="same rows",
    )
    stratify: bool = setting(
        True, "Splits have like shares of each category, and of low and high scores."
    )
    folds: int = setting(
        0,
        "Cross-validation: trains so many times, each tested on another part of the rows, and of "
        "the others validated on the share that `fractions` have; 0 trains once.",
        least=0,
        most=1000,
    )
    fold: int = setting(
        0, "Trains this one of the folds alone, from 1; 0 trains all, one after another.", least=0
    )
    derive_categories: bool = setting(
        True, "Categories of rows without one come from their scores by the thresholds."
    )
    label_with: str = setting(
        "",
        '"vader" gives rows without a score VADER\'s (the extra `vader`), in every split: notes '
        'and summary.json say how many. "" leaves them without.',
        choices=lambda: ("", "vader"),
    )
    on_bad_row: str = setting(
        "error",
        '"error" stops at a bad row, "skip" leaves it out and says so.',
        choices=lambda: ("error", "skip"),
        later="same rows",
    )
    normalize_tweets: bool = setting(
        False, "Users become @user and links http, as Twitter models were trained."
    )
    max_length: int = setting(
        512,
        "Tokens a text, special ones included; longer texts are truncated and counted.",
        least=3,
        most=10**7,
    )
    max_buckets: int = setting(
        6,
        "Different padded lengths, each of which compiles the step once.",
        least=1,
        most=1000,
    )
    pad_to_multiple_of: int = setting(
        1,
        "Padded lengths are multiples of it: with 8, other rows of the same kind meet the same "
        "shapes, and so a warm compilation cache.",
        least=1,
        most=10**7,
    )
    shuffle: bool = setting(True, "False trains on the rows in their files' order, as a stream.")

    clip_scores: bool = setting(
        True,
        "A predicted score beyond the range of the file's scores becomes its nearer end, in all "
        "that is predicted and measured.",
    )

    # Categories
    num_classes: int = setting(5, "K.", least=2, most=1000)
    stratifier: str = setting(
        "das(spacing_penalty=0.01)",
        "das(spacing_penalty=..), das_exact, manual(thresholds=..), equal_width, "
        "equal_frequency, ...",
    )

    # Tasks, losses and weighting
    tasks: tuple = setting(
        ("regression", "classification"), '("regression", "classification"), or one of them.'
    )
    regression_loss: str = setting(
        "mse",
        'mse, lds(weight="sqrt_inverse"|"inverse", sigma=..), balanced_mse(noise_scale=..), '
        "balanced_mse_gai(num_components=..).",
    )
    classification_loss: str = setting(
        "imbalance",
        'imbalance(alpha=.., beta=.., mode="bounded"|"frozen"|"prior"|"literal"), cross_entropy, '
        "class_balanced(beta=.., gamma=..), focal(gamma=..), logit_adjusted(tau=..), "
        "balanced_softmax.",
    )
    proportions: str = setting(
        "batch",
        'p_k of the imbalance loss: "batch", "laplace", "moving_average" or "dataset".',
        choices=_proportions,
    )
    weighting: str = setting(
        "dwa",
        "dwa, adaptive_lambda, adaptive_w, constant(weights=(.75, .25)), single_task, ...",
    )
    gradient_scope: str = setting(
        "trainable",
        'Where the tasks\' gradients are compared: "trainable", "representation", "last_layer".',
        choices=_scopes,
    )
    gradient_norms: str = setting(
        "exact",
        'How they are found in the scope trainable: "exact" and "sketch", an estimate without '
        'bias, for about the price of one gradient; "trees", one whole gradient a task.',
        choices=_norms,
    )
    sketch_columns: int = setting(16, "Random signs a number of a sketch.", least=1, most=10**4)
    norm_of_cross_entropy: bool = setting(
        False, "Takes the classification's gradient norm of the plain cross-entropy."
    )

    # Optimization
    epochs: int = setting(10, "Passes over the training rows.", least=1, most=10**6, later="more")
    extension_schedule: str = setting(
        "stretch",
        "The learning rate where a run is continued with more epochs, beyond its old end: "
        '"stretch", as if it had been so long from the start, "restart", warm-up and cosine anew.',
        choices=_extension_schedules,
        later="extending",
    )
    batch_size: int = setting(8, "Rows a step, over all devices.", least=1, most=10**6)
    microbatches: int = setting(
        1,
        "Parts that a batch is worked through in.",
        least=1,
        most=10**6,
        later="any",
    )
    mesh: str = setting(
        "data=-1,fsdp=1",
        'Devices by axis, -1 for what is left: "data" spreads rows alone, "fsdp" also splits '
        "parameters and optimizer states; docs/scale.md.",
        later="any",
        as_text=True,
    )
    learning_rate: float = setting(2e-5, "Of the trunk, or of LoRA's factors.", least=0)
    head_learning_rate: float = setting(
        1e-3, "Of the heads; 1e-4 suits those of decoders, whose vectors are long.", least=0
    )
    phi_learning_rate: float = setting(
        1e-3, "Of what losses and weighting learn themselves.", least=0
    )
    warmup_steps: int = setting(
        100, "Steps in which the learning rate rises, at most a tenth of all.", least=0, most=MANY
    )
    weight_decay: float = setting(0.01, "AdamW's, of matrices.", least=0)
    clip_norm: float = setting(
        1.0, "Bound on the norm of the trunk's gradient; 0.0: none.", least=0
    )
    adam_mean_dtype: str = setting(
        "float32",
        'What AdamW keeps its means of the trunk\'s gradients in: "float32", or "bfloat16" for a '
        "sixth less memory of what trains. The means of squares are always float32.",
        choices=lambda: ("float32", "bfloat16"),
    )
    max_bad_steps: int = setting(
        10,
        "An update with a NaN or an infinity in it is left out; so many in a row end the run.",
        least=1,
        most=MANY,
        later="any",
    )
    skip_spikes: float = setting(
        0.0,
        "Leaves out updates, too, whose loss or trunk's gradient norm lies more than so many "
        "standard deviations above the mean of the last `spike_window` ones; 0.0 looks for none.",
        least=0,
    )
    spike_window: int = setting(100, "See skip_spikes.", least=2, most=10**6)

    # Evaluation
    monitor: str = setting(
        "mse",
        "Validation metric that picks the best epoch: mse, mae, balanced_mse, r2, f1_macro, "
        "quadratic_weighted_kappa, category_distance, ...",
    )
    patience: int = setting(
        0,
        "Epochs without a better one after which training stops; 0 never stops early.",
        least=0,
        most=MANY,
        later="any",
    )
    eval_batch_size: int = setting(
        32, "Rows that are predicted at once.", least=1, most=10**6, later="any"
    )
    log_every: int = setting(
        10, "Steps between two records in metrics.jsonl.", least=1, most=MANY, later="any"
    )
    writers: str = setting(
        "",
        "Where the records of metrics.jsonl go besides: tensorboard, wandb, with commas between.",
        later="any",
    )

    # How sure
    coverage: float = setting(
        0.9,
        "How often an interval is to hold the true score; from the errors on validation rows.",
        least=0.5,
        below=1,
        later="any",
    )
    intervals: str = setting(
        "marginal",
        '"marginal": one width; "by_category", "by_length": one for each predicted category, or '
        "for short, middling and long texts, each from its own validation rows.",
        choices=_intervals,
        later="any",
    )
    temperature: bool = setting(
        False,
        "Divides the trained classifier's logits by what makes the validation rows likeliest: "
        "other probabilities, the same categories.",
    )

    # Checkpoints: one an epoch and one at a signal, and in between what a crash may cost
    checkpoint_every: int = setting(
        0, "Most steps; 0 where the minutes alone say.", least=0, most=MANY, later="any"
    )
    checkpoint_minutes: float = setting(
        10.0, "Most minutes; 0.0 where the steps alone say.", least=0, later="any"
    )
    keep_checkpoints: bool = setting(
        False,
        "Keeps the checkpoints of a finished run, with which it can be extended; without them what "
        "predicting takes stays.",
        later="any",
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, told = getattr(self, field.name), field.metadata["key"]
            if field.type is Scratch:
                value = _scratch(value)
            else:
                value = typed(field.name, value, field.type, told)
            object.__setattr__(self, field.name, value)
            # Defaults are in range, and to ask for some choices takes JAX.
            if value != field.default:
                check_limits(field.name, value, told)
        object.__setattr__(self, "mesh", str(mesh_sizes.parse(self.mesh)))
        if self.protocol == "paper":
            self._follow_papers()
        _check_fractions(self.fractions)
        if self.category_names and len(self.category_names) != self.num_classes:
            raise ValueError(
                f"category_names has {len(self.category_names)} names, and num_classes is "
                f"{self.num_classes}; as many as there are classes are needed"
            )
        if len(self.score_range) not in (0, 2):
            raise ValueError(f"score_range={self.score_range} must be () or (lowest, highest)")
        if self.temperature and "classification" not in self.tasks:
            raise ValueError(
                f"temperature=True is of probabilities, and tasks={self.tasks} has none"
            )
        self._check_folds()

    def _check_folds(self):
        if self.folds == 1 or self.fold > self.folds:
            raise ValueError(
                f"folds={self.folds}, fold={self.fold}: folds must be 0 or at least 2, and fold at "
                "most that"
            )
        said = [
            k for k in ("validation", "test", "split_column", "time_column") if getattr(self, k)
        ]
        if self.folds and said:
            raise ValueError(
                f"folds={self.folds} holds out every row in turn, and {' and '.join(said)} says "
                "what else is held out; leave one of them away"
            )

    def _follow_papers(self) -> None:
        if not 5 <= self.batch_size <= 10:
            raise ValueError(f"protocol='paper' has a batch_size of 5 to 10, not {self.batch_size}")
        for key in ("test", "split_column"):
            if getattr(self, key):
                raise ValueError(f"protocol='paper' has no test split; {key} must be ''")
        if self.folds:
            raise ValueError("protocol='paper' has one split; folds must be 0")
        object.__setattr__(self, "epochs", 100)
        object.__setattr__(self, "fractions", (0.9, 0.1, 0.0))

    @classmethod
    def of(cls, source: "Config | Mapping | Any" = None, /, **keys: Any) -> "Config":
        """Makes a configuration of whatever holds one.

        Args:
          source: a `Config`, a mapping, what a configuration file's `get_config` returns, or
            None for the defaults.
          **keys: change single keys.

        Raises:
          ValueError: a key does not exist (names the nearest), or a value cannot be.
        """
        if isinstance(source, cls) and not keys:
            return source
        given: dict[str, Any] = {}
        if isinstance(source, cls):
            given = {field.name: getattr(source, field.name) for field in dataclasses.fields(cls)}
        elif source is not None:
            if not hasattr(source, "items"):
                raise ValueError(f"a configuration maps keys to values; got {source!r:.60}")
            given = {str(key): value for key, value in source.items()}  # type: ignore[union-attr]
        given |= keys
        known = [field.name for field in dataclasses.fields(cls)]
        for key in given:
            if key not in known:
                raise ValueError(f"there is no key {key!r}{nearest(key, known)}")
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Returns {key: value}, with a dictionary where a key has keys of its own."""
        return dataclasses.asdict(self)


# First key of a section -> the heading that it and those behind it stand under.
_SECTIONS = {
    "backbone": "Trunk",
    "lora_rank": "LoRA; rank 0 trains the whole trunk",
    "train": "Data: files (.csv .tsv .txt .json .jsonl .ndjson, also .gz, .bz2, .xz, .zst; "
    ".parquet .xlsx), folders of them, patterns such as data/*.csv, or "
    "hub:NAME[[:CONFIG]:SPLIT]; several with commas between, or as a list in JSON",
    "num_classes": "Categories",
    "tasks": "Tasks, losses and weighting",
    "epochs": "Optimization",
    "monitor": "Evaluation",
    "coverage": "How sure",
    "checkpoint_every": "Checkpoints: one an epoch and one at a signal, and in between what a "
    "crash may cost",
}


def meanings() -> Iterator[tuple[str, str, str]]:
    """Yields (key, heading of its section, what it means) of every key, in their order."""
    heading = ""
    for field in dataclasses.fields(Config):
        heading = _SECTIONS.get(field.name, heading)
        yield field.name, heading, field.metadata["key"].meaning


def later(key: str) -> str:
    """Returns what a key, flattened or not, may be when a run goes on; see `Key.later`."""
    known = {field.name: field.metadata["key"] for field in dataclasses.fields(Config)}
    return known[key].later if key in known else "same"


def flatten_keys(config: Mapping, prefix: str = "") -> dict[str, Any]:
    """Flattens {key: value or such a dictionary} to {"seed": 0, "scratch.width": 128, ...}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        inner = isinstance(value, Mapping)
        flat |= flatten_keys(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


# Keys of earlier versions, with the value at which a run did what every run does now.
_GONE = {"gramian_every": 1}


def without_gone(stored: Mapping, *, whatever: bool = False) -> dict[str, Any]:
    """Leaves out of a stored configuration what there is no key for any more.

    Args:
      stored: of a run that an earlier version began.
      whatever: also where the run did otherwise than every run does now, which matters for
        going on with it, not for reading it.
    """
    return {
        key: value
        for key, value in stored.items()
        if key not in _GONE or not (whatever or value == _GONE[key])
    }


def changed(config: Config) -> dict[str, Any]:
    """Returns the keys, flattened, whose value is not the default's."""
    defaults = flatten_keys(Config().to_dict())
    return {k: value for k, value in flatten_keys(config.to_dict()).items() if defaults[k] != value}


def _scratch(value):
    if isinstance(value, Scratch):
        given = dataclasses.asdict(value)
    elif hasattr(value, "items"):
        given = dict(value.items())
    else:
        raise ValueError(f"scratch={value!r:.80} must map the keys of a shape to their values")
    sizes: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(Scratch)}
    for key, size in given.items():
        if key not in sizes:
            raise ValueError(f"there is no key 'scratch.{key}'{nearest(key, list(sizes))}")
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 10**7:
            raise ValueError(
                f"scratch.{key}={size!r:.80} must be at least 1, a whole number of at most {10**7}"
            )
    shape = Scratch(**(sizes | given))
    if shape.width % shape.heads:
        raise ValueError(f"scratch.heads={shape.heads} does not divide scratch.width={shape.width}")
    return shape


def _check_fractions(fractions):
    if (
        len(fractions) != 3
        or not all(isinstance(part, int | float) and 0 <= part <= 1 for part in fractions)
        or abs(sum(fractions) - 1) > 1e-6
        or fractions[0] == 0
    ):
        raise ValueError(
            f"fractions={fractions} must be three numbers that sum to 1 (train, validation, "
            "test), the first above 0"
        )
