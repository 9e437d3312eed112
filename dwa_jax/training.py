"""State and the jitted train step.

theta: shared trainable parameters; psi: heads; phi: what the losses and the weighting
learn themselves. Axis letters: B rows, T tokens, N tasks,
K categories, M microbatches.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from dwa_jax import gradients, guard, heads, losses, sharding
from dwa_jax.backbones import Trunk
from dwa_jax.backbones.dropout import quick_key
from dwa_jax.backbones.products import is_cpu
from dwa_jax.optimizers import OptimizerPlan, Optimizers
from dwa_jax.optimizers import make_optimizers as make_optimizers
from dwa_jax.passes import SplitTrunk
from dwa_jax.recorded import plan as plan_of_records
from dwa_jax.records import RecordedTrunk, Site
from dwa_jax.trunk import make_recorded_trunk, make_split_trunk, make_trunk, make_working_copy
from dwa_jax.weighting import Signals, Weighting, decide

# What is folded into a run's key for the signs of sketches: no step's number.
_SIGNS = 2**32 - 1


class Task(NamedTuple):
    """One task: a head of `outputs` numbers, its loss, and which rows have its label.

    Attributes:
      name: key of its parameters and of its numbers in the log.
      outputs: how many numbers its head gives a row.
      loss: a `losses.TaskLoss`.
      mask: the batch's key of the (B,) mask of rows that carry its label.
    """

    name: str
    outputs: int
    loss: losses.TaskLoss
    mask: str


class TrainState(NamedTuple):
    """Everything that a step reads and writes; a tree of arrays.

    Attributes:
      step: () batches seen; the order of the data follows it.
      theta: shared parameters that train.
      frozen: shared parameters that do not.
      psi: {task: head parameters}.
      phi: {"loss": {task: variables}, "weighting": variables}.
      weighting: what the weighting carries.
      proportions: (K,) class proportions kept across batches.
      optimizers: {"theta", "psi", "phi"}: optax states.
      guard: counts of the updates left out; a step that leaves its update out changes
        nothing but this and `step`.
      key: of the run's dropout.
    """

    step: jax.Array
    theta: Any
    frozen: Any
    psi: Any
    phi: Any
    weighting: Any
    proportions: jax.Array
    optimizers: Any
    guard: guard.Guard
    key: jax.Array


def init_state(
    key: jax.Array,
    theta: Any,
    frozen: Any,
    *,
    family: str,
    width: int,
    tasks: Sequence[Task],
    weighting: Weighting,
    optimizers: Optimizers,
    num_classes: int,
    proportions: jax.Array | np.ndarray | None = None,
    starts: Mapping[str, np.ndarray | None] | None = None,
    spike_window: int = 0,
) -> TrainState:
    """Makes a run's first state.

    Args:
      key: split between heads, weighting and dropout.
      theta: shared trainable parameters; held in float32 or wider.
      frozen: the others.
      family: of the backbone; gives the heads' shape.
      width: D of the trunk.
      tasks: the N tasks, in the order of every (N,) array.
      weighting: the method.
      optimizers: the three chains.
      num_classes: K.
      proportions: (K,) the training split's class proportions; uniform by default.
      starts: {task: (outputs,) what its head gives every text at first, or None for zeros}, see
        `heads.start_at`; a task that is not named has a head as it is drawn.
      spike_window: last values of every loss and of the trunk's gradient norm that are
        kept for `skip_spikes` of the step; 0: none.

    Raises:
      ValueError: an option is out of its range.
    """
    # Small updates are lost in half precision; the trunk casts to what it computes in.
    theta = jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), theta)
    head_key, weighting_key, dropout_key = jax.random.split(key, 3)
    head_keys = jax.random.split(head_key, len(tasks))
    psi = {
        task.name: heads.init(head_keys[index], family, width, task.outputs)
        for index, task in enumerate(tasks)
    }
    psi |= {
        name: heads.start_at(psi[name], family, outputs) for name, outputs in (starts or {}).items()
    }
    variables, carried = weighting.init(weighting_key)
    phi = {"loss": {task.name: task.loss.init() for task in tasks}, "weighting": variables}
    if proportions is None:
        proportions = jnp.full((num_classes,), 1 / num_classes)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        theta=theta,
        frozen=frozen,
        psi=psi,
        phi=phi,
        weighting=carried,
        proportions=jnp.asarray(proportions, float),
        optimizers={
            "theta": optimizers.theta.init(theta),
            "psi": optimizers.psi.init(psi),
            "phi": optimizers.phi.init(phi),
        },
        guard=guard.init(len(tasks) + 1, spike_window),
        key=dropout_key,
    )
    # A weakly typed leaf would come out of the first step strongly typed, so that the
    # second step compiles again; and a buffer that two leaves share cannot be donated.
    small = ("psi", "phi", "weighting", "proportions")
    return state._replace(
        **{
            name: jax.tree.map(lambda x: jnp.array(x, x.dtype, copy=True), getattr(state, name))
            for name in small
        }
    )


def placements(state: TrainState, mesh: Mesh) -> TrainState:
    """Returns where each array of a state belongs: the trunk's and their moments may be split.

    Args:
      state: arrays or shapes.
      mesh: from `sharding.make_mesh`.
    """
    found = sharding.everywhere(state, mesh)
    return found._replace(
        theta=sharding.parameter_shardings(state.theta, mesh),
        frozen=sharding.parameter_shardings(state.frozen, mesh),
        optimizers={
            **found.optimizers,
            "theta": sharding.parameter_shardings(state.optimizers["theta"], mesh),
        },
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepOptions:
    """How a step is taken; a value out of its range is an error as soon as it is given.

    Attributes:
      pooling: one of `heads.POOLINGS`.
      num_classes: K.
      lora_scale: what U V is multiplied by.
      scope: where the Gramian is taken, one of `gradients.SCOPES`.
      gradient_norms: how the Gramian of the scope "trainable" is found, one of
        `gradients.NORMS`: "exact" and "sketch" from what passes through the trunk's matrices,
        "trees" from one whole gradient a task.
      sketch_columns: k of a sketch.
      microbatches: M; the batch is worked through in M parts, with the same result.
      proportions: what p_k is, see `losses.class_proportions`.
      proportions_decay: of the moving average over batches.
      norm_of_cross_entropy: takes the classification's gradient norm of the plain
        cross-entropy instead of the loss that is weighted.
      dropout: false trains without any.
      skip_spikes: leaves out an update whose loss or gradient norm lies more than this
        many standard deviations above the mean of the state's window, if it has one.

    Raises:
      ValueError: an option is out of its range.
    """

    pooling: str
    num_classes: int
    lora_scale: float = 1.0
    scope: str = "trainable"
    gradient_norms: str = "exact"
    sketch_columns: int = 16
    microbatches: int = 1
    proportions: str = "batch"
    proportions_decay: float = 0.99
    norm_of_cross_entropy: bool = False
    dropout: bool = True
    skip_spikes: float = 0.0

    def __post_init__(self) -> None:
        # Here already, because the first step may come long after.
        heads.check_pooling(self.pooling)
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, not {self.num_classes}")
        gradients.check_scope(self.scope)
        gradients.check_norms(self.gradient_norms, self.sketch_columns)
        if self.microbatches < 1:
            raise ValueError(f"microbatches must be at least 1, not {self.microbatches}")
        losses.class_proportions(
            self.proportions, jnp.ones(self.num_classes), jnp.ones(self.num_classes)
        )
        if not 0 <= self.proportions_decay < 1:
            raise ValueError(f"proportions_decay must be in [0, 1), not {self.proportions_decay}")
        if not self.skip_spikes >= 0:
            raise ValueError(f"skip_spikes must be at least 0, not {self.skip_spikes}")


class Step:
    """The train step, (state, batch) -> (state, metrics), jitted with a donated state.

    Its batch is a dict of arrays with B rows: input_ids and attention_mask (B, T), score,
    score_mask, category, category_mask (B,). Its metrics are scalars. An update in which something
    is not finite is left out: "skipped" is 1 at that step.
    """

    def __init__(self, program: Any, optimizers: Optimizers, mesh: Mesh | None = None):
        """
        Args:
          program: from `make_program`.
          optimizers: of the plan that it was made of.
          mesh: of the module, if it has one.
        """
        self.program, self._mesh = program, mesh
        self._numbers = optimizers.numbers

    def __call__(self, state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        return self.program(state, batch, self._given(state))

    def trace(self, state: TrainState, batch: dict) -> Any:
        """Returns the step of arrays or shapes as `jax.jit` traces it."""
        return self.program.trace(state, batch, self._given(state))

    def lower(self, state: TrainState, batch: dict) -> Any:
        """Returns it lowered; what is compiled of it takes the optimizers' numbers as well."""
        return self.program.lower(state, batch, self._given(state))

    def _given(self, state):
        # Once, and not where there are shapes alone: their devices may be no real ones.
        real = not isinstance(state.step, jax.ShapeDtypeStruct | jax.core.Tracer)
        if real and isinstance(self._numbers, np.ndarray):
            numbers = self._numbers.astype(jnp.result_type(float))
            self._numbers = (
                jnp.asarray(numbers)
                if self._mesh is None
                else sharding.put(numbers, sharding.everywhere(numbers, self._mesh))
            )
        return self._numbers


