"""Facts of the stratifiers. Axes: N scores, K categories."""

import csv
import functools
import itertools
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn.cluster import KMeans
from sklearn.isotonic import IsotonicRegression

from dwa_jax import stratify

pytestmark = pytest.mark.slow

REAL_DATA = Path(__file__).parents[1].parent / "shared" / "data"
SHAPES = (
    "skewed",
    "u_shaped",
    "neutral_ties",
    "neutral_peak",
    "two_peaks",
    "nine_levels",
    "narrow",
)
PENALTIES = (0.0, 0.01, 0.1, 1.0)
FEW = "ignore:das leaves a category with"
das = functools.partial(stratify.das, spacing_penalty=0)


def read_scores(name):
    path = REAL_DATA / f"{name}.csv"
    if not path.exists():
        pytest.skip(f"{path} is not here: real scores are not part of the repository")
    with path.open(newline="", encoding="utf-8") as file:
        return np.array([float(row["score"]) for row in csv.DictReader(file)])


def synthetic(shape, size=1500):
    rng = np.random.default_rng(0)
    normal = np.clip(rng.normal(0.2, 0.4, size), -1, 1)
    neutral = np.arange(size) < 0.6 * size
    return {
        "skewed": 2 * rng.beta(2, 5, size) - 1,
        "u_shaped": 2 * rng.beta(0.5, 0.5, size) - 1,
        "neutral_ties": np.where(neutral, 0.0, normal),
        "neutral_peak": np.where(neutral, rng.normal(0, 0.03, size), normal),
        "two_peaks": np.where(neutral, rng.normal(-0.7, 0.06, size), rng.normal(0.6, 0.08, size)),
        "nine_levels": np.round((2 * rng.beta(2, 5, size) - 1) * 4) / 4,
        "narrow": rng.normal(0.3, 0.02, size),
    }[shape]


def test_bins_are_right_closed_and_the_first_closed_on_both_sides():
    thresholds = np.array([-0.6, -0.2, 0.2, 0.6])
    scores = np.array([-1, -0.6, -0.59, -0.2, 0.0, 0.2, 0.21, 0.6, 0.61, 1])
    expected = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    np.testing.assert_array_equal(stratify.categorize(scores, thresholds), expected)
    on_device = jax.jit(stratify.categorize)(jnp.asarray(scores), jnp.asarray(thresholds))
    np.testing.assert_array_equal(on_device, expected)


def test_a_score_rounded_to_float32_still_equals_its_threshold():
    thresholds = np.array([-0.6, -0.2, 0.2, 0.6])
    rounded = thresholds.astype(np.float32)
    assert float(rounded[2]) > thresholds[2]
    np.testing.assert_array_equal(stratify.categorize(rounded, thresholds), [0, 1, 2, 3])
    np.testing.assert_array_equal(
        stratify.categorize(jnp.asarray(rounded), thresholds), [0, 1, 2, 3]
    )


@pytest.mark.parametrize("scores", [np.array([-1, 0, 1]), [-1, 0, 1], jnp.array([-1, 0, 1])])
def test_integer_scores_meet_fractional_thresholds(scores):
    np.testing.assert_array_equal(stratify.categorize(scores, [-0.5, 0.5]), [0, 1, 2])


def test_categorize_keeps_the_kind_and_shape_of_its_scores():
    scores = np.zeros((2, 3))
    assert type(stratify.categorize(scores, np.array([0.1]))) is np.ndarray
    on_device = stratify.categorize(jnp.asarray(scores), np.array([0.1]))
    assert isinstance(on_device, jax.Array)
    assert on_device.shape == (2, 3)
    assert on_device.dtype == np.int32


def test_counts_include_empty_categories():
    counts = stratify.stratum_counts([-0.9, -0.9, 0.5], [-0.5, 0.0, 0.8])
    np.testing.assert_array_equal(counts, [2, 0, 1, 0])


