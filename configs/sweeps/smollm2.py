"""The ways of weighting on a decoder, SmolLM2-135M with LoRA.

python -m experiments.reproduce --sweep=configs/sweeps/smollm2.py --weights=smollm2=FOLDER
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    return dict(
        title="Ways of weighting on SmolLM2-135M",
        question="Does DWA beat constant weights on a pre-trained decoder?",
        methods={
            **common.CONSTANT,
            **common.SINGLE_TASK,
            "adaptive_lambda": common.ADAPTIVE["adaptive_lambda"],
            **common.DWA,
        },
        datasets=common.DATASETS,
        backbones={"smollm2": "configs/smollm2.py"},
        seeds=common.SEEDS[:5],
        settings={"epochs": 2, "learning_rate": 2e-4, "pad_to_multiple_of": 8, "max_buckets": 8},
        curves=True,
        papers_rows=common.TABLE2_ROWS,
    )