def make_step(
    module: Trunk,
    tasks: Sequence[Task],
    weighting: Weighting,
    optimizers: Optimizers,
    options: StepOptions,
) -> Step:
    """Makes the train step.

    Args:
      module: the backbone; with a mesh, the state is where `placements` puts it.
      tasks: the N tasks; one named "classification" provides the class losses.
      weighting: the method.
      optimizers: the three chains.
      options: how the step is taken.
    """
    program = make_program(module, tasks, weighting, optimizers.plan, options)
    return Step(program, optimizers, module.mesh)


def make_program(
    module: Trunk,
    tasks: Sequence[Task],
    weighting: Weighting,
    plan: OptimizerPlan,
    options: StepOptions,
) -> Any:
    """Makes what `Step` calls: rates and a run's length are arguments, one compilation for all.

    Args:
      module: see `make_step`.
      tasks: likewise.
      weighting: likewise.
      plan: of the optimizers.
      options: how the step is taken.

    Returns:
      The jitted (state, batch, numbers of the optimizers) -> (state, metrics).
    """
    num_classes, microbatches = options.num_classes, options.microbatches
    norm_of_cross_entropy = options.norm_of_cross_entropy
    common: dict[str, Any] = {"pooling": options.pooling, "lora_scale": options.lora_scale}
    num_tasks = len(tasks)
    names = [task.name for task in tasks]
    gramian_rows = _gramian_rows(names, norm_of_cross_entropy)
    trunk = make_working_copy(module, pooling=options.pooling)

    def task_heads(statistics):
        def apply(h, psi, phi, batch):
            rows, _ = batch
            class_losses = jnp.zeros((num_classes,), jnp.promote_types(h.dtype, jnp.float32))
            values = []
            for task in tasks:
                outputs = heads.apply(psi[task.name], h, module.config)
                values.append(task.loss.apply(phi[task.name], outputs, rows, statistics))
                if task.name == "classification":
                    counts = statistics.class_counts.astype(outputs.dtype)
                    class_losses = losses.class_cross_entropy(
                        outputs, rows["category"], rows["category_mask"], counts
                    )
                    if norm_of_cross_entropy:
                        extra = class_losses @ counts / jnp.maximum(counts.sum(), 1)
            if norm_of_cross_entropy and "classification" in names:
                values.append(extra)
            return jnp.stack(values), class_losses

        return _in_all_digits(apply)

    def step(state: TrainState, batch: dict, numbers: jax.Array) -> tuple[TrainState, dict]:
        optimizers = plan.make(numbers)
        num_scores, counts = _in_all_digits(losses.count_labels)(batch, num_classes)
        own = losses.class_proportions("batch", counts, counts)
        average = state.proportions
        # Whatever happens at certain updates waits for the first one that is made.
        made = state.step - state.guard.skipped
        if options.proportions == "moving_average":
            decay = options.proportions_decay
            moved = decay * average + (1 - decay) * own
            moved = jnp.where(made == 0, own, moved)
            average = jnp.where(counts.sum() > 0, moved, average)
        p = losses.class_proportions(options.proportions, counts, average)
        statistics = losses.Statistics(num_scores, counts, p, 1 / microbatches)
        present = jnp.stack([batch[task.mask].sum() > 0 for task in tasks])

        def weigh(task_losses, gramian, class_losses):
            if gramian is None:
                gramian = jnp.zeros((num_tasks, num_tasks), task_losses.dtype)
            signals = Signals(task_losses, gramian, class_losses, own, present)
            return decide(weighting, state.phi["weighting"], state.weighting, signals)

        key = jax.random.fold_in(state.key, state.step) if options.dropout else None
        if key is not None and not is_cpu(module.platform):
            key = quick_key(key)
        rows = (batch, key)
        if microbatches > 1:
            keys = None if key is None else jax.random.split(key, microbatches)
            rows = (_split_rows(batch, microbatches), keys)

        shared: SplitTrunk | RecordedTrunk = make_recorded_trunk(module, state.frozen, **common)
        if options.scope == "last_layer":
            shared = make_split_trunk(module, state.frozen, **common)
        signs = jax.random.fold_in(jax.random.fold_in(state.key, _SIGNS), state.step)
        result = gradients.mixed_gradients(
            shared,
            task_heads(statistics),
            _in_all_digits(weigh),
            trunk.apart(state.theta),
            state.psi,
            state.phi["loss"],
            rows,
            num_tasks=num_tasks,
            scope=options.scope,
            uses_gramian=weighting.uses_gramian,
            gramian_rows=gramian_rows,
            microbatches=microbatches,
            norms=gradients.Norms(
                options.gradient_norms, options.sketch_columns, signs, module.mesh is not None
            ),
        )
        result = result._replace(theta=trunk.joined(result.theta, state.theta))
        if module.mesh is not None:
            # Before norms and moments are taken of it, each device of its own part.
            where = sharding.parameter_shardings(result.theta, module.mesh)
            kept = jax.lax.with_sharding_constraint(result.theta, where)
            result = result._replace(theta=kept)
        decision = result.weighed
        penalty = jax.grad(
            lambda phi: sum(task.loss.penalty(phi[task.name]) * 1.0 for task in tasks)
        )(state.phi["loss"])
        phi_gradient = {
            "loss": jax.tree.map(jnp.add, result.phi, penalty),
            "weighting": decision.gradient,
        }
        updates, phi_state = optimizers.phi.update(phi_gradient, state.optimizers["phi"], state.phi)
        phi = optax.apply_updates(state.phi, updates)
        phi["loss"] = {task.name: task.loss.project(phi["loss"][task.name]) for task in tasks}
        gradient_norm = optax.tree.norm(result.theta)
        found = (result.losses, decision.coefficients, result.norms)
        good, watch = guard.judge(
            state.guard,
            guard.all_finite(found, result.theta, result.psi, phi_gradient, phi),
            jnp.append(result.losses, gradient_norm),
            jnp.append(present, True),
            sigmas=options.skip_spikes,
        )
        theta, theta_state = optimizers.theta.apply(
            result.theta, state.optimizers["theta"], state.theta, good
        )
        psi, psi_state = optimizers.psi.apply(result.psi, state.optimizers["psi"], state.psi, good)
        small = {"phi": phi, "weighting": decision.state, "proportions": average}
        old = {name: getattr(state, name) for name in small}
        phi_state = guard.keep_if(good, phi_state, state.optimizers["phi"])
        new_state = state._replace(
            step=state.step + 1,
            theta=theta,
            psi=psi,
            optimizers={"theta": theta_state, "psi": psi_state, "phi": phi_state},
            guard=watch,
            **guard.keep_if(good, small, old),
        )
        cross_entropy = _in_all_digits(jnp.matmul)(result.aux, own.astype(result.aux.dtype))
        learning_rate = optimizers.learning_rate(made)
        norms = {"gradient_norm": result.norms} if weighting.uses_gramian else {}
        metrics = _metrics(names, result, norms, cross_entropy, state.phi)
        metrics |= {
            "learning_rate": learning_rate,
            "gradient_norm": gradient_norm,
            "skipped": 1 - good.astype(jnp.int32),
        }
        if module.mesh is not None:
            where = placements(new_state, module.mesh)
            new_state = jax.lax.with_sharding_constraint(new_state, where)
            metrics = sharding.on_all(metrics, module.mesh)
        return new_state, metrics

    return jax.jit(step, donate_argnums=0)


