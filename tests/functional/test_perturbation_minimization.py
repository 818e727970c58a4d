"""PM against its closed form on affine networks; its fast start."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math

import pytest
import torch

from skboundary.functional.margins import pairwise_margin
from skboundary.functional.nearest_boundary import nearest_boundary
from skboundary.functional.perturbation_minimization import (
    fast_start,
    minimize_perturbation,
    penalty_for,
)

DTYPES = [torch.float32, torch.float64]
N = 12
ZERO, ONE = torch.zeros(N).long(), torch.ones(N).long()


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def affine(slope, norm=2, d=5):
    """Two classes whose margin has that slope per unit of the norm."""
    w = gaussian(d, seed=4)
    w *= slope / torch.linalg.vector_norm(w, {2: 2, 1: math.inf, math.inf: 1}[norm])
    return lambda x: (x @ w.to(x) - 0.1)[:, None] * torch.tensor([-0.5, 0.5]).to(x)


def starts(dtype=torch.float64, d=5):
    """Arguments of a search from class 0 to class 1."""
    return {
        "x": gaussian(N, d, dtype=dtype) * 0.3,
        "source": ZERO,
        "target": ONE,
        "delta": 0.01 * gaussian(N, d, seed=1, dtype=dtype),
    }


def size(pairs, norm=2):
    return torch.linalg.vector_norm((pairs.points - pairs.inner).double(), norm, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("slope", "penalty"), [(10, 1), (5, 1), (3, 1), (10, 3)])
def test_affine_pairs_equal_the_closed_form(slope, penalty, dtype):
    pairs = minimize_perturbation(
        affine(slope), **starts(dtype), penalty=penalty, learning_rate=0.05
    )
    assert pairs.success.all() and not pairs.collapsed.any()
    confidence = 1 - penalty / slope
    assert pairs.probabilities.sub(confidence).abs().max() < 1e-4
    assert size(pairs).sub(2 / slope * math.log(slope / penalty - 1)).abs().max() < 1e-4
    assert pairs.inner.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("slope", "penalty"), [(2, 1), (1.5, 1), (100, 60)])
def test_a_penalty_of_half_the_slope_collapses(slope, penalty, dtype):
    pairs = minimize_perturbation(
        affine(slope), **starts(dtype), penalty=penalty, learning_rate=0.05
    )
    assert pairs.collapsed.all() and not pairs.success.any()
    assert size(pairs).max() < 0.02
    assert pairs.probabilities.sub(0.5).abs().max() < 0.01


@pytest.mark.parametrize("norm", [2, "2sq", 1, math.inf])
def test_the_penalty_of_every_norm_gives_the_confidence(norm):
    logits = affine(6, {"2sq": 2}.get(norm, norm))
    start = fast_start(logits, starts()["x"], ZERO, target=ONE)
    penalty = penalty_for(0.85, start.gradient, norm)
    pairs = minimize_perturbation(
        logits, **starts(), penalty=penalty, norm=norm, n_iter=600, learning_rate=0.05
    )
    assert pairs.success.all()
    assert pairs.probabilities.sub(0.85).abs().max() < 0.01


def test_every_sample_may_have_a_penalty_of_its_own():
    penalty = torch.linspace(0.5, 3, N).double()
    pairs = minimize_perturbation(affine(10), **starts(), penalty=penalty, learning_rate=0.05)
    assert pairs.probabilities.sub((1 - penalty / 10)[:, None]).abs().max() < 1e-4


def test_weights_are_stationary():
    """w1 (1 - p1) = w2 (1 - p2) = penalty / slope."""
    pairs = minimize_perturbation(
        affine(10), **starts(), weights=(2.0, 0.5), learning_rate=0.05, n_iter=600
    )
    left = (1 - pairs.probabilities) * torch.tensor([2.0, 0.5]).double()
    assert left.sub(0.1).abs().max() < 1e-3


def test_equals_adam_of_torch():
    """One sample at a time by torch's own optimizer, equation (1) as it stands."""
    logits, z, delta = affine(4), starts()["x"], starts()["delta"]
    pairs = minimize_perturbation(logits, **starts(), penalty=0.7, n_iter=40)
    for i in range(0, N, 5):
        a, d = z[i : i + 1].clone().requires_grad_(), delta[i : i + 1].clone().requires_grad_()
        optimizer = torch.optim.Adam([a, d], lr=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
        for _ in range(40):
            loss = torch.nn.functional.cross_entropy(logits(a), ZERO[:1])
            loss = loss + torch.nn.functional.cross_entropy(logits(a + d), ONE[:1])
            loss = loss + 0.7 * d.norm()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        torch.testing.assert_close(pairs.inner[i], a[0].detach(), atol=1e-6, rtol=0)
        torch.testing.assert_close(pairs.points[i], (a + d)[0].detach(), atol=1e-6, rtol=0)


def test_bounds_hold_both_ends():
    bounds = torch.tensor([-0.2, 0.2], dtype=torch.float64)
    x = starts()["x"].clamp(-0.2, 0.2)
    logits = affine(10)
    pairs = minimize_perturbation(logits, **starts() | {"x": x}, bounds=bounds, learning_rate=0.05)
    start = fast_start(logits, x, ZERO, target=ONE, bounds=bounds)
    for ends in (pairs.inner, pairs.points, start.inner, start.inner + start.delta):
        assert ends.min() >= -0.2 - 1e-12 and ends.max() <= 0.2 + 1e-12
    assert pairs.success.all()
    with pytest.raises(ValueError, match="lies outside the bounds"):
        fast_start(logits, x + 1, ZERO, target=ONE, bounds=bounds)


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_ends_of_a_fast_start_have_the_confidence(cnn, digits, dtype):
    module, x = cnn.to(dtype), torch.from_numpy(digits[0][300:330]).to(dtype)
    with torch.no_grad():
        source = module(x).topk(2).indices
    source, target = torch.cat([source[:15, 0], source[15:, 1]]), source.flip(1)
    target = torch.cat([target[:15, 0], target[15:, 1]])
    start = fast_start(module, x, source, target=target, confidence=0.9)
    with torch.no_grad():
        inner = pairwise_margin(module(start.inner), source, target)
        outer = pairwise_margin(module(start.inner + start.delta), source, target)
    assert inner.sub(math.log(9)).abs().max() < 0.06
    assert outer.add(math.log(9)).abs().max() < 0.06
    assert start.n_backward.max() <= 31 + 8


def test_a_fast_start_and_few_steps_succeed(cnn, digits):
    x = torch.from_numpy(digits[0][300:390])
    with torch.no_grad():
        source = cnn(x).argmax(1)
    target = (source + 1 + torch.arange(90) % 9) % 10
    bounds = x.amin(), x.amax()
    start = fast_start(cnn, x, source, target=target, bounds=bounds)
    pairs = minimize_perturbation(
        cnn,
        start.inner,
        source,
        target=target,
        delta=start.delta,
        bounds=bounds,
        n_iter=30,
        penalty=penalty_for(0.9, start.gradient),
        betas=(0.5, 0.9),
        learning_rate=1.5 * start.delta.flatten(1).norm(dim=1) / 8,
    )
    assert pairs.success.all()
    assert pairs.probabilities.median().sub(0.9).abs() < 0.03
    for batch in (1, 7, 64):
        with torch.no_grad():
            labels = torch.cat([cnn(part) for part in pairs.points.split(batch)]).argmax(1)
        assert torch.equal(labels, target)


def test_a_sample_does_not_depend_on_the_others(cnn, digits):
    module, x = cnn.double(), torch.from_numpy(digits[0][300:308]).double()
    source = ZERO[:8]

    def pairs(index):
        target = source[index] + 1
        start = fast_start(module, x[index], source[index], target=target)
        found = minimize_perturbation(
            module, start.inner, source[index], target=target, delta=start.delta, n_iter=10
        )
        return torch.stack([start.inner, found.inner, found.points])

    together = pairs(slice(0, 8))
    for i in (0, 5):
        torch.testing.assert_close(pairs(slice(i, i + 1)), together[:, i : i + 1])


def test_passes_are_counted(cnn, digits):
    x, seen = torch.from_numpy(digits[0][300:310]), []

    def logits(points):
        seen.append(len(points))
        return cnn(points)

    start = fast_start(logits, x, ZERO[:10], target=ONE[:10])
    assert start.n_forward.sum() == sum(seen)
    seen.clear()
    pairs = minimize_perturbation(
        logits, start.inner, ZERO[:10], target=ONE[:10], delta=start.delta, n_iter=3
    )
    assert pairs.n_forward.sum() == sum(seen)
    assert (pairs.n_backward == 6).all()


def test_inputs_are_not_written_to():
    given, copies = starts(), starts()
    minimize_perturbation(affine(4), **given, n_iter=3)
    fast_start(affine(4), given["x"], ZERO, target=ONE)
    assert all(torch.equal(given[name], copies[name]) for name in given)
    assert not given["x"].requires_grad


def test_a_fast_start_is_at_the_nearest_point_of_two_classes():
    x = starts()["x"]
    start = fast_start(affine(4), x, ZERO, target=ONE)
    source = affine(4)(x).argmax(1)
    middle = start.inner + start.delta / 2
    nearest = nearest_boundary(affine(4), x, source)
    assert (middle - nearest.points).norm(dim=1).max() < 5e-3


def test_the_gradient_is_that_of_the_margin():
    """`pairwise_margin` falls along the way to the target."""
    start = fast_start(affine(4), starts()["x"], ZERO, target=ONE)
    cosine = torch.cosine_similarity(start.gradient, start.delta)
    torch.testing.assert_close(cosine, -torch.ones(N).double())


def test_wrong_arguments_are_named():
    given = starts()
    with pytest.raises(ValueError, match="norm=3"):
        minimize_perturbation(affine(4), **given, norm=3)
    with pytest.raises(ValueError, match="sample 0 are both 1"):
        minimize_perturbation(affine(4), **given | {"source": ONE})
    with pytest.raises(ValueError, match="sample 0 are both 1"):
        fast_start(affine(4), given["x"], ONE, target=ONE)
    with pytest.raises(ValueError, match="delta has shape"):
        minimize_perturbation(affine(4), **given | {"delta": given["delta"][:, :2]})
