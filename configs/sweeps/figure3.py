"""The papers' figure 3: both tasks against the constant weight, and DWA beside.

python -m experiments.reproduce --figure=3
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    weights = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
    return dict(
        title="Figure 3: the constant weight",
        question="How do both tasks depend on the classification's weight, when it is constant, "
        "and where does DWA lie?",
        methods={
            **{
                f"w_c {weight}": {
                    "weighting": f"constant(weights=({1 - weight}, {weight}))",
                    "classification_loss": "cross_entropy",
                }
                for weight in weights
            },
            **common.DWA,
        },
        axis=("weight of the classification", {f"w_c {weight}": weight for weight in weights}),
        baseline="w_c 0.25",
        datasets=common.SEMEVAL,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.SHORT,
        papers="figure 3",
        papers_rows={name: "DWA" for name in common.DWA},
    )
