"""The papers' figure 6, read as: lambda, w, alpha and beta over a run's steps.

python -m experiments.reproduce --figure=6
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    return dict(
        title="Figure 6: what the weights do over a run",
        question="Over eight epochs, as configs/minilm.py has it, where do lambda, w, alpha and "
        "beta go?",
        methods={**common.DWA, **common.STABLE},
        datasets=common.SEMEVAL,
        backbones=common.MINILM,
        seeds=common.SEEDS[:3],
        settings={**common.SHORT, "epochs": 8},
        curves=True,
    )
