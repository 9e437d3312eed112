"""The engine's passes over a trunk that is recorded: no task's gradient is ever whole.

Backward, every loss goes through the trunk to its matrices' outputs and to the parameters that
are in no matrix; `dwa_jax.records` makes Gramian and mixture of that.
Axis letters: N tasks, n tokens, M parts of a batch.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dwa_jax import paths, records
from dwa_jax.passes import Accumulated, Whole, mix, select
from dwa_jax.records import RecordedTrunk, Site


class Norms(NamedTuple):
    """How a recorded trunk's Gramian is found.

    Attributes:
      kind: "exact"; "sketch", an estimate without bias, by random signs; "trees", one whole
        gradient a task, which is the definition.
      columns: k of a sketch.
      key: of its signs, another one at every step.
      spread: whether rows are spread over devices, so that what is summed over them travels.
    """

    kind: str
    columns: int = 16
    key: jax.Array | None = None
    spread: bool = False


def plan(
    trunk: RecordedTrunk, theta: Any, batch: Any, losses: int, norms: Norms, *, additive: bool
) -> dict[Site, str] | None:
    """Decides from shapes alone how each matrix's inner products are found.

    Args:
      trunk: any.
      theta: its parameters that train; shapes are enough.
      batch: a batch, or a part of it; likewise.
      losses: of how many losses gradients are needed.
      norms: what is asked for.
      additive: whether the batch comes in parts.

    Returns:
      {site: way}, see `records.choose_way`; None where whole gradients are to be formed: because
      they are asked for, or there is one loss, or exact norms of a batch in parts, or the
      outputs of all matrices are more numbers than the parameters, so that records would
      hold more memory than gradients do.
    """
    if norms.kind == "trees" or losses == 1 or (norms.kind == "exact" and additive):
        return None
    sites = trunk.sites(theta, batch)
    outputs = sum(math.prod(site.probe) for site in sites)
    if not sites or outputs > sum(leaf.size for leaf in jax.tree.leaves(theta)):
        return None
    columns = norms.columns if norms.kind == "sketch" else 0
    return {site: records.choose_way(site, losses, columns, additive=additive) for site in sites}


class Recorded(Whole):
    """A pass forward that is recorded, over a batch in one piece."""

    def __init__(
        self,
        parts: tuple,
        batch: Any,
        num_tasks: int,
        rows: Sequence[int],
        plan: dict[Site, str],
        norms: Norms,
    ):
        trunk, heads, theta, psi, phi = parts
        self.rows, self.num_tasks = rows, num_tasks
        self.plan, self.norms = plan, norms
        self.leaves = paths.flatten(theta)
        covered = _covered(plan, self.leaves)
        rest = {path: leaf for path, leaf in self.leaves.items() if path not in covered}
        probes = {site.name: jnp.zeros(site.probe, site.dtype) for site in plan}

        def run(probes, rest):
            return trunk.run(paths.unflatten(self.leaves | rest), probes, batch)

        h, self.recorded_vjp, self.inputs = jax.vjp(run, probes, rest, has_aux=True)
        self._at(h, batch, heads, psi, phi)

    def backward(self) -> tuple[list[records.Record], dict]:
        """Takes every needed loss back: (records, {path: gradients of what is in no matrix})."""
        sites = list(self.plan)

        def pull(row):
            bars, rest = self.recorded_vjp(self._at_h(row))
            # Apart before losses are stacked, or every layer is copied.
            return [bar for _, _, bar in records.apart(sites, bars)], rest

        passed = self._every(pull)
        if isinstance(passed, list):
            bars = [list(one) for one in zip(*[bars for bars, _ in passed], strict=True)]
            rest = {path: [one[path] for _, one in passed] for path in passed[0][1]}
        else:
            bars, rest = passed
        given = records.apart(sites, self.inputs)
        found = [records.Record(*one, bar) for one, bar in zip(given, bars, strict=True)]
        return found, rest

    def signs(self) -> dict:
        """Draws the signs of the matrices that are sketched."""
        sketched = [site for site, way in self.plan.items() if way == "sketch"]
        if not sketched:
            return {}
        return records.signs(self.norms.key, sketched, self.norms.columns, jnp.float32)

    def scoped(self, scope: str) -> tuple[jax.Array, Callable]:
        found, rest = self.backward()
        needed = self._needed()
        rows, tasks = [needed.index(row) for row in self.rows], range(self.num_tasks)
        drawn, kept, products = self.signs(), {}, []

        def add(features):
            chosen = select(features, rows)
            products.append(records.inner(chosen, chosen))

        for gradients in rest.values():
            add(gradients)
        for index, record in enumerate(found):
            way = self.plan[record.site]
            if way == "ghost":
                products.append(records.ghost(record, rows))
                continue
            table = 0
            if way == "rows" and self.norms.spread:
                # The same inner products from fewer numbers, where the table has less rows.
                rows_of_table = self.leaves[record.site.path].shape[-2]
                table = rows_of_table if rows_of_table < record.site.tokens else 0
            signs = drawn.get((record.site.name, record.layer))
            parts = records.features(record, way, signs, table)
            for part in parts:
                add(part)
            if way == "direct":
                kept[index] = parts

        def theta_of(coefficients):
            _, psi, phi = self._at_heads(coefficients)
            whole = {
                path: mix(coefficients, select(gradients, tasks))
                for path, gradients in rest.items()
            }
            mixed = [
                (record, records.gradient(record, coefficients, tasks, kept.get(index)))
                for index, record in enumerate(found)
            ]
            return paths.unflatten(whole | _assembled(mixed, self.leaves)), psi, phi

        return records.matrix_record(_sum(products)), theta_of


class Sketched(Accumulated):
    """A batch in parts: sketches add up, and a second pass over the parts is the mixture's."""

    def __init__(
        self,
        parts: tuple,
        batch: Any,
        num_tasks: int,
        rows: Sequence[int],
        trunk: RecordedTrunk,
        plan: dict[Site, str],
        norms: Norms,
    ):
        self.parts, self.batch = parts, batch
        self.rows, self.num_tasks = rows, num_tasks

        def forward(part):
            run = Recorded((trunk, *parts[1:]), part, num_tasks, rows, plan, norms)
            found, rest = run.backward()
            # The same signs for every part.
            drawn = records.signs(norms.key, list(plan), norms.columns, jnp.float32)
            features: dict[tuple, Any] = {(path,): one for path, one in rest.items()}
            for record in found:
                where = record.site.name, record.layer
                table = run.leaves[record.site.path].shape[-2]
                for index, one in enumerate(
                    records.features(record, plan[record.site], drawn[where], table)
                ):
                    features[*where, index] = one
            named = {str(key): one for key, one in features.items()}
            return run.losses, run.aux, {k: run._compared(f) for k, f in named.items()}

        self.losses, self.aux, self.features = self._sum(forward)

    def scoped(self, scope: str) -> tuple[jax.Array, Callable]:
        products = [records.inner(one, one) for one in self.features.values()]
        return records.matrix_record(_sum(products)), self.mix_at_representation


