"""Updates left out: what is not finite changes nothing, spikes on request, at no cost."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dwa_jax import guard, optimizers, weighting
from tests.test_training import BATCHES, batch, host, make, train

pytestmark = pytest.mark.slow

NAN_SCORE = batch(score=np.full(8, np.nan, np.float32))
LEARNED = ("theta", "psi", "phi", "weighting", "proportions", "optimizers")


def differing(before, after):
    """Names of the state's fields that are not bit for bit the same."""
    return {
        name
        for name in before._fields
        for a, b in zip(
            jax.tree.leaves(getattr(before, name)),
            jax.tree.leaves(getattr(after, name)),
            strict=True,
        )
        if not np.array_equal(a, b, equal_nan=True)
    }


def test_an_update_that_is_not_finite_changes_nothing_but_the_counts():
    options = {"proportions": "moving_average", "method": "dwa"}
    state, step, _ = make(**options)
    state, _ = train(state, step, BATCHES[:2])
    before = host(state)
    state, (values,) = train(state, step, [NAN_SCORE])
    after = host(state)
    assert np.isnan(values["loss_regression"]) and values["skipped"] == 1
    assert differing(before, after) == {"step", "guard"}
    assert after.step == 3 and after.guard.skipped == 1 and after.guard.in_a_row == 1
    # The schedules wait, too: the next step is the one that would have come.
    state, (values,) = train(state, step, [BATCHES[2]])
    expected, records = train(*make(**options)[:2], BATCHES[:3])
    assert values["skipped"] == 0 and int(state.guard.in_a_row) == 0
    assert differing(host(state), host(expected)) == {"step", "guard"}
    assert values == records[-1]


@pytest.mark.parametrize("method", ["random", "famo"])
def test_every_kind_of_state_survives_a_bad_step(method):
    state, step, _ = make(method=method)
    state, _ = train(state, step, BATCHES[:1])
    before = host(state)
    state, _ = train(state, step, [NAN_SCORE, NAN_SCORE])
    after = host(state)
    assert differing(before, after) == {"step", "guard"}
    assert after.guard.skipped == after.guard.in_a_row == 2


def _poison(tree, path, value):
    leaf = tree
    for key in path[:-1]:
        leaf = leaf[key]
    leaf[path[-1]] = jnp.full_like(leaf[path[-1]], value)


def test_bad_numbers_in_phi_or_gramian_alone_are_seen():
    state, step, _ = make()
    _poison(state.phi, ("loss", "classification", "beta"), np.inf)
    state, (values,) = train(state, step, BATCHES[:1])
    assert values["skipped"] == 1 and np.isfinite(values["loss_regression"])
    # Gradients whose squares overflow: each number is finite, the Gramian is not.
    _poison(state.phi, ("loss", "classification", "beta"), 0.5)
    state.psi["regression"]["out_proj"]["kernel"] *= 100
    huge = batch(score=np.full(8, 4e18, np.float32), category_mask=np.zeros(8, np.float32))
    _, (values,) = train(state, step, [huge])
    assert np.isfinite(values["loss_regression"])
    assert np.isinf(values["gradient_norm_regression"]) and values["skipped"] == 1


def test_a_gradient_alone_that_is_not_finite_is_seen():
    plain = weighting.get("constant", 2)

    def weigh(*args):
        weighed = plain.weigh(*args)
        return weighed._replace(coefficients=weighed.coefficients * jnp.array([1.0, 1e38]) * 1e38)

    state, step, _ = make(method=plain._replace(weigh=weigh))
    _, (values,) = train(state, step, BATCHES[:1])
    assert np.isfinite(values["loss_imbalance"]) and not np.isfinite(values["gradient_norm"])
    assert values["skipped"] == 1


@pytest.mark.parametrize(
    ("mean_dtype", "tolerance"),
    # A mean of 8 bits is rounded before it is used here, and after it in optax.
    [(jnp.float32, {"rtol": 2e-6}), (jnp.bfloat16, {"rtol": 5e-3, "atol": 5e-3})],
)
def test_the_guarded_adamw_is_optax_clip_and_adamw(mean_dtype, tolerance):
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 3, 20)

    def mask(tree):
        return {name: name == "kernel" for name in tree}

    mine = optimizers.adamw(
        schedule, weight_decay=0.1, mask=mask, clip_norm=1.0, mean_dtype=mean_dtype
    )
    theirs = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, weight_decay=0.1, mask=mask, mu_dtype=mean_dtype),
    )
    ours, state = params, mine.init(params)
    other, other_state = params, theirs.init(params)
    apply = jax.jit(mine.apply)
    for i in range(12):
        scale = 0.1 if i % 2 else 10.0
        gradient = jax.tree.map(
            lambda x, scale=scale: jnp.asarray(scale * rng.normal(size=x.shape), jnp.float32),
            params,
        )
        broken = jax.tree.map(lambda x: x * np.nan, gradient)
        # Held still, also before the first update, whatever the gradient is.
        held = apply(broken, state, ours, False)
        jax.tree.map(np.testing.assert_array_equal, held, (ours, state))
        ours, state = apply(gradient, state, ours, True)
        updates, other_state = theirs.update(gradient, other_state, other)
        other = optax.apply_updates(other, updates)
    for name in params:
        np.testing.assert_allclose(ours[name], other[name], **tolerance)
        assert state.mu[name].dtype == mean_dtype and state.nu[name].dtype == jnp.float32
        assert np.abs(ours[name] - params[name]).max() > 0.1


