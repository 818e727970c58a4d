"""Decoupled direction and norm against closed forms."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import pytest
import torch

from skboundary import datasets
from skboundary.functional._margin_problem import CountedNetwork, MarginProblem
from skboundary.functional.ddn import ddn, decoupled_steps
from skboundary.functional.margins import class_margin


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_nearest_point_of_a_sphere_in_any_unit(dtype, unit):
    problem = datasets.make_sphere(60, 5, random_state=0)
    x, source = torch.from_numpy(problem.data).to(dtype), torch.from_numpy(problem.target)
    logits = lambda points: problem.module(points / unit)
    found = ddn(logits, unit * x, source)
    assert found.success.all() and (found.target != source).all()
    margin = class_margin(logits(found.points), found.target)
    assert (margin >= 0.99e-3).all() and (margin <= 2.01e-3).all()
    exact = (torch.from_numpy(problem.nearest(problem.data)) - x).norm(dim=1)
    excess = (found.points / unit - x).norm(dim=1) - exact
    assert excess.min() > -1e-5 and excess.max() < 0.01
    assert found.n_backward.min() > 100


def test_a_target_in_a_box():
    weight = torch.eye(3, dtype=torch.float64)
    x = torch.tensor([[1.0, 0.0, 0.5]], dtype=torch.float64)
    bounds = torch.tensor(0.0).double(), torch.tensor([2.0, 0.7, 2.0]).double()
    source, target = torch.tensor([0]), torch.tensor([1])
    found = ddn(lambda points: points @ weight, x, source, target=target, bounds=bounds)
    assert found.success.all() and torch.equal(found.target, target)
    assert (found.points >= bounds[0]).all() and (found.points <= bounds[1]).all()
    exact = torch.tensor([[0.5, 0.5, 0.5]], dtype=torch.float64)
    assert (found.points - x).norm() < 1.02 * (exact - x).norm()


def test_samples_of_another_class_than_their_source_have_no_success():
    logits = lambda x: torch.stack([-x[:, 0], x[:, 0]], 1)
    x = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    found = ddn(logits, x, torch.tensor([0, 0]), n_steps=5)
    assert found.success.tolist() == [True, False]
    assert torch.equal(found.points[1], x[1])
    assert found.n_backward[1] == 0


def test_decoupled_steps_shorten_the_distance_of_a_target():
    weight = torch.tensor([[-1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    logits = lambda x: x @ weight
    x = torch.tensor([[-1.0, 0.0]], dtype=torch.float64)
    index, wide = torch.tensor([0]), torch.full_like(x, torch.inf)
    goal = lambda out, i: out[:, 1] - out[:, 0]
    aim, at_x = torch.tensor([1e-2]), goal(logits(x), index)
    network = CountedNetwork(logits, x)
    problem = MarginProblem(network, x, index, -wide, wide, aim, goal, at_x)
    far = torch.tensor([[0.1, 3.0]], dtype=torch.float64)  # the nearest point is (0, 0)
    found = decoupled_steps(problem, far, torch.tensor([1]), True, 32)
    assert goal(logits(found), index) > 0 and (found - x).norm() < 1.2
