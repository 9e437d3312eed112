"""The papers' table A.12: other domains, constant weights against DWA.

SemEval-2017 headlines as in the papers; their texts from social media, which VADER scored, are
those of Go et al. (2009). Here they are tweets, whose scores VADER gives as well.

python -m experiments.reproduce --table=a12
"""

from configs.sweeps import common


def get_sweep():
    """Returns the sweep."""
    return dict(
        title="Table A.12: other domains",
        question="Does DWA lower the error on financial headlines and on tweets that VADER scored?",
        methods={**common.CONSTANT, **common.DWA},
        datasets={
            **common.SEMEVAL,
            "tweets scored by VADER": {
                **common.DATASETS["vader_tweets"],
                # Without the column of people's scores no row has one.
                "score_column": "",
                "label_with": "vader",
            },
        },
        backbones=common.MINILM,
        seeds=common.SEEDS,
        settings=common.SHORT,
        papers="table a12",
        papers_rows=common.TABLE2_ROWS,
    )
