"""The papers' table A11, read as: the rank of LoRA.

python -m experiments.reproduce --table=a11
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    ranks = (128, 256, 384, 512)
    return dict(
        title="Table A11: the rank of LoRA",
        question="How does the rank of LoRA, with alpha = rank, change error and cost?",
        methods={f"rank {rank}": {"weighting": "dwa", "lora_rank": rank} for rank in ranks},
        axis=("rank", {f"rank {rank}": rank for rank in ranks}),
        datasets=common.DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.SHORT,
    )