def test_objective_by_hand():
    # Categories {-1, -0.5}, {}, {0, 1}: SSE 0.125 + 0 + 0.5 over 4 scores.
    scores, thresholds = [-1, -0.5, 0, 1], [-0.4, -0.1]
    variance = 0.625 / 4
    spacing = (0.3 - 1) ** 2
    walled = (0.6 - 2 / 3) ** 2 + (0.3 - 2 / 3) ** 2 + (1.1 - 2 / 3) ** 2
    balance = 2 * (1 / 2 - 1 / 3) ** 2 + (1 / 3) ** 2

    def value(**options):
        return stratify.das_objective(thresholds, scores, **options)

    assert value(spacing_penalty=0) == pytest.approx(variance)
    assert value(spacing_penalty=2) == pytest.approx(variance + 2 * spacing)
    assert value(spacing_penalty=2, pinned=True) == pytest.approx(variance + 2 * walled)
    assert value(spacing_penalty=0, balance_penalty=3) == pytest.approx(variance + 3 * balance)


def smooth_objective(thresholds, density, spacing_penalty, balance_penalty, pinned):
    """Equation 1 of scores with a density, by Gauss-Legendre quadrature; also p_k and mu_k."""
    num_classes = len(thresholds) + 1
    walls = np.concatenate([[-1.0], thresholds, [1.0]])
    nodes, weights = np.polynomial.legendre.leggauss(80)
    variance, masses, means = 0.0, [], []
    for low, high in itertools.pairwise(walls):
        y = (low + high) / 2 + (high - low) / 2 * nodes
        share = (high - low) / 2 * weights * density(y)
        masses.append(share.sum())
        means.append(share @ y / masses[-1])
        variance += share @ (y - means[-1]) ** 2
    if pinned:
        gaps, delta = np.diff(walls), 2 / num_classes
    else:
        gaps, delta = np.diff(thresholds), 2 / (num_classes - 1)
    masses, means = np.array(masses), np.array(means)
    value = variance + spacing_penalty * np.sum((gaps - delta) ** 2)
    value += balance_penalty * np.sum((masses - 1 / num_classes) ** 2)
    return value, masses, means


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("penalties", [(0.0, 0.0), (0.3, 0.0), (0.0, 0.7)])
@pytest.mark.parametrize(
    "thresholds", [[0.1], [-0.3, 0.35], [-0.6, -0.1, 0.05, 0.7], [-0.8, -0.5, -0.1, 0.2, 0.3, 0.6]]
)
def test_gradient_is_that_of_the_objective_under_the_kernel_density(thresholds, penalties, pinned):
    centres = synthetic("skewed")[:60]

    def density(y):
        kernels = np.exp(-0.5 * np.square((y[:, None] - centres) / 0.12))
        return kernels.mean(axis=1) / (0.12 * np.sqrt(2 * np.pi))

    thresholds = np.array(thresholds)
    _, masses, means = smooth_objective(thresholds, density, *penalties, pinned)
    statistics = (thresholds, density(thresholds), masses, means)
    gradient = stratify.threshold_gradient(
        *statistics,
        spacing_penalty=penalties[0],
        balance_penalty=penalties[1],
        pinned=pinned,
    )
    step = 1e-4
    differences = [
        smooth_objective(thresholds + step * unit, density, *penalties, pinned)[0]
        - smooth_objective(thresholds - step * unit, density, *penalties, pinned)[0]
        for unit in np.eye(thresholds.size)
    ]
    np.testing.assert_allclose(gradient, np.array(differences) / (2 * step), rtol=1e-6, atol=1e-8)


def test_kernel_density_agrees_with_scipy():
    scores = synthetic("skewed")
    grid, density = stratify.kernel_density(scores, 0.05)
    reference = scipy.stats.gaussian_kde(scores, 0.05 / np.std(scores, ddof=1))
    np.testing.assert_allclose(density, reference(grid), atol=2e-3)


@hypothesis.given(st.lists(st.floats(-2, 2, width=32), min_size=5, max_size=5))
@hypothesis.settings(max_examples=50, deadline=None)
def test_projection_is_isotonic_regression_within_the_walls(values):
    values = np.array(values)
    reference = IsotonicRegression(y_min=-1, y_max=1).fit_transform(np.arange(5), values)
    np.testing.assert_allclose(stratify.project(values, min_gap=0.0), reference, atol=1e-12)
    several = np.stack([np.linspace(-0.5, 0.5, 5), values])
    np.testing.assert_array_equal(stratify.project(several)[1], stratify.project(values))
    apart = stratify.project(values, min_gap=0.01)
    assert np.all(np.diff(apart, prepend=-1, append=1) > 0.0099)


