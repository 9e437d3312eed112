"""The metric that picks the best epoch is one that can."""

from types import SimpleNamespace

import numpy as np
import pytest

from dwa_jax.finetune import loop
from dwa_jax.finetune.config import Config

DIFFERENCES = ("r2", "pearson", "spearman", "quadratic_weighted_kappa")


def corpus(scores, categories):
    rows = {"validation": SimpleNamespace(scores=np.array(scores, float))}
    return SimpleNamespace(rows=rows, categories={"validation": np.array(categories)})


@pytest.mark.parametrize(
    "validation", [corpus([0.5], [3]), corpus([0.5, 0.5, np.nan], [3, 3, -1])], ids=["one", "equal"]
)
def test_one_that_labels_all_alike_leave_undefined_is_refused(validation):
    for monitor in sorted(loop.HIGHER_IS_BETTER | loop.LOWER_IS_BETTER):
        config = Config(monitor=monitor)
        if monitor not in DIFFERENCES:
            loop.check_monitor(config, validation)
            continue
        with pytest.raises(ValueError, match=f"monitor='{monitor}' is undefined: the") as caught:
            loop.check_monitor(config, validation)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("monitor", DIFFERENCES)
def test_labels_that_differ_define_it(monitor):
    loop.check_monitor(Config(monitor=monitor), corpus([0.5, 0.4], [3, 2]))


def test_patience_counts_from_the_first_epoch_that_the_monitor_could_grade():
    config = Config(epochs=10, patience=2)
    # (evaluated, best so far): none yet; just waited for long enough; the end.
    assert not loop.is_trained(config, 5, 0)
    assert not loop.is_trained(config, 6, 5) and loop.is_trained(config, 7, 5)
    assert loop.is_trained(config, 10, 0)


def test_categories_are_monitored_without_regression():
    validation = corpus([np.nan] * 2, [0, 1])
    for monitor in ("quadratic_weighted_kappa", "category_distance", "category_distance_macro"):
        loop.check_monitor(Config(monitor=monitor, tasks=("classification",)), validation)
    assert loop.merit("quadratic_weighted_kappa", 0.5) > loop.merit("quadratic_weighted_kappa", 0)
    assert loop.merit("category_distance", 0.5) < loop.merit("category_distance", 0)
