"""Every method that TorchJD has too, side by side with it in float64.

The coefficients here are computed in float32, from Jacobians at scales 1e-6 to 1e6. What is
compared is the direction they mix, relative to the gradients that go into it.
"""

import itertools

import jax
import numpy as np
import pytest
import torch
from scipy import optimize
from torchjd import aggregation, scalarization
from torchjd.linalg import DualConeProjector

from tests.weighting import cases

pytestmark = pytest.mark.slow

NUM_TASKS = (2, 3, 6, 12)


class Projector(DualConeProjector):
    """The projector TorchJD defines, by non-negative least squares instead of quadprog."""

    def __call__(self, U, G):
        gramian = G.numpy() / max(np.trace(G.numpy()), 1e-300) + 1e-4 * np.eye(len(G))
        factor = np.linalg.cholesky(gramian).T

        def project(u):
            return u + optimize.nnls(factor, -factor @ u)[0]

        return torch.as_tensor(np.apply_along_axis(project, -1, U.numpy()))


def reference(aggregator, jacobian):
    return aggregator(torch.tensor(jacobian)).numpy()


def assert_directions_agree(ours, theirs, jacobian, tolerance=1e-4):
    direction = ours @ jacobian
    size = np.max(np.abs(ours) * np.linalg.norm(jacobian, axis=1)) + np.linalg.norm(theirs)
    # Where gradients cancel, either side may return rounding.
    size = max(size, 1e-3 * np.linalg.norm(jacobian))
    assert np.linalg.norm(direction - theirs) <= tolerance * size


METHODS = {
    "imtl_g": aggregation.IMTLG,
    "config_mtl": aggregation.ConFIG,
    "aligned_mtl": aggregation.AlignedMTL,
    "upgrad": lambda: aggregation.UPGrad(projector=Projector()),
    "dualproj": lambda: aggregation.DualProj(projector=Projector()),
}


@pytest.mark.parametrize("num_tasks", NUM_TASKS)
@pytest.mark.parametrize("name", METHODS)
def test_direction_on_generic_jacobians(name, num_tasks):
    jacobians = cases.generic(num_tasks)
    ours = cases.coefficients(name, cases.gramians(jacobians))
    for one, jacobian in zip(ours, jacobians, strict=True):
        assert_directions_agree(one, reference(METHODS[name](), jacobian), jacobian)


@pytest.mark.parametrize("name", METHODS)
def test_direction_of_many_tasks(name):
    # With more parameters than tasks, as gradients have: the Gramian in float32 tells no more.
    rng = np.random.default_rng(0)
    jacobians = rng.normal(size=(4, 32, 128)) * np.exp(rng.normal(size=(4, 32, 1)))
    jacobians[1::2] -= 0.8 * jacobians[1::2].mean(1, keepdims=True)
    ours = cases.coefficients(name, cases.gramians(jacobians))
    for one, jacobian in zip(ours, jacobians, strict=True):
        assert_directions_agree(one, reference(METHODS[name](), jacobian), jacobian)


@pytest.mark.parametrize("num_tasks", [2, 3])
@pytest.mark.parametrize("name", METHODS)
def test_direction_on_dependent_and_vanishing_gradients(name, num_tasks):
    jacobians = cases.degenerate(num_tasks)
    # Ten orders between gradients are more than TorchJD's float64 Gramian holds.
    del jacobians["far_apart"]
    if name == "imtl_g":
        # Least squares for unit gradients here, for the gradients themselves there.
        del jacobians["opposed_unequal"], jacobians["one_line"]
    gramians = cases.gramians(np.stack(list(jacobians.values())))
    ours = cases.coefficients(name, gramians)
    for one, (kind, jacobian) in zip(ours, jacobians.items(), strict=True):
        theirs = reference(METHODS[name](), jacobian)
        if name == "imtl_g" and kind == "parallel":
            # The same direction; its length is a matter of convention.
            direction = one @ jacobian
            theirs = theirs * np.linalg.norm(direction) / np.linalg.norm(theirs)
        assert_directions_agree(one, theirs, jacobian)


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_aligned_mtl_with_each_scale(scale):
    jacobians = cases.generic(3)
    ours = cases.coefficients("aligned_mtl", cases.gramians(jacobians), scale=scale)
    for one, jacobian in zip(ours, jacobians, strict=True):
        theirs = reference(aggregation.AlignedMTL(scale_mode=scale), jacobian)
        assert_directions_agree(one, theirs, jacobian)


@pytest.mark.parametrize("num_tasks", NUM_TASKS)
def test_mgda_is_no_longer_than_frank_wolfe_leaves_it(num_tasks):
    jacobians = cases.generic(num_tasks)
    ours = cases.coefficients("mgda", cases.gramians(jacobians))
    for one, jacobian in zip(ours, jacobians, strict=True):
        jacobian = jacobian / np.linalg.norm(jacobian)
        theirs = reference(aggregation.MGDA(epsilon=1e-6), jacobian)
        assert np.linalg.norm(one @ jacobian) <= np.linalg.norm(theirs) * (1 + 1e-5)