def plan_records(
    module: Trunk,
    state: TrainState,
    tasks: Sequence[Task],
    options: StepOptions,
    rows: int,
    tokens: int,
) -> dict[Site, str] | None:
    """Says how the step finds the inner products of the gradients at each matrix of the trunk.

    Args:
      module: the backbone.
      state: of the run.
      tasks: the N tasks.
      options: of the step.
      rows: B of a batch, or of a part of it where there are microbatches.
      tokens: T.

    Returns:
      {site: way}, see `records.choose_way`; None where the step forms one whole gradient a task.
    """
    if options.scope != "trainable":
        return None
    recorded = make_recorded_trunk(
        module, state.frozen, pooling=options.pooling, lora_scale=options.lora_scale
    )
    one = jax.ShapeDtypeStruct((rows, tokens), jnp.int32)
    batch = ({"input_ids": one, "attention_mask": one}, None)
    names = [task.name for task in tasks]
    count = len({*range(len(names)), *_gramian_rows(names, options.norm_of_cross_entropy)})
    norms = gradients.Norms(options.gradient_norms, options.sketch_columns)
    additive = options.microbatches > 1
    working = make_working_copy(module, pooling=options.pooling)
    theta = jax.eval_shape(working.apart, state.theta)
    return plan_of_records(recorded, theta, batch, count, norms, additive=additive)


