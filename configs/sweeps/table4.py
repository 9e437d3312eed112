"""The papers' table 4: three manual settings of the thresholds, and DAS.

python -m experiments.reproduce --table=4
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    # The papers do not say what theirs are: a narrow, an even and a wide neutral class.
    manual = {
        "thresholds ±.1, ±.5": (-0.5, -0.1, 0.1, 0.5),
        "thresholds ±.2, ±.6": (-0.6, -0.2, 0.2, 0.6),
        "thresholds ±.3, ±.8": (-0.8, -0.3, 0.3, 0.8),
    }
    return dict(
        title="Table 4: ways of setting thresholds",
        question="Do DAS's thresholds serve better than manual ones? Labels differ from row "
        "to row: compare errors of the score, and accuracy under the common labelling only.",
        methods={
            "DAS": {"weighting": "dwa"},
            **{
                name: {"weighting": "dwa", "stratifier": f"manual(thresholds={cuts})"}
                for name, cuts in manual.items()
            },
        },
        datasets=common.DATASETS,
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.SHORT,
        papers="table 4",
        papers_rows={
            "DAS": "DAS",
            **{name: f"Method {k}" for k, name in enumerate(manual, start=1)},
        },
    )
