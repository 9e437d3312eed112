"""Does it matter where alpha and beta of the imbalance loss start? The papers do not say.

python -m experiments.reproduce --sweep=configs/sweeps/start.py
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    others = [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)]
    return dict(
        title="Where alpha and beta start",
        question="How much do the results of DWA depend on the starts of alpha and beta, which "
        "the papers do not give?",
        methods={
            # What dwa does without a word.
            "alpha 0.1, beta 0.5": {"weighting": "dwa"},
            **{
                f"alpha {alpha}, beta {beta}": {
                    "weighting": "dwa",
                    "classification_loss": f"imbalance(alpha={alpha}, beta={beta})",
                }
                for alpha, beta in others
            },
        },
        datasets=common.SEMEVAL,
        backbones=common.MINILM,
        seeds=common.SEEDS[:3],
        settings=common.SHORT,
        curves=True,
    )