def _sum(products):
    return functools.reduce(functools.partial(jax.tree.map, jnp.add), products)


def _covered(plan, leaves):
    # Which parameters records stand for; each layer of them once.
    seen: dict[str, set] = {}
    for site in plan:
        layers = set(site.layers or (None,))
        for path in (site.path, site.bias):
            if path is not None and seen.setdefault(path, set()) & layers:
                raise ValueError(f"{path} is used at two places, which no record stands for")
            if path is not None:
                seen[path] |= layers
    for path, layers in seen.items():
        missing = [] if None in layers else sorted({*range(leaves[path].shape[0])} - layers)
        if missing:
            raise ValueError(f"no record stands for the layers {missing} of {path}")
    return set(seen)


def _assembled(mixed, leaves):
    # Layers into their stacks, tokens into their rows of a table.
    found: dict[str, dict] = {}
    for record, gradients in mixed:
        for path, gradient in gradients.items():
            like = leaves[path]
            gradient = gradient.astype(like.dtype)
            if record.site.kind == "embedding":
                shape = like.shape if record.layer is None else like.shape[1:]
                gradient = jnp.zeros(shape, like.dtype).at[record.given].add(gradient)
            found.setdefault(path, {})[record.layer] = gradient
    return {
        path: layers[None] if None in layers else jnp.stack([layers[i] for i in sorted(layers)])
        for path, layers in found.items()
    }