@pytest.mark.parametrize("shape", ["skewed", "u_shaped", "neutral_peak"])
def test_unpenalised_descent_ends_where_thresholds_halve_the_means(shape):
    # The stationary points of the variance (Lloyd 1957), by equation 3 alone.
    scores = synthetic(shape)
    start, options = np.array([-0.5, 0.0, 0.5]), {"spacing_penalty": 0.0, "steps": 400}
    found, objective = stratify.descend(scores, start, refined=False, **options)
    categories = stratify.categorize(scores, found)
    means = np.array([scores[categories == k].mean() for k in range(4)])
    np.testing.assert_allclose(found, (means[1:] + means[:-1]) / 2, atol=0.01)
    hard = stratify.das_objective(found, scores, spacing_penalty=0)
    assert float(objective) == pytest.approx(hard, rel=1e-9)
    assert hard < stratify.das_objective(start, scores, spacing_penalty=0)


def test_starts_descend_in_a_batch_as_they_do_alone():
    scores = synthetic("skewed", 300)
    starts = np.array([[-0.6, -0.3, 0.0], [-0.5, 0.1, 0.7]])
    options = {"spacing_penalty": 0.05, "steps": 30}
    together, objectives = stratify.descend(scores, starts, **options)
    alone, objective = stratify.descend(scores, starts[1], **options)
    np.testing.assert_allclose(alone, together[1], rtol=1e-12)
    np.testing.assert_allclose(objective, objectives[1], rtol=1e-12)
    before = [stratify.das_objective(one, scores, spacing_penalty=0.05) for one in starts]
    assert np.all(objectives < before)


@hypothesis.given(
    scores=st.lists(st.integers(-20, 20), min_size=24, max_size=24),
    spacing_penalty=st.sampled_from(PENALTIES),
    balance_penalty=st.sampled_from((0.0, 0.1)),
)
@hypothesis.settings(max_examples=25, deadline=None)
@pytest.mark.filterwarnings(FEW)
def test_thresholds_are_always_in_order_and_no_worse_than_their_start(
    scores, spacing_penalty, balance_penalty
):
    scores = np.array(scores) / 20
    hypothesis.assume(np.unique(scores).size >= 4)
    options = {"spacing_penalty": spacing_penalty, "balance_penalty": balance_penalty}
    found = stratify.das(scores, 4, **options)
    assert np.all(np.diff(found, prepend=-1, append=1) > 0)
    start = stratify.quantile_thresholds(scores, 4)
    before = stratify.das_objective(start, scores, **options)
    assert stratify.das_objective(found, scores, **options) <= before


def check_descent_against_exact(scores, num_classes, **options):
    for spacing_penalty in PENALTIES:
        options["spacing_penalty"] = spacing_penalty
        descent, exact, start = (
            stratify.das_objective(thresholds, scores, **options)
            for thresholds in (
                stratify.das(scores, num_classes, **options),
                stratify.das(scores, num_classes, solver="exact", **options),
                stratify.quantile_thresholds(scores, num_classes),
            )
        )
        assert descent <= start
        assert descent <= 1.0035 * exact + 1e-9, spacing_penalty


@pytest.mark.parametrize("num_classes", [3, 5])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.filterwarnings(FEW)
def test_descent_comes_within_a_third_of_a_percent_of_the_exact_optimum(shape, num_classes):
    check_descent_against_exact(synthetic(shape), num_classes)


@pytest.mark.filterwarnings(FEW)
def test_pinned_and_balanced_descent_comes_as_near_too():
    check_descent_against_exact(synthetic("neutral_ties"), 5, pinned=True, balance_penalty=0.1)


@pytest.mark.parametrize(("name", "num_classes"), [("semeval_headlines", 7), ("vader_tweets", 5)])
@pytest.mark.filterwarnings(FEW)
def test_descent_comes_as_near_on_real_scores(name, num_classes):
    check_descent_against_exact(read_scores(name), num_classes)


def test_scores_of_two_values_cannot_fill_five_categories():
    with pytest.raises(ValueError, match=r"2 distinct scores .-1, 1. cannot fill 5 categories"):
        stratify.das(read_scores("fx_articles"), spacing_penalty=0.1)


