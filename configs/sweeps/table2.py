"""The papers' table 2, read as: their models, from one task to DWA with LoRA (B1 to B9).

python -m experiments.reproduce --table=2
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    return dict(
        title="Table 2: models and methods",
        question="Does each step from one task over constant weights to DWA and LoRA help?",
        methods={
            **common.CONSTANT,
            **common.SINGLE_TASK,
            **common.DWA,
            "dwa, all of the trunk": {"weighting": "dwa", "lora_rank": 0, "learning_rate": 1e-4},
        },
        datasets=common.DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.SHORT,
    )
