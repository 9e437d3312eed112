"""The papers' table 5: the ablation of lambda and w.

python -m experiments.reproduce --table=5
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    return dict(
        title="Table 5: what lambda and w contribute",
        question="Which part of DWA does what: lambda from gradient norms, or the learned w?",
        methods={**common.CONSTANT, **common.ADAPTIVE, **common.DWA},
        datasets=common.DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.SHORT,
        curves=True,
        papers="table 5",
        papers_rows={
            **common.TABLE2_ROWS,
            "adaptive_lambda": "Adaptive lambda",
            "adaptive_w": "Adaptive w",
        },
    )