@pytest.mark.parametrize("solver", ["descent", "exact"])
@pytest.mark.filterwarnings(FEW)
def test_a_large_spacing_penalty_spaces_evenly_and_a_large_balance_penalty_balances(solver):
    scores = synthetic("skewed")
    even = stratify.das(scores, 5, solver=solver, spacing_penalty=100.0)
    np.testing.assert_allclose(np.diff(even), 0.5, atol=0.004)
    walled = stratify.das(scores, 5, solver=solver, spacing_penalty=100.0, pinned=True)
    np.testing.assert_allclose(walled, [-0.6, -0.2, 0.2, 0.6], atol=0.004)
    balanced = stratify.das(scores, 5, solver=solver, spacing_penalty=0.0, balance_penalty=100.0)
    np.testing.assert_allclose(stratify.stratum_counts(scores, balanced), 300, atol=4)


@pytest.mark.parametrize("num_classes", [2, 3, 4, 5])
@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.filterwarnings(FEW)
def test_exact_is_the_best_of_all_combinations(num_classes, pinned):
    rng = np.random.default_rng(num_classes)
    for spacing_penalty, balance_penalty in itertools.product((0.0, 0.05, 1.0), (0.0, 0.2)):
        scores = np.round(rng.uniform(-1, 1, 20) ** 3, 2)
        candidates = rng.uniform(-0.9, 0.9, 11)
        options = {"spacing_penalty": spacing_penalty, "balance_penalty": balance_penalty}
        options["pinned"] = pinned
        found = stratify.das(scores, num_classes, solver="exact", candidates=candidates, **options)
        assert np.isin(found, candidates).all()
        best = min(
            stratify.das_objective(combination, scores, **options)
            for combination in itertools.combinations(np.sort(candidates), num_classes - 1)
        )
        assert stratify.das_objective(found, scores, **options) == pytest.approx(best, rel=1e-9)


@pytest.mark.filterwarnings(FEW)
def test_exact_finds_the_only_partition_without_variance():
    scores = np.repeat([-0.9, -0.1, 0.0, 0.1, 0.7], [1, 5, 900, 3, 2])
    found = stratify.das(scores, 5, solver="exact", spacing_penalty=0.0)
    np.testing.assert_array_equal(stratify.stratum_counts(scores, found), [1, 5, 900, 3, 2])


def test_candidates_are_few_and_hold_every_cut_between_few_values():
    scores = np.round(synthetic("skewed"), 2)
    candidates = stratify.default_candidates(scores)
    assert np.all(np.diff(candidates) > 0)
    values = np.unique(scores)
    assert np.isin((values[1:] + values[:-1]) / 2, candidates).all()
    many = stratify.default_candidates(np.random.default_rng(0).uniform(-1, 1, 99_999))
    assert many.size <= 2048 + 3 * 5000 + 2


@pytest.mark.parametrize("solver", ["descent", "exact"])
def test_a_million_uniform_scores_are_cut_into_equal_widths(solver):
    scores = np.random.default_rng(0).uniform(-1, 1, 1_000_000)
    found = stratify.das(scores, 5, solver=solver, spacing_penalty=0.01, pinned=True)
    np.testing.assert_allclose(found, [-0.6, -0.2, 0.2, 0.6], atol=0.01)


def test_quantiles_of_distinct_scores_fill_categories_equally():
    scores = synthetic("skewed")
    thresholds = stratify.fit("equal_frequency", scores, 5)
    np.testing.assert_array_equal(stratify.stratum_counts(scores, thresholds), [300] * 5)
    levels = stratify.quantile_thresholds(scores, 4, a=0.1, b=0.9)
    np.testing.assert_array_equal(stratify.stratum_counts(scores, levels), [150, 600, 600, 150])


def test_ties_do_not_collapse_quantiles():
    scores = np.repeat([-0.5, -0.1, 0.0, 0.1, 0.5], [1, 1, 996, 1, 1])
    found = stratify.quantile_thresholds(scores, 5)
    np.testing.assert_allclose(found, [-0.3, -0.05, 0.05, 0.3])