def test_holding_still_costs_no_pass_over_the_parameters():
    params = {"kernel": jnp.zeros((1024, 1024)), "bias": jnp.zeros(1024)}

    def mask(tree):
        return {name: name == "kernel" for name in tree}

    mine = optimizers.adamw(lambda _: 1e-3, weight_decay=0.1, mask=mask, clip_norm=1.0)
    theirs = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(lambda _: 1e-3, weight_decay=0.1, mask=mask)
    )

    def guarded(gradient, state, params):
        return mine.apply(gradient, state, params, guard.all_finite(gradient))

    def plain(gradient, state, params):
        updates, state = theirs.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    def traffic(step, state):
        compiled = jax.jit(step, donate_argnums=(1, 2)).lower(params, state, params).compile()
        return compiled.cost_analysis()["bytes accessed"]

    cost, base = traffic(guarded, mine.init(params)), traffic(plain, theirs.init(params))
    assert base > 7 * params["kernel"].nbytes
    assert cost < 1.02 * base


def test_spikes_are_left_out_once_the_window_is_full():
    rng = np.random.default_rng(0)
    values = rng.normal([5.0, 1.0], 0.1, size=(40, 2)).astype(np.float32)
    values[3, 0] = 50.0  # too early to judge
    values[20, 1] = 2.0
    values[30, 0] = 0.0  # low is no spike
    present = np.ones((40, 2), bool)
    present[25:28, 0] = False
    values[25:28, 0] = 1e9  # whatever stands there
    state, judge = guard.init(2, 8), jax.jit(guard.judge, static_argnames="sigmas")
    rings, expected, found = [[], []], [], []
    for row, here in zip(values, present, strict=True):
        bad = False
        for series in (0, 1):
            if not here[series]:
                continue
            last, value = np.array(rings[series][-8:]), row[series]
            if len(last) == 8:
                bound = last.mean() + 6 * max(last.std(), 1e-3 * abs(last.mean()))
                bad |= value > bound
                value = min(value, bound)
            rings[series].append(value)
        expected.append(not bad)
        good, state = judge(state, jnp.array(True), jnp.array(row), jnp.array(here), sigmas=6.0)
        found.append(bool(good))
    assert found == expected
    assert [i for i, good in enumerate(found) if not good] == [20]
    assert int(state.skipped) == 1 and int(state.in_a_row) == 0


def test_a_level_that_stays_high_is_accepted_in_the_end():
    rng = np.random.default_rng(1)
    state, judge = guard.init(1, 20), jax.jit(guard.judge, static_argnames="sigmas")
    found = []
    for i in range(80):
        value = rng.normal(1.0 if i < 30 else 3.0, 0.1, size=1)
        good, state = judge(state, jnp.array(True), value, jnp.array([True]), sigmas=4.0)
        found.append(bool(good))
    assert all(found[:30]) and not found[30] and all(found[50:])


def test_what_is_not_finite_does_not_enter_the_window():
    state = guard.init(2, 4)
    _, after = guard.judge(
        state, jnp.array(False), jnp.array([np.nan, 1.0]), jnp.array([True, True]), sigmas=4.0
    )
    assert int(after.skipped) == 1
    jax.tree.map(np.testing.assert_array_equal, after.window, state.window)


def test_the_step_leaves_spikes_out_and_says_so():
    spike = batch(score=np.full(8, 30.0, np.float32))
    state, step, _ = make(spike_window=5, skip_spikes=5.0)
    state, records = train(state, step, [*BATCHES, spike])
    assert [record["skipped"] for record in records] == [0, 0, 0, 0, 0, 1]
    assert np.isfinite(records[-1]["loss_regression"])
    state, step, _ = make()
    _, records = train(state, step, [*BATCHES, spike])
    assert not any(record["skipped"] for record in records)
    with pytest.raises(ValueError, match="spike_window must be at least 2, not 1"):
        guard.init(3, 1)


@pytest.mark.parametrize("rank", [0, 4])
def test_in_bfloat16_what_trains_and_what_is_summed_stays_float32(rank):
    # Master weights, moments, Gramian, losses: bfloat16 loses an update of 1 in 300.
    state, step, _ = make("qwen2", rank=rank, dtype=jnp.bfloat16)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(state.frozen))
    after, values = jax.eval_shape(step, state, BATCHES[0])
    for name in (*LEARNED, "guard"):
        for leaf in jax.tree.leaves(getattr(after, name)):
            assert leaf.dtype in (jnp.float32, jnp.int32), name
    for name, value in values.items():
        assert value.dtype in (jnp.float32, jnp.int32), name


def test_a_step_in_bfloat16_is_the_float32_one_up_to_its_rounding():
    exact, rounded = (
        train(*make("qwen2", rank=4, dtype=dtype)[:2], BATCHES[:1])[1][0]
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert exact != rounded
    for name, value in exact.items():
        np.testing.assert_allclose(rounded[name], value, rtol=0.05, atol=0.01, err_msg=name)


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for parameter in jax.tree.leaves(
            equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize("family", ["roberta", "qwen2"])
def test_in_bfloat16_softmax_norms_and_logarithms_are_float32(family):
    state, step, _ = make(family, dtype=jnp.bfloat16, backbone={"hidden_act": "relu"})
    found = {}
    for equation in equations(jax.make_jaxpr(step)(state, BATCHES[0]).jaxpr):
        kinds = {str(value.aval.dtype) for value in equation.outvars}
        found.setdefault(equation.primitive.name, set()).update(kinds)
    # The matrix products are where bfloat16 is wanted.
    assert "bfloat16" in found["dot_general"]
    for name in ("exp", "log", "rsqrt", "sqrt", "tanh", "reduce_max"):
        assert found.get(name, {"float32"}) == {"float32"}, name
    assert {"exp", "log", "rsqrt", "sqrt"} <= set(found)