def _in_all_digits(function):
    # A GPU multiplies float32 numbers by the first 10 of their 23 bits unless it is told not to.
    def run(*given):
        with jax.default_matmul_precision("highest"):
            return function(*given)

    return run


def _gramian_rows(names, norm_of_cross_entropy):
    # Which loss each task's gradient norm is taken of; one behind the tasks' own is the plain
    # cross-entropy.
    rows = list(range(len(names)))
    if norm_of_cross_entropy and "classification" in names:
        rows[names.index("classification")] = len(names)
    return rows


def _split_rows(batch, microbatches):
    # Row i of every part comes from the i-th stretch of M rows, so that each part
    # still spreads over all devices that the rows are sharded over.
    def split(x):
        if x.shape[0] % microbatches:
            raise ValueError(
                f"a batch of {x.shape[0]} rows does not divide into {microbatches} microbatches"
            )
        return x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(split, batch)


def _metrics(names, result, norms, cross_entropy, phi):
    metrics = {}
    by_task = {
        "coefficient": result.weighed.coefficients,
        **norms,
        **result.weighed.metrics,
    }
    for index, name in enumerate(names):
        if name == "classification":
            metrics["loss_classification"] = cross_entropy
            metrics["loss_imbalance"] = result.losses[index]
        else:
            metrics[f"loss_{name}"] = result.losses[index]
        for label, values in by_task.items():
            if values.ndim:
                metrics[f"{label}_{name}"] = values[index]
    metrics |= {label: value for label, value in by_task.items() if not value.ndim}
    for variables in phi["loss"].values():
        metrics |= variables
    return metrics


