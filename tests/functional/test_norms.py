"""The nearest boundary point in the norms 1 and inf, against linear programs and closed forms."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from skboundary.functional._projection import project, shrink
from skboundary.functional.nearest_boundary import nearest_boundary

NORMS = [1, math.inf]
DUAL = {1: math.inf, 2: 2, math.inf: 1}


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def linear_program(w, c, low, high, norm):
    """Least norm of d with w.d >= c in the box, None where there is no such d.

    The norm 1 splits d into positive and negative parts, the norm inf bounds all |d| by a variable.
    """
    n = len(w)
    if norm == 1:
        limits = [*zip([0] * n, np.maximum(high, 0)), *zip([0] * n, np.maximum(-low, 0))]
        found = linprog(np.ones(2 * n), A_ub=-np.r_[w, -w][None], b_ub=[-c], bounds=limits)
    else:
        eye, one = np.eye(n), np.ones((n, 1))
        rows = np.block([[eye, -one], [-eye, -one], [-w[None], np.zeros((1, 1))]])
        limits = [*zip(low, high), (0, None)]
        right = np.r_[np.zeros(2 * n), -c]
        found = linprog(np.r_[np.zeros(n), 1], A_ub=rows, b_ub=right, bounds=limits)
    return found.fun if found.status == 0 else None


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("sign", [1, -1])
def test_steps_to_a_plane_equal_a_linear_program(norm, sign):
    w, c = gaussian(60, 7), sign * gaussian(60, seed=1).abs()
    low, high = -gaussian(60, 7, seed=2).abs(), gaussian(60, 7, seed=3).abs()
    low[:20], high[10:30] = -torch.inf, torch.inf
    w[::9, 2] = 0
    low[::5, 1] = 0
    d = project(w, c, low, high, norm)
    assert (d >= low - 1e-12).all() and (d <= high + 1e-12).all()
    n_apart = 0
    for i in range(60):
        best = linear_program(*(v[i].numpy() for v in (sign * w, sign * c, low, high)), norm)
        if best is None:  # as far as the box allows
            furthest = torch.where(w[i] > 0, sign * high[i], sign * low[i])
            furthest = torch.where(sign * w[i] > 0, high[i], low[i]).where(w[i] != 0, 0)
            torch.testing.assert_close(w[i] @ d[i], w[i] @ furthest)
            n_apart += 1
        else:
            torch.testing.assert_close(w[i] @ d[i], c[i], rtol=1e-5, atol=1e-9)
            assert abs(float(d[i].norm(norm)) - best) < 1e-5 * max(1, best)
    assert n_apart < 30


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_shrinking_finds_the_nearest_point_of_the_ball(norm, dtype):
    """It has the length, and no other point of the ball has a shorter distance."""
    d = 3 * gaussian(50, 6, dtype=dtype)
    radius = gaussian(50, seed=1, dtype=dtype).abs() + 0.1
    small = shrink(d, radius, norm)
    inside = d.norm(norm, dim=1) <= radius
    expected = radius if norm == 2 else torch.where(inside, d.norm(norm, dim=1), radius)
    torch.testing.assert_close(small.norm(norm, dim=1), expected)
    others = gaussian(2000, 50, 6, seed=2, dtype=dtype)
    others *= (radius / others.norm(norm, dim=2).clamp(min=1e-9))[:, :, None]
    distance = (others - d).norm(dim=2).amin(0)
    assert ((small - d).norm(dim=1) <= distance + 1e-5).all()


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("effort", ["fast", "balanced", 12])
def test_the_distance_of_a_plane_is_the_margin_over_the_dual_norm(norm, effort, dtype, scale):
    w, x = gaussian(9, dtype=dtype), scale * gaussian(40, 9, seed=1, dtype=dtype)
    weight = torch.stack([-w, w], 1) / scale
    out = x @ weight
    found = nearest_boundary(lambda x: x @ weight, x, out.argmax(1), effort=effort, norm=norm)
    assert found.success.all()
    margin = (out[:, 0] - out[:, 1]).abs() + 1.5e-3  # the point lies 1 to 2 thousandths beyond
    slope = (weight[:, 0] - weight[:, 1]).norm(DUAL[norm])
    distance = (found.points - x).norm(norm, dim=1)
    assert ((distance - margin / slope).abs() <= 1e-3 / slope + 1e-4 * distance).all()


@pytest.mark.parametrize("norm", NORMS)
def test_the_distance_of_a_plane_in_a_box_equals_a_linear_program(norm):
    w = gaussian(9)
    x = torch.rand(40, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    level = (x @ w).median() + 0.01  # on which no sample lies
    logits = lambda x: torch.stack([level - x @ w, x @ w - level], 1)
    source = logits(x).argmax(1)
    bounds = torch.tensor(0.0), torch.tensor(1.0)
    found = nearest_boundary(logits, x, source, bounds=bounds, norm=norm)
    assert found.success.all() and (found.points >= 0).all() and (found.points <= 1).all()
    for i in range(40):
        sign = 1 if source[i] == 0 else -1
        need = float(sign * (level - x[i] @ w))
        least, most = (
            linear_program(
                (sign * w).numpy(), need + beyond, (-x[i]).numpy(), (1 - x[i]).numpy(), norm
            )
            for beyond in (0.5e-3, 1.001e-3)
        )
        # the last step is along a ray, which leaves the path of shortest steps in the box
        assert least - 1e-6 < (found.points[i] - x[i]).norm(norm) < most * 1.001


@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_point_of_a_circle(norm):
    """Against all its points, as the least of 100,000 distances."""
    logits = lambda x: torch.stack([4 - x.square().sum(1), x.square().sum(1) - 4], 1)
    x = 0.8 * gaussian(30, 2, seed=4)
    source = logits(x).argmax(1)
    angle = torch.linspace(0, 2 * math.pi, 100_001, dtype=torch.float64)
    circle = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    exact = (circle - x[:, None]).norm(norm, dim=2).amin(1)
    found = nearest_boundary(logits, x, source, effort="thorough", norm=norm)
    excess = (found.points - x).norm(norm, dim=1) - exact
    assert found.success.all() and excess.min() > -1e-6
    assert excess.median() < 1e-3 and excess.max() < 0.15 * exact.max()


def test_norms_of_no_search():
    with pytest.raises(ValueError, match=r"norm=3: use one of \[1, 2, inf\]"):
        nearest_boundary(lambda x: x, torch.ones(1, 2), torch.tensor([0]), norm=3)