@pytest.mark.parametrize("shape", ["skewed", "neutral_peak", "nine_levels"])
@pytest.mark.parametrize("num_classes", [2, 4, 6])
def test_kmeans_has_no_more_inertia_than_scikit_learn(shape, num_classes):
    scores = synthetic(shape)
    reference = KMeans(num_classes, n_init=3, random_state=0).fit(scores[:, None]).inertia_
    thresholds = stratify.fit("kmeans", scores, num_classes)
    inertia = scores.size * stratify.das_objective(thresholds, scores, spacing_penalty=0)
    assert inertia <= reference + 1e-9


def test_kmeans_thins_its_cuts_for_very_many_scores():
    scores = np.random.default_rng(0).uniform(-1, 1, 50_000)
    found = stratify.fit("kmeans", scores, 4)
    np.testing.assert_allclose(found, [-0.5, 0, 0.5], atol=0.02)


def test_manual_and_equal_width_do_not_look_at_the_scores():
    for scores in (synthetic("skewed"), np.zeros(3)):
        for name in ("manual", "equal_width"):
            np.testing.assert_allclose(stratify.fit(name, scores, 5), [-0.6, -0.2, 0.2, 0.6])
        assert stratify.fit("manual", scores, 3, thresholds=[-0.1, 0.3]).tolist() == [-0.1, 0.3]


def test_every_stratifier_returns_thresholds_in_order():
    scores = synthetic("neutral_ties")
    expected = {"das", "das_exact", "manual", "equal_width", "equal_frequency", "kmeans"}
    assert set(stratify.names()) == expected
    for name in stratify.names():
        options = {"spacing_penalty": 0.1} if name.startswith("das") else {}
        thresholds = stratify.fit(name, scores, 5, **options)
        assert thresholds.shape == (4,)
        assert thresholds.dtype == np.float64
        assert np.all(np.diff(thresholds, prepend=-1, append=1) > 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: stratify.fit("dass", s), "no stratifier 'dass'.*equal_width.*nearest is 'das'"),
        (lambda s: stratify.fit("das", s), "missing a required argument: 'spacing_penalty'"),
        (lambda s: stratify.fit("kmeans", s, 3, a=0.1), "'a'; its options: none"),
        (lambda s: stratify.fit("manual", s, 3, thresholds=[0.1]), "1 thresholds .* expected 2"),
        (lambda s: stratify.fit("manual", s, 3, thresholds=[0.1, 0.1]), "not strictly ascending"),
        (lambda s: stratify.fit("manual", s, 3, thresholds=[0.1, 1.0]), r"within \(-1, 1\)"),
        (lambda s: das(s, 1), "num_classes is 1"),
        (lambda s: das(s, 9), "4 distinct scores .* 9 categories"),
        (lambda s: stratify.das(s, 3, spacing_penalty=-1), "spacing_penalty is -1"),
        (lambda s: das(s, 3, balance_penalty=-2), "balance_penalty"),
        (lambda s: das(s, 3, solver="newton"), "'newton', expected"),
        (lambda s: das(s, 3, a=0.9, b=0.1), "a=0.9, b=0.1"),
        (lambda s: das(s, 3, a=0.1, solver="exact"), "a=0.1 is an"),
        (lambda s: das(s, 3, candidates=[0.0]), "candidates are"),
        (lambda s: das(s, 3, bandwidth=0), "bandwidth is 0"),
        (lambda s: das(s, 3, steps=0), "steps is 0"),
        (lambda s: das(s, 3, solver="exact", candidates=[0.0]), "1 distinct candidates are too"),
        (lambda s: das(s, 3, solver="exact", candidates=[0, 2]), r"candidates span \[0, 2\]"),
        (lambda s: das(s * 5, 3), "3 of 4 .* at index 0: -2.5"),
        (lambda s: das(s / np.zeros(4), 3), "at index 0: -inf"),
        (lambda s: das(s[:, None], 3), r"shape \(4, 1\)"),
        (lambda s: das([0, 0.1, np.nan], 2), "at index 2: nan"),
        (lambda s: stratify.das_objective([0.2, 0.1], s, spacing_penalty=0), "ascending"),
        (lambda s: stratify.categorize(s, [[0.2]]), r"shape \(1, 1\), expected \(K-1,\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.array([-0.5, 0.0, 0.4, 0.9]))
