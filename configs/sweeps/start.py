"""Does it matter where alpha and beta of the imbalance loss start? The papers do not say.

python -m experiments.reproduce --sweep=configs/sweeps/start.py
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    starts = [(0.0, 0.0), (0.0, 0.5), (0.1, 0.5), (0.1, 1.0), (0.5, 0.5), (1.0, 1.0)]
    return dict(
        title="Where alpha and beta start",
        question="How much do the results of DWA depend on the starts of alpha and beta, which "
        "the papers do not give?",
        methods={
            f"alpha {alpha}, beta {beta}": {
                "classification_loss": f"imbalance(alpha={alpha}, beta={beta})"
            }
            for alpha, beta in starts
        },
        baseline="alpha 0.1, beta 0.5",
        datasets=common.SEMEVAL,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.SHORT,
        curves=True,
    )
