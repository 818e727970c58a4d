"""The boundary on segments: both sides of one crossing, against dense grids and exact roots."""

import pytest
import torch

from skboundary.boundary._line_search import sides_by_label, sides_by_margin

TOL = 1e-3


def sides(function, n=1, dtype=torch.float64):
    t = torch.linspace(0, 1, 2, dtype=dtype)
    start, end = function(t).expand(n, 2).T
    return sides_by_margin(lambda t, index: function(t), start, end, TOL)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "function, root",
    [
        (lambda t: 1 - 3 * t, 1 / 3),
        (lambda t: 8 * (0.3 - t) * (1.2 + t) ** 5, 0.3),
        (lambda t: torch.tanh(40 * (0.7 - t)), 0.7),
        (lambda t: 0.01 * (0.5 - t), 0.5),
    ],
)
def test_sides_are_a_margin_away_from_the_root(function, root, dtype):
    found = sides(function, 5, dtype)
    assert found.inner.dtype == dtype
    assert (found.inner < root).all() and (root < found.outer).all()
    for side, sign in ((found.inner, 1), (found.outer, -1)):
        assert ((sign * function(side) >= TOL * 0.99) & (sign * function(side) <= TOL * 2.01)).all()
    assert (found.n_evaluations <= 30).all()


def test_both_sides_belong_to_one_crossing():
    function = lambda t: torch.cos(34 * t) - 0.4 * t + 0.1
    assert function(torch.tensor(1.0)) < 0  # crosses several times before
    found = sides(function)
    grid = torch.linspace(found.inner.item(), found.outer.item(), 1001, dtype=torch.float64)
    assert (function(grid).sign().diff() != 0).sum() == 1
    assert abs(function(found.inner)) < 2 * TOL and abs(function(found.outer)) < 2 * TOL


def test_sides_keep_away_from_a_jump():
    found = sides(lambda t: torch.where(t < 0.3, 1.0, -1.0).to(t.dtype))
    assert 0.3 - 2**-14 < found.inner < 0.3 - 2**-16
    assert 0.3 + 2**-16 < found.outer < 0.3 + 2**-14


def test_ends_that_are_on_the_boundary_stay():
    value = torch.tensor([0.5 * TOL, -0.5 * TOL], dtype=torch.float64)
    start, end = value[:1], value[1:]
    found = sides_by_margin(lambda t, index: start + t * (end - start), start, end, TOL)
    assert found.inner == 0 and found.outer == 1


def test_labels_alone_halve_fourteen_times():
    root = torch.tensor([0.1, 1 / 3, 0.999])
    found = sides_by_label(lambda t: t < root, 3, root)
    assert (found.inner < root).all() and (root <= found.outer).all()
    torch.testing.assert_close(found.outer - found.inner, torch.full((3,), 2.0**-14))
    assert found.n_evaluations.tolist() == [14] * 3