class Parameters(Protocol):
    """What predicting needs: a `TrainState`, or a model that is read back without one."""

    @property
    def theta(self) -> Any: ...

    @property
    def frozen(self) -> Any: ...

    @property
    def psi(self) -> Any: ...


def make_predict(
    module: Trunk,
    tasks: Sequence[Task],
    *,
    pooling: str,
    lora_scale: float = 1.0,
    representation: bool = False,
) -> Callable[[Parameters, dict], dict[str, jax.Array]]:
    """Makes the jitted forward pass without dropout, (state, batch) -> {task: (B, outputs)}.

    Args:
      module: a backbone.
      tasks: whose heads are applied.
      pooling: one of `heads.POOLINGS`.
      lora_scale: what U V is multiplied by.
      representation: whether "representation" is there as well, (B, D) pooled hidden states of
        length 1 in float32.
    """
    names = tuple(task.name for task in tasks)
    predict = _predict_program(module, names, pooling, lora_scale, representation)
    return lambda state, batch: predict(state.theta, state.frozen, state.psi, batch)


# Training, the model that comes of it and those that are read back share what was compiled.
@functools.lru_cache(maxsize=16)
def _predict_program(module, names, pooling, lora_scale, representation):
    # Scanned: side by side, layers take several times as long to compile, and are no faster where
    # no backward pass joins them.
    scanned = module.clone(unroll=1)
    trunk = make_trunk(scanned, pooling=pooling, lora_scale=lora_scale)

    @jax.jit
    def predict(theta, frozen, psi, batch):
        h = trunk(theta, frozen, batch, None)
        found = {name: heads.apply(psi[name], h, module.config) for name in names}
        found |= {"representation": _of_length_one(h)} if representation else {}
        # Whoever asks for them, on whichever process, has all of them.
        return found if module.mesh is None else sharding.on_all(found, module.mesh)

    return predict


def _of_length_one(h):
    h = h.astype(jnp.float32)
    return h / jnp.maximum(jnp.linalg.norm(h, axis=1, keepdims=True), 1e-30)
