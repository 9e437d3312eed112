"""The papers' figure 6: the weights over a run, by batch and by epoch.

python -m experiments.reproduce --figure=6
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    return dict(
        title="Figure 6: what the weights do over a run",
        question="Over 25 epochs, some 2000 batches, where do lambda, w, alpha and beta go?",
        methods=common.DWA,
        datasets=common.SEMEVAL,
        backbones=common.MINILM,
        seeds=common.SEEDS[:3],
        # Means over an epoch are of all its steps.
        settings={**common.SHORT, "epochs": 25, "log_every": 1},
        curves=True,
        papers="figure 6",
    )
