"""The nearest boundary point against closed forms, and the float trap."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import pytest
import torch
from scipy.optimize import minimize

from skboundary import datasets
from skboundary.functional._projection import project
from skboundary.functional.margins import class_margin, margin_band
from skboundary.functional.nearest_boundary import EFFORTS, nearest_boundary

DTYPES = [torch.float32, torch.float64]
KAPPA = 1e-3
PROBLEMS = {
    "linear": lambda: datasets.make_linear(100, 6, random_state=0),
    "circle": lambda: datasets.make_circle(100, random_state=0),
    "sphere": lambda: datasets.make_sphere(100, 5, random_state=0),
    "xor": lambda: datasets.make_xor(100, random_state=0),
}


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def affine(n_classes, d, seed=0):
    weight, bias = gaussian(d, n_classes, seed=seed), gaussian(n_classes, seed=seed + 1)
    return lambda x: x @ weight.to(x) + bias.to(x), weight, bias


def assert_just_beyond(logits, found, source, target=None):
    """The margin of the target over all others is between one and two kappa."""
    margin = class_margin(logits(found.points), found.target)
    assert found.success.all()
    assert (margin >= 0.99 * KAPPA).all() and (margin <= 2.01 * KAPPA).all()
    assert (found.target != source).all()
    assert target is None or torch.equal(found.target, target)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_points_equal_closed_forms(name, effort, dtype):
    problem = PROBLEMS[name]()
    x, source = torch.from_numpy(problem.data).to(dtype), torch.from_numpy(problem.target)
    found = nearest_boundary(problem.module, x, source, effort=effort, margin_tol=KAPPA)
    assert_just_beyond(problem.module, found, source)
    exact = (torch.from_numpy(problem.nearest(problem.data)) - x).norm(dim=1)
    excess = (found.points - x).norm(dim=1) - exact
    assert excess.min() > 0  # the point lies beyond
    # half a thousandth at the slopes of about 4; xor is flat near its corner
    assert excess.max() < (0.01 if name == "xor" else 1e-3)


@pytest.mark.parametrize("effort", EFFORTS)
def test_points_are_the_nearest_of_all_rivals(effort):
    """On affine logits the boundary to one rival is a plane, of which the rest cuts parts away."""
    logits, weight, _bias = affine(3, 4)
    x = gaussian(60, 4, seed=5)
    out = logits(x)
    source = out.argmax(1)
    found = nearest_boundary(logits, x, source, effort=effort)
    assert_just_beyond(logits, found, source)
    rivals = torch.stack([source + 1, source + 2], 1) % 3
    w = weight.T[rivals] - weight.T[source][:, None]
    gap = out.gather(1, source[:, None]) - out.gather(1, rivals)
    exact = (gap / w.norm(dim=2)).min(1).values
    excess = (found.points - x).norm(dim=1) - exact
    assert excess.min() > 0
    if effort != "fast":  # which looks at the strongest rival alone
        assert excess.median() < 1e-3
        assert excess.max() < 0.02  # where a third class has to be beaten by kappa too


def test_a_rival_that_a_detour_crossed_is_refined_before_it_is_dropped():
    """From inside of an ellipse the first found lies beyond a plane on the other side, which
    is farther than the nearest point of the ellipse."""
    center, axes = torch.tensor([0.1, 1.5]).double(), torch.tensor([1.0, 2.0]).double()
    angle = torch.linspace(0, 2 * torch.pi, 20001).double()
    rim = center + axes * torch.stack([angle.cos(), angle.sin()], 1)
    exact, toward = rim.norm(dim=1).min(), -center / axes.square()

    def logits(x):
        plane = -(x @ toward) / toward.norm() - 1.035 * exact
        ellipse = ((x - center) / axes).square().sum(1) - 1
        return torch.stack([torch.zeros_like(plane), 2 * plane, ellipse], 1)

    found = nearest_boundary(logits, torch.zeros(1, 2).double(), torch.tensor([0]))
    assert found.target.item() == 2
    assert exact < found.points.norm() < 1.01 * exact


def quadratic_program(x, weight, bias, target, level):
    """Distance of x to where `target` leads every other class by `level`, by scipy."""
    others = [k for k in range(len(bias)) if k != target]
    A = (weight[:, [target]] - weight[:, others]).T.numpy()
    b = (bias[target] - bias[others]).numpy()
    found = minimize(
        lambda p: ((p - x) ** 2).sum(),
        x,
        jac=lambda p: 2 * (p - x),
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda p: A @ p + b - level, "jac": lambda p: A},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert found.success
    return found.fun**0.5


def test_a_target_behind_third_classes_is_reached():
    logits, weight, bias = affine(5, 6, seed=3)
    x = gaussian(40, 6, seed=7)
    source = logits(x).argmax(1)
    target = (source + 1 + torch.arange(40) % 4) % 5
    found = nearest_boundary(logits, x, source, target=target, effort="thorough")
    assert_just_beyond(logits, found, source, target)
    exact = torch.tensor(
        [quadratic_program(r.numpy(), weight, bias, int(t), KAPPA) for r, t in zip(x, target)]
    )
    ratio = (found.points - x).norm(dim=1) / exact
    assert ratio.min() > 1 - 1e-6
    assert ratio.mean() < 1.02 and ratio.max() < 1.15


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_nearest_point_of_a_plane_in_a_box(dtype):
    problem = datasets.make_linear(60, 6, random_state=1)
    x, source = torch.from_numpy(problem.data).to(dtype), torch.from_numpy(problem.target)
    low, high = x.amin(0) - 0.1, x.amax(0) + 0.1
    low[0], high[0] = x[:, 0].min(), x[:, 0].max()
    tight = (torch.maximum(x - 0.3, low), torch.minimum(x + 0.3, high))
    w = torch.from_numpy(problem.weights).to(dtype).expand_as(x)
    value = x @ w[0] + problem.bias
    reach = (torch.where((w > 0) == (value < 0)[:, None], tight[1], tight[0]) - x) * w
    possible = reach.sum(1).abs() > value.abs() + 5 * KAPPA
    found = nearest_boundary(problem.module, x, source, bounds=tight)
    assert torch.equal(found.success, possible)
    assert 10 < possible.sum() < 50
    assert torch.equal(found.points[~possible], x[~possible])  # kept as they were
    assert (found.points >= tight[0]).all() and (found.points <= tight[1]).all()
    exact = project(w, -value, tight[0] - x, tight[1] - x).norm(dim=1)
    excess = ((found.points - x).norm(dim=1) - exact)[possible]
    assert excess.min() > -1e-6 and excess.max() < 0.03 * exact.max()


@pytest.mark.parametrize("name", ["circle", "xor"])
def test_a_wide_box_changes_little(name):
    problem = PROBLEMS[name]()
    x, source = torch.from_numpy(problem.data), torch.from_numpy(problem.target)
    bounds = x.amin(0), x.amax(0)
    boxed = nearest_boundary(problem.module, x, source, bounds=bounds)
    free = nearest_boundary(problem.module, x, source)
    assert_just_beyond(problem.module, boxed, source)
    inside = ((free.points >= bounds[0]) & (free.points <= bounds[1])).all(1)
    assert inside.sum() > 90
    difference = (boxed.points - x).norm(dim=1) - (free.points - x).norm(dim=1)
    assert difference[inside].abs().max() < 0.01
    assert (boxed.points >= bounds[0]).all() and (boxed.points <= bounds[1]).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_projection_equals_a_bisection_of_the_dual(sign):
    w, c = gaussian(200, 7), sign * gaussian(200, seed=1).abs()
    low, high = -gaussian(200, 7, seed=2).abs(), gaussian(200, 7, seed=3).abs()
    low[:50], high[50:100] = -torch.inf, torch.inf
    w[::9, 2] = 0
    low[::5, 1] = 0
    d = project(w, c, low, high)
    left, right = torch.zeros(200).double(), torch.full((200,), 1e3).double()
    for _ in range(100):
        mu = (left + right) / 2
        reached = (sign * w * torch.clamp(sign * mu[:, None] * w, low, high)).sum(1) >= c.abs()
        left, right = torch.where(reached, left, mu), torch.where(reached, mu, right)
    torch.testing.assert_close(d, torch.clamp(sign * right[:, None] * w, low, high))
    assert (d >= low - 1e-12).all() and (d <= high + 1e-12).all()


def predicted(module, x, size):
    with torch.no_grad():
        return torch.cat([module(part) for part in x.split(size)]).argmax(1)


def test_labels_do_not_depend_on_the_batch(cnn, digits):
    x = torch.from_numpy(digits[0][300:450])
    source = predicted(cnn, x, 150)
    bounds = x.amin(), x.amax()
    found = nearest_boundary(cnn, x, source, effort="fast", bounds=bounds)
    assert found.success.all()
    for size in (1, 7, 64, 150):
        assert torch.equal(predicted(cnn, found.points, size), found.target)
    last = found.points.to(memory_format=torch.channels_last)
    assert torch.equal(predicted(cnn, last, 150), found.target)
    assert torch.equal(predicted(cnn.double(), found.points.double(), 150), found.target)


@pytest.mark.parametrize("wanted", [False, True])
def test_a_sample_does_not_depend_on_the_others(cnn, digits, wanted):
    module, x = cnn.double(), torch.from_numpy(digits[0][300:312]).double()
    source = predicted(module, x, 12)
    target = (source + 3) % 10 if wanted else None
    together = nearest_boundary(module, x, source, target=target)
    for i in range(0, 12, 5):
        one = slice(i, i + 1)
        alone = nearest_boundary(
            module, x[one], source[one], target=target[one] if wanted else None
        )
        torch.testing.assert_close(alone.points, together.points[one])
        assert alone.n_backward == together.n_backward[i]
        assert alone.n_forward == together.n_forward[i]


def test_passes_are_counted(cnn, digits):
    x = torch.from_numpy(digits[0][300:320])
    source, seen, differentiated = predicted(cnn, x, 20), [], []

    def logits(points):
        seen.append(len(points))
        if points.requires_grad:
            points.register_hook(lambda gradient: differentiated.append(len(gradient)))
        return cnn(points)

    found = nearest_boundary(logits, x, source)
    assert found.n_forward.sum() == sum(seen)
    assert found.n_backward.sum() == sum(differentiated)
    assert found.n_backward.max() <= 31 + 3 * 29


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("budget", [10, 11, 30, 80])
def test_a_number_of_gradients_is_kept(cnn, digits, budget, wanted):
    x = torch.from_numpy(digits[0][300:340])
    source, taken = predicted(cnn, x, 40), []
    target = (source + 3) % 10 if wanted else None

    def logits(points):
        if points.requires_grad:
            points.register_hook(lambda gradient: taken.append(len(gradient)))
        return cnn(points)

    found = nearest_boundary(logits, x, source, target=target, effort=budget)
    assert_just_beyond(cnn, found, source, target)
    assert found.n_backward.sum() == sum(taken) and found.n_backward.max() <= budget
    assert found.n_backward.float().mean() > budget / 3  # and is used
    alone = nearest_boundary(
        cnn, x[3:4], source[3:4], target=target[3:4] if wanted else None, effort=budget
    )
    assert alone.n_backward == found.n_backward[3]
    torch.testing.assert_close(alone.points, found.points[3:4], atol=1e-4, rtol=1e-4)


def test_more_gradients_find_nearer_points(cnn, digits):
    x = torch.from_numpy(digits[0][300:400])
    source = predicted(cnn, x, 100)
    mean = [
        (nearest_boundary(cnn, x, source, effort=n).points - x).flatten(1).norm(dim=1).mean()
        for n in (5, 10, 30, 100)
    ]
    assert mean == sorted(mean, reverse=True)


@pytest.mark.parametrize("effort", [4, 0, 2.5, "some"])
def test_an_effort_that_is_no_budget(effort):
    with pytest.raises(ValueError, match=r"effort=.*at least 5"):
        nearest_boundary(lambda x: x, torch.ones(1, 2), torch.tensor([0]), effort=effort)


def test_samples_without_a_boundary_keep_x():
    def logits(x):
        value = torch.where(x[:, 0] > 5, 3.0, x[:, 0])  # whose gradient is 0 above 5
        value[x[:, 0] < -5] += (x[x[:, 0] < -5, 0] * 0).sqrt()  # and NaN below -5
        value = torch.where(x[:, 1] > 0, torch.nan, value)
        return torch.stack([value * 0, value], 1)

    x = torch.tensor([[1.0, 0], [6.0, 0], [-6.0, 0], [-1.0, 0], [1.0, 1], [2.0, 0]])
    found = nearest_boundary(logits, x, torch.tensor([1, 1, 0, 0, 1, 0]))
    # the last was not of its source
    assert found.success.tolist() == [True, False, False, True, False, False]
    assert torch.equal(found.points[~found.success], x[~found.success])


def test_nothing_to_do():
    empty = nearest_boundary(lambda x: x[:, :2], torch.zeros(0, 3), torch.zeros(0).long())
    assert empty.points.shape == (0, 3) and empty.success.shape == (0,)


def test_inputs_are_not_written_to():
    problem = PROBLEMS["circle"]()
    x, source = torch.from_numpy(problem.data), torch.from_numpy(problem.target)
    copies = x.clone(), source.clone()
    nearest_boundary(problem.module, x, source)
    assert torch.equal(x, copies[0]) and torch.equal(source, copies[1])


def test_wrong_arguments_are_named():
    x, source = torch.zeros(2, 2), torch.tensor([0, 1])
    logits = affine(3, 2)[0]
    with pytest.raises(ValueError, match="norm=3"):
        nearest_boundary(logits, x, source, norm=3)
    with pytest.raises(ValueError, match="effort='wild'.*'balanced'"):
        nearest_boundary(logits, x, source, effort="wild")
    with pytest.raises(ValueError, match="sample 1 are both 1"):
        nearest_boundary(logits, x, source, target=torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="Sample 0 of x lies outside the bounds"):
        nearest_boundary(logits, x, source, bounds=(torch.tensor(0.5), torch.tensor(1.0)))


# ---------------------------------------------------------------------------- rounding


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e5])
@pytest.mark.parametrize("targeted", [False, True])
def test_large_logits_are_crossed_by_a_band(scale, dtype, targeted):
    generator = torch.Generator().manual_seed(0)
    weight = scale * torch.randn(6, 3, dtype=dtype, generator=generator)
    x = torch.randn(60, 6, dtype=dtype, generator=generator)
    logits = lambda x: x @ weight
    source = logits(x).argmax(1)
    target = (source + 1) % 3 if targeted else None
    found = nearest_boundary(logits, x, source, target=target)
    assert found.success.all()
    out = logits(found.points)
    band = margin_band(1e-3, torch.finfo(dtype).eps, logits(x), out)
    margin = class_margin(out, found.target)
    assert (margin > 0.5 * band).all() and (margin < 2.5 * band).all()


def test_a_point_that_is_across_counts_where_the_band_cannot_be_met():
    """Coordinates around 1e6 in float32: neighbors differ by 1/16, hence by 60 in the logits."""
    x = torch.full((1, 1), 1e6 - 4)
    logits = lambda x: torch.stack([1e6 - x[:, 0], x[:, 0] - 1e6], 1) * 500
    found = nearest_boundary(logits, x, torch.tensor([0]), eps=1e-12)
    assert found.success.all() and 1e6 < found.points < 1e6 + 0.2


def test_projection_of_a_sample_does_not_depend_on_the_others():
    generator = torch.Generator().manual_seed(0)
    w, c = torch.randn(50, 20, generator=generator), 4 * torch.rand(50, generator=generator)
    low, high = -torch.rand(2, 50, 20, generator=generator) * torch.tensor([1, -1])[:, None, None]
    alone = torch.cat([project(*(v[i : i + 1] for v in (w, c, low, high))) for i in range(50)])
    assert torch.equal(project(w, c, low, high), alone)


def test_an_unbounded_projection_takes_no_loop(monkeypatch):
    calls = []
    minimum = torch.minimum
    monkeypatch.setattr(torch, "minimum", lambda *args: calls.append(0) or minimum(*args))
    w, wide = torch.tensor([[3.0, 0.0, 4.0]]), torch.full((1, 3), torch.inf)
    found = project(w, torch.tensor([25.0]), -wide, wide)
    assert found.tolist() == [[3.0, 0.0, 4.0]] and not calls


def test_no_empty_batch_reaches_the_network():
    def logits(x):
        assert len(x)
        return torch.stack([-x.view(x.size(0), -1).sum(1), x.view(x.size(0), -1).sum(1)], 1)

    x = torch.tensor([[[-1.0, 0.5]]])
    assert nearest_boundary(logits, x, torch.tensor([0])).success.all()
    assert not nearest_boundary(logits, x, torch.tensor([1])).success.any()
