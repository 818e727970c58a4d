"""The closed-form nearest points: on the boundary, and no point of the other class is nearer."""

import numpy as np
import pytest
import torch

from skboundary import datasets

MAKERS = {
    "linear": lambda: datasets.make_linear(40, 5, random_state=0),
    "circle": lambda: datasets.make_circle(40, random_state=0),
    "sphere": lambda: datasets.make_sphere(40, 4, random_state=0),
    "xor": lambda: datasets.make_xor(40, random_state=0),
    "checkerboard": lambda: datasets.make_checkerboard(40, random_state=0),
}


def difference(problem, X):
    logits = problem.module(torch.from_numpy(X))
    return (logits[:, 1] - logits[:, 0]).numpy()


@pytest.mark.parametrize("name", MAKERS)
def test_nearest_points_lie_on_the_boundary_and_no_others_are_nearer(name):
    problem = MAKERS[name]()
    X = problem.data
    points = problem.nearest(X)
    assert np.abs(difference(problem, points)).max() < 1e-12
    assert np.array_equal(problem.target, difference(problem, X) > 0)
    # no point within a slightly smaller distance has the other class
    rng = np.random.RandomState(1)
    distance = np.linalg.norm(points - X, axis=1)
    for _ in range(300):
        step = rng.standard_normal(X.shape)
        step *= 0.999 * (distance / np.linalg.norm(step, axis=1))[:, None]
        assert np.array_equal(difference(problem, X + step) > 0, problem.target)
    beyond = X + 1.001 * (points - X)
    assert np.array_equal(difference(problem, beyond) > 0, 1 - problem.target)


@pytest.mark.parametrize("name", MAKERS)
def test_same_seed_gives_same_problem(name):
    assert np.array_equal(MAKERS[name]().data, MAKERS[name]().data)
    for dtype in (torch.float32, torch.float64):
        assert MAKERS[name]().module(torch.from_numpy(MAKERS[name]().data).to(dtype)).dtype == dtype


def test_slope_of_the_hyperplane():
    problem = datasets.make_linear(slope=7.0, random_state=1)
    assert np.linalg.norm(problem.weights) == pytest.approx(7)