@pytest.mark.parametrize(("num_tasks", "alpha"), [(2, 1.0), (3, 0.5), (3, 1.0), (3, 2.0), (6, 1.0)])
def test_fairgrad(num_tasks, alpha):
    # Even ones at scale 1: TorchJD's least squares neither rescales nor converges when
    # gradients nearly cancel.
    jacobians = cases.generic(num_tasks)[::2]
    jacobians = jacobians / np.linalg.norm(jacobians, axis=(1, 2), keepdims=True)
    ours = cases.coefficients("fairgrad", cases.gramians(jacobians), alpha=alpha)
    for one, jacobian in zip(ours, jacobians, strict=True):
        theirs = reference(aggregation.FairGrad(alpha=alpha), jacobian)
        assert_directions_agree(one, theirs, jacobian, tolerance=1e-3)


def orders(key, num_tasks):
    """The order in which each task meets the others, as the method draws it from its key."""
    drawn = jax.random.split(jax.random.split(key)[1], num_tasks)
    return [np.asarray(jax.random.permutation(one, num_tasks)) for one in drawn]


@pytest.mark.parametrize("num_tasks", NUM_TASKS)
def test_pcgrad_in_the_same_order(num_tasks, monkeypatch):
    jacobians = cases.generic(num_tasks)
    ours = cases.coefficients("pcgrad", cases.gramians(jacobians))
    for one, jacobian in zip(ours, jacobians, strict=True):
        draws = iter(orders(jax.random.key(0), num_tasks))
        monkeypatch.setattr(torch, "randperm", lambda _, draws=draws: torch.tensor(next(draws)))
        assert_directions_agree(one, reference(aggregation.PCGrad(), jacobian), jacobian)


@pytest.mark.parametrize("num_tasks", NUM_TASKS)
def test_gradvac_over_several_steps_in_the_same_order(num_tasks, monkeypatch):
    method, variables, state = cases.first("gradvac", num_tasks)
    weigh = jax.jit(method.weigh)
    theirs = aggregation.GradVac(eps=0.0)
    for jacobian in cases.generic(num_tasks, count=10):
        met = [
            [j - (j > i) for j in order if j != i]
            for i, order in enumerate(orders(state.key, num_tasks))
        ]
        draws = iter(met)
        monkeypatch.setattr(torch, "randperm", lambda _, draws=draws: torch.tensor(next(draws)))
        step = cases.signals(np.ones(num_tasks), jacobian @ jacobian.T)
        result = weigh(variables, state, step)
        state = result.state
        ours = np.asarray(result.coefficients, np.float64)
        assert_directions_agree(ours, reference(theirs, jacobian), jacobian)


LOSSES = np.array([0.7, 0.1, 2.5])


@pytest.mark.parametrize(
    ("name", "options", "scalarizer"),
    [
        ("geometric_mean", {}, scalarization.GeometricMean()),
        ("stch", {}, scalarization.STCH(mu=1.0)),
        ("stch", {"mu": 0.01}, scalarization.STCH(mu=0.01)),
        (
            "stch",
            {"mu": 0.1, "weights": (0.2, 0.5, 0.3), "reference": (0.1, 0.0, 0.2)},
            scalarization.STCH(
                mu=0.1, weights=torch.tensor([0.2, 0.5, 0.3]), reference=torch.tensor([0.1, 0, 0.2])
            ),
        ),
        ("uncertainty", {}, scalarization.UW(3)),
        ("imtl_l", {}, scalarization.IMTLL(3)),
    ],
)
def test_value_and_coefficients_of_a_scalarisation(name, options, scalarizer):
    method, variables, state = cases.first(name, 3, **options)
    ours = method.weigh(variables, state, cases.signals(LOSSES))
    losses = torch.tensor(LOSSES, dtype=torch.float32, requires_grad=True)
    value = scalarizer(losses)
    value.backward()
    np.testing.assert_allclose(ours.objective, value.item(), rtol=1e-5)
    np.testing.assert_allclose(ours.coefficients, losses.grad, rtol=1e-4, atol=1e-9)


def test_famo_follows_when_the_next_batch_is_the_same_one():
    losses = np.random.default_rng(0).lognormal(size=(12, 3)).astype(np.float32)
    method, variables, state = cases.first("famo", 3)
    weigh, theirs = jax.jit(method.weigh), scalarization.FAMO(3)
    for before, after in itertools.pairwise(losses):
        result = weigh(variables, state, cases.signals(before))
        state = result.state
        values = torch.tensor(before, requires_grad=True)
        value = theirs(values)
        value.backward()
        np.testing.assert_allclose(result.coefficients, values.grad, rtol=1e-4)
        np.testing.assert_allclose(result.objective, value.item(), rtol=1e-3, atol=1e-5)
        theirs.update(torch.tensor(after))


def test_dynamic_weight_average_with_epochs_of_three_steps():
    losses = np.random.default_rng(0).lognormal(size=(12, 3)).astype(np.float32)
    method, variables, state = cases.first("dynamic_weight_average", 3, period=3)
    weigh, theirs = jax.jit(method.weigh), scalarization.DWA()
    for step, values in enumerate(losses):
        result = weigh(variables, state, cases.signals(values))
        state = result.state
        values = torch.tensor(values, requires_grad=True)
        theirs(values).backward()
        np.testing.assert_allclose(result.coefficients, values.grad, rtol=1e-5)
        if step % 3 == 2:
            theirs.step()
