"""The papers' table 3: DWA with LoRA of four ranks beside full fine-tuning.

python -m experiments.reproduce --table=3
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    ranks = {f"LoRA, rank {rank}": rank for rank in (128, 256, 384, 512)}
    return dict(
        title="Table 3: the rank of LoRA, and full fine-tuning",
        question="How do error, time and memory of DWA change with the rank of LoRA, alpha = rank, "
        "and how do they compare with training all of the trunk?",
        methods={
            # At its own learning rate, as in table 2.
            "full": {"weighting": "dwa", "lora_rank": 0, "learning_rate": 1e-4},
            **{name: {"weighting": "dwa", "lora_rank": rank} for name, rank in ranks.items()},
        },
        datasets=common.DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings={**common.SHORT, "lora_dropout": 0.05},
        papers="table 3",
        papers_rows={name: name for name in ("full", *ranks)},
        full="full",
    )
