"""The train step: what changes, what does not, and what it costs to ask for it twice."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dwa_jax import backbones, lora, losses, sharding, training, trunk, weighting
from dwa_jax.backbones import BackboneConfig

pytestmark = pytest.mark.slow

K, WIDTH = 4, 16
TASKS = [
    training.Task("regression", 1, losses.mse_loss(), "score_mask"),
    training.Task("classification", K, losses.imbalance_loss(alpha=0.2, beta=0.5), "category_mask"),
]
OPTIMIZERS = training.make_optimizers(
    total_steps=40, learning_rate=1e-2, head_learning_rate=1e-2, warmup_steps=2
)


def config(family, **changes):
    settings = {
        "model_type": family,
        "vocab_size": 32,
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 24,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    if family == "roberta":
        settings |= {"type_vocab_size": 1, "pad_token_id": 1}
    return BackboneConfig.from_huggingface(settings | changes)


def make(
    family="roberta",
    rank=0,
    method="dwa",
    tasks=None,
    freeze=(),
    backbone=(),
    dtype=jnp.float32,
    spike_window=0,
    fresh=False,
    **options,
):
    """Returns (state, step, predict); the programs are those of an equal call before.

    fresh: programs of its own, for who counts compilations.
    """
    tasks = tasks or TASKS
    settings = config(family, **dict(backbone))
    # The same numbers in every precision.
    params = backbones.init(jax.random.key(0), backbones.build(settings))
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    adapter = lora.init(jax.random.key(1), params, rank=rank) if rank else None
    theta, frozen = trunk.split_parameters(params, adapter, freeze=freeze)
    chosen = chosen_method(method, len(tasks)) if isinstance(method, str) else method
    state = training.init_state(
        jax.random.key(2),
        theta,
        frozen,
        family=family,
        width=WIDTH,
        tasks=tasks,
        weighting=chosen,
        optimizers=OPTIMIZERS,
        num_classes=K,
        spike_window=spike_window,
    )
    options |= {
        "pooling": "first" if family == "roberta" else "last",
        "lora_scale": adapter.scale if adapter else 1.0,
    }
    build = programs.__wrapped__ if fresh else programs
    return state, *build(settings, dtype, tuple(tasks), chosen, tuple(sorted(options.items())))


chosen_method = functools.cache(weighting.get)


@functools.cache
def programs(settings, dtype, tasks, method, options):
    module = backbones.build(settings, dtype=dtype, param_dtype=dtype)
    chosen = training.StepOptions(num_classes=K, **dict(options))
    step = training.make_step(module, tasks, method, OPTIMIZERS, chosen)
    how = {name: dict(options)[name] for name in ("pooling", "lora_scale")}
    return step, training.make_predict(module, tasks, **how)


def batch(seed=0, rows=8, tokens=6, **changes):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, tokens + 1, rows)
    mask = (np.arange(tokens) < lengths[:, None]).astype(np.int32)
    made = {
        "input_ids": np.where(mask, rng.integers(3, 32, mask.shape), 1).astype(np.int32),
        "attention_mask": mask,
        "score": rng.uniform(-1, 1, rows).astype(np.float32),
        "score_mask": (rng.random(rows) < 0.8).astype(np.float32),
        "category": rng.integers(0, K, rows).astype(np.int32),
        "category_mask": (rng.random(rows) < 0.8).astype(np.float32),
    }
    made["score_mask"][0] = made["category_mask"][1] = 1
    return made | changes


def train(state, step, batches):
    records = []
    for one in batches:
        state, values = step(state, one)
        records.append(jax.device_get(values))
    return state, records


def compilations(caplog):
    return caplog.text.count("Compiling jit(step)")


def host(state):
    return jax.device_get(jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, state))


def is_key(x):
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def assert_close(a, b, rtol=1e-4, atol=1e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


BATCHES = [batch(seed) for seed in range(5)]


@pytest.mark.parametrize(
    ("family", "rank", "scope"),
    [
        ("roberta", 0, "trainable"),
        ("roberta", 4, "representation"),
        ("qwen2", 4, "last_layer"),
    ],
)
def test_microbatches_give_the_step_of_the_whole_batch(family, rank, scope):
    options = {"family": family, "rank": rank, "scope": scope}
    whole, records = train(*make(**options)[:2], BATCHES)
    parts, same = train(*make(**options, microbatches=4)[:2], BATCHES)
    # Adam turns rounding into full steps where a gradient is all but zero, so the
    # trajectories are compared by what they compute.
    assert_close(records, same, rtol=2e-3)
    assert_close(whole.phi, parts.phi, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("scope", ["trainable", "representation"])
def test_two_devices_give_the_trajectory_of_one(scope, caplog):
    results = []
    for devices in (jax.devices()[:1], jax.devices()[:2]):
        mesh = sharding.data_mesh(devices)
        state, step, _ = make(scope=scope, fresh=True)
        state = sharding.replicate(state, mesh)
        spread = [sharding.shard_rows(one, mesh) for one in BATCHES]
        assert len(spread[0]["score"].sharding.device_set) == len(devices)
        caplog.clear()
        with jax.log_compiles():
            results.append(train(state, step, spread))
        assert compilations(caplog) == 1
    assert_close(results[0][1], results[1][1], rtol=1e-5)
    assert_close(results[0][0].psi, results[1][0].psi, rtol=1e-3, atol=1e-5)


def test_rows_that_do_not_divide_over_the_devices_are_made_up_and_count_for_nothing():
    mesh = sharding.data_mesh(jax.devices()[:2])
    odd = batch(rows=7)
    made = sharding.shard_rows(odd, mesh, 3)
    for name, values in odd.items():
        assert made[name].shape == (12, *values.shape[1:])
        np.testing.assert_array_equal(made[name][:7], values)
    assert not np.any(made["score_mask"][7:]) and not np.any(made["category_mask"][7:])
    np.testing.assert_array_equal(np.sum(made["attention_mask"][7:], axis=1), 1)
    results = []
    for given in (odd, sharding.shard_rows(odd, mesh)):
        state, step, _ = make()
        results.append(train(sharding.replicate(state, mesh), step, [given]))
    assert_close(results[0][1], results[1][1], rtol=1e-5)


def test_frozen_leaves_stay_bit_identical_and_only_lora_and_heads_train():
    state, step, _ = make("qwen2", rank=4)
    before = host(state)
    state, _ = train(state, step, BATCHES)
    after = host(state)
    assert set(after.theta) == {"lora"}
    for a, b in zip(jax.tree.leaves(before.frozen), jax.tree.leaves(after.frozen), strict=True):
        np.testing.assert_array_equal(a, b)
    for kind in ("theta", "psi"):
        for a, b in zip(
            jax.tree.leaves(getattr(before, kind)),
            jax.tree.leaves(getattr(after, kind)),
            strict=True,
        ):
            assert not np.array_equal(a, b)


def test_frozen_by_pattern():
    state, step, _ = make(freeze=["^embeddings", "norm"])
    before = host(state)
    after = host(train(state, step, BATCHES[:2])[0])
    assert set(before.frozen["params"]) == {"embeddings", "layers"}
    assert "embeddings" not in before.theta["params"]
    assert_close(before.frozen, after.frozen, rtol=0, atol=0)
    with pytest.raises(ValueError, match="freeze every parameter"):
        make(freeze=["."])


def test_one_compilation_a_shape_and_no_transfer_in_the_loop(caplog):
    state, step, _ = make(fresh=True)
    shapes = [batch(seed, tokens=tokens) for seed, tokens in enumerate((6, 9, 6, 9, 6))]
    on_device = [jax.device_put(one) for one in shapes]
    with jax.log_compiles():
        for one in on_device[:2]:
            state, _ = step(state, one)
        with jax.transfer_guard("disallow"):
            for one in on_device[2:]:
                state, values = step(state, one)
    assert compilations(caplog) == 2
    assert int(state.step) == 5 and np.isfinite(values["loss_regression"])


def test_another_rate_and_another_length_are_no_other_program(caplog):
    state, _, _ = make(fresh=True)
    module, options = backbones.build(config("roberta")), training.StepOptions
    method = weighting.get("dwa", 2)
    given = (module, tuple(TASKS), method, OPTIMIZERS.plan, options(pooling="first", num_classes=K))
    program, rates = training.make_program(*given), []
    with jax.log_compiles():
        for total, rate in ((40, 1e-3), (400, 1e-3), (400, 5e-2)):
            chosen = training.make_optimizers(
                total_steps=total, learning_rate=rate, head_learning_rate=rate, clip_norm=rate
            )
            assert chosen.plan == OPTIMIZERS.plan
            now = jax.tree.map(jnp.copy, state)
            _, values = training.Step(program, chosen)(now, jax.device_put(BATCHES[0]))
            rates.append(float(values["learning_rate"]))
    assert compilations(caplog) == 1
    np.testing.assert_allclose(rates, [1e-3 / 4, 1e-3 / 40, 5e-2 / 40], rtol=1e-6)


def test_the_state_is_donated():
    state, step, _ = make()
    state = jax.device_put(state)
    step(state, BATCHES[0])
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.theta))


def test_same_seed_same_bits_and_dropout_follows_the_step():
    options = {"backbone": {"hidden_dropout_prob": 0.3}}
    first, records = train(*make(**options)[:2], BATCHES)
    second, same = train(*make(**options)[:2], BATCHES)
    assert_close(host(first), host(second), rtol=0, atol=0)
    assert_close(records, same, rtol=0, atol=0)
    _, without = train(*make(**options, dropout=False)[:2], BATCHES)
    assert abs(without[0]["loss_regression"] - records[0]["loss_regression"]) > 1e-4


# One of each kind: variables of its own, solvers, states, draws; every method trains in
# weighting/test_trains.py.
@pytest.mark.parametrize("method", ["dwa", "gradnorm", "upgrad", "famo", "random"])
def test_weightings_of_every_kind_train(method):
    _, records = train(*make(method=method)[:2], BATCHES * 4)
    assert all(np.isfinite(list(record.values())).all() for record in records)


def test_constant_and_single_task_do_what_their_weights_say():
    # With one task's weight at 0 its head stays, and the other's moves.
    state, step, _ = make(method="single_task")
    before = host(state).psi
    after, records = train(state, step, BATCHES[:3])
    np.testing.assert_array_equal(records[0]["coefficient_regression"], 1)
    moved = np.abs(
        before["regression"]["out_proj"]["kernel"] - after.psi["regression"]["out_proj"]["kernel"]
    ).max()
    assert moved > 1e-3
    # Weight decay alone: 1% of the learning rate a step.
    still = np.abs(
        before["classification"]["out_proj"]["bias"]
        - after.psi["classification"]["out_proj"]["bias"]
    ).max()
    assert still == 0


def test_a_batch_without_one_tasks_labels_trains_the_other():
    state, step, _ = make()
    _, values = step(state, batch(category_mask=np.zeros(8, np.float32)))
    assert values["loss_imbalance"] == 0
    assert values["lambda_regression"] == 1 and values["weight_regression"] == 1
    state, step, _ = make()
    _, values = step(state, batch(score_mask=np.zeros(8, np.float32)))
    assert values["coefficient_classification"] == 1 and values["coefficient_regression"] == 0


def test_a_batch_of_one_class_only():
    state, step, _ = make()
    one_class = batch(category=np.full(8, 2, np.int32), category_mask=np.ones(8, np.float32))
    state, values = step(state, one_class)
    # p = 1: no log-proportion term, and the loss is the plain cross-entropy.
    np.testing.assert_allclose(values["loss_imbalance"], values["loss_classification"], rtol=1e-5)
    assert np.isfinite(jax.tree.reduce(jnp.minimum, jax.tree.map(jnp.min, state.theta)))


def test_filler_rows_change_nothing():
    short = batch(rows=6)
    filled = {
        name: np.concatenate([values, np.zeros_like(values[:2])]) for name, values in short.items()
    }
    filled["attention_mask"][6:, 0] = 1
    _, one = train(*make()[:2], [short])
    _, two = train(*make()[:2], [filled])
    assert_close(one, two, rtol=2e-5)


def test_alpha_and_beta_stay_in_their_bounds_and_shrink():
    fast = training.make_optimizers(
        total_steps=40, learning_rate=1e-3, head_learning_rate=1e-3, phi_learning_rate=0.1
    )
    module = backbones.build(config("roberta"))
    method = weighting.get("dwa", 2)
    theta, frozen = trunk.split_parameters(backbones.init(jax.random.key(0), module))
    state = training.init_state(
        jax.random.key(2),
        theta,
        frozen,
        family="roberta",
        width=WIDTH,
        tasks=TASKS,
        weighting=method,
        optimizers=fast,
        num_classes=K,
    )
    options = training.StepOptions(pooling="first", num_classes=K)
    step = training.make_step(module, TASKS, method, fast, options)
    _, records = train(state, step, BATCHES * 4)
    for name in ("alpha", "beta"):
        values = np.array([record[name] for record in records])
        assert (np.diff(values) <= 0).all() and values[-1] == 0


def test_the_norm_may_be_that_of_the_plain_cross_entropy():
    # Regression's norm is untouched, classification's is what cross-entropy would give.
    _, (changed,) = train(*make(norm_of_cross_entropy=True)[:2], BATCHES[:1])
    _, (weighted,) = train(*make()[:2], BATCHES[:1])
    plain_tasks = [TASKS[0], TASKS[1]._replace(loss=losses.cross_entropy_loss())]
    _, (plain,) = train(*make(tasks=plain_tasks)[:2], BATCHES[:1])
    name = "gradient_norm_classification"
    np.testing.assert_allclose(changed[name], plain[name], rtol=1e-5)
    assert abs(changed[name] / weighted[name] - 1) > 0.05
    np.testing.assert_allclose(changed["loss_imbalance"], weighted["loss_imbalance"], rtol=1e-6)


def test_moving_average_of_the_proportions():
    options = {"proportions": "moving_average", "proportions_decay": 0.9}
    state, _ = train(*make(**options)[:2], BATCHES[:2])
    shares = []
    for one in BATCHES[:2]:
        counts = np.bincount(one["category"], one["category_mask"], minlength=K)
        shares.append(counts / counts.sum())
    np.testing.assert_allclose(state.proportions, 0.9 * shares[0] + 0.1 * shares[1], rtol=1e-5)


def test_a_batch_without_categories_leaves_the_moving_average_alone():
    start = np.full(K, 1 / K)
    unlabelled = batch(category_mask=np.zeros(8, np.float32))
    for batches in ([unlabelled], [BATCHES[0], unlabelled]):
        expected, _ = train(*make(proportions="moving_average")[:2], batches[:-1])
        after, _ = train(*make(proportions="moving_average")[:2], batches)
        np.testing.assert_array_equal(after.proportions, expected.proportions)
        np.testing.assert_allclose(after.proportions.sum(), 1, rtol=1e-6)
    assert not np.allclose(after.proportions, start)


def test_weights_in_use_carry_no_norms_that_were_not_taken():
    _, (values,) = train(*make(method="constant")[:2], BATCHES[:1])
    assert "gradient_norm_regression" not in values and "coefficient_regression" in values


def test_biases_and_norms_alone_may_train():
    state, step, _ = make(freeze=["kernel", "embedding"])
    state, values = step(state, BATCHES[0])
    assert np.isfinite(values["loss_regression"])


def test_one_task_alone_needs_no_second_head():
    state, step, predict = make(tasks=TASKS[:1], method="single_task")
    state, values = step(state, BATCHES[0])
    assert set(predict(state, BATCHES[0])) == {"regression"}
    assert "loss_classification" not in values and np.isfinite(values["loss_regression"])


@pytest.mark.parametrize("warmup", [0, 7, 100])
def test_learning_rates_are_those_of_optax(warmup):
    schedule = training.make_optimizers(
        total_steps=90, learning_rate=0.5, head_learning_rate=0.1, warmup_steps=warmup
    ).learning_rate
    short = min(warmup, 9)
    parts = [optax.linear_schedule(0.5 / max(short, 1), 0.5, max(short - 1, 1))]
    parts.append(optax.cosine_decay_schedule(0.5, 90 - short))
    known = optax.join_schedules(parts, [short])
    steps = range(100)
    found, expected = (np.array([float(one(step)) for step in steps]) for one in (schedule, known))
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_learning_rates_warm_up_and_end_at_zero():
    schedule = training.make_optimizers(
        total_steps=1000, learning_rate=0.5, head_learning_rate=0.1
    ).learning_rate
    found = [float(schedule(step)) for step in (0, 50, 100, 550, 1000)]
    np.testing.assert_allclose(found, [0.005, 0.255, 0.5, 0.25, 0], atol=1e-6)


def test_a_longer_run_has_the_rates_of_the_shorter_one_up_to_its_end():
    def rates(steps, total, *extensions):
        schedule = training.make_optimizers(
            total_steps=total, extensions=extensions, learning_rate=0.5, head_learning_rate=0.1
        ).learning_rate
        return np.array([float(schedule(step)) for step in steps])

    before, beyond = range(0, 200, 7), range(200, 400, 7)
    for how in ("stretch", "restart"):
        found = rates(before, 200, (400, how), (500, "restart"))
        np.testing.assert_array_equal(found, rates(before, 200))
    np.testing.assert_array_equal(rates(beyond, 200, (400, "stretch")), rates(beyond, 400))
    anew = [step - 200 for step in beyond]
    np.testing.assert_array_equal(rates(beyond, 200, (400, "restart")), rates(anew, 200))
    assert rates([499], 200, (400, "stretch"), (500, "restart"))[0] < 1e-3


def test_options_out_of_range_are_errors():
    with pytest.raises(ValueError, match="unknown pooling 'cls'"):
        training.StepOptions(pooling="cls", num_classes=K)
    with pytest.raises(ValueError, match="num_classes must be at least 2, not 1"):
        training.StepOptions(pooling="first", num_classes=1)
    with pytest.raises(ValueError, match="proportions_decay must be in"):
        make(proportions_decay=1.5)
    with pytest.raises(ValueError, match="skip_spikes must be at least 0, not nan"):
        make(skip_spikes=float("nan"))
    with pytest.raises(ValueError, match="microbatches must be at least 1, not 0"):
        make(microbatches=0)
    with pytest.raises(ValueError, match="unknown gradient scope 'head'"):
        make(scope="head")
    with pytest.raises(ValueError, match="unknown class proportions 'ema'"):
        make(proportions="ema")
    state, step, _ = make(microbatches=3)
    with pytest.raises(ValueError, match="8 rows does not divide into 3 microbatches"):
        step(state, BATCHES[0])
