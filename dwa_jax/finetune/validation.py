"""Ranges of a configuration's numbers, checked before anything is read or built."""

from dwa_jax import gradients, heads, losses

# key -> least value that makes sense.
_LEAST = {
    "seed": 0,
    "generated_rows": 1,
    "max_rows": 0,
    "max_length": 3,
    "max_buckets": 1,
    "pad_to_multiple_of": 1,
    "num_classes": 2,
    "lora_rank": 0,
    "lora_alpha": 0,
    "unroll": 0,
    "gramian_every": 1,
    "epochs": 1,
    "batch_size": 1,
    "eval_batch_size": 1,
    "microbatches": 1,
    "learning_rate": 0,
    "head_learning_rate": 0,
    "phi_learning_rate": 0,
    "warmup_steps": 0,
    "weight_decay": 0,
    "clip_norm": 0,
    "max_bad_steps": 1,
    "skip_spikes": 0,
    "spike_window": 2,
    "patience": 0,
    "log_every": 1,
    "checkpoint_every": 0,
    "checkpoint_minutes": 0,
}
_CHOICES = {
    "dtype": ("float32", "bfloat16"),
    "on_bad_row": ("error", "skip"),
    "label_with": ("", "vader"),
    "pooling": ("", *heads.POOLINGS),
    "gradient_scope": gradients.SCOPES,
    "proportions": losses.PROPORTIONS,
}


def check(config) -> None:
    """Checks the numbers of a configuration.

    Raises:
      ValueError: one is out of its range; names the key, the value and what would be right.
    """
    for key, least in _LEAST.items():
        # Written so that nan fails as well.
        if not config[key] >= least or config[key] == float("inf"):
            raise ValueError(f"{key}={config[key]} must be a number of at least {least}")
    for key, choices in _CHOICES.items():
        if config[key] not in choices:
            raise ValueError(f"{key}={config[key]!r} is not one of {', '.join(choices)}")
    if not 0 <= config.lora_dropout < 1:
        raise ValueError(f"lora_dropout={config.lora_dropout} must be in [0, 1)")
    fractions = tuple(config.fractions)
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
    if len(config.score_range) not in (0, 2):
        raise ValueError(f"score_range={tuple(config.score_range)} must be () or (lowest, highest)")
    shape = config.scratch
    for key in shape:
        if shape[key] < 1:
            raise ValueError(f"scratch.{key}={shape[key]} must be at least 1")
    if shape.width % shape.heads:
        raise ValueError(f"scratch.heads={shape.heads} does not divide scratch.width={shape.width}")
