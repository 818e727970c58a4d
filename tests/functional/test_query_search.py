"""Gradient-free searches against closed forms and a scalar loop."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

from skboundary.datasets import make_circle, make_linear, make_sphere, make_xor
from skboundary.functional import _query_brackets, query_search
from skboundary.functional._query_directions import Directions
from skboundary.functional.cosine_transform import dct2, idct2
from skboundary.functional.query_search import (
    _label_margin,
    label_search,
    score_search,
    segment_search,
)

PROBLEMS = {
    "linear": lambda: make_linear(60, 8, random_state=0),
    "circle": lambda: make_circle(60, random_state=1),
    "sphere": lambda: make_sphere(60, 6, radius=2.2, random_state=2),
    "xor": lambda: make_xor(60, random_state=3),
}
BOXES = {"free": None, "box": (torch.tensor(-5.0), torch.tensor(5.0))}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def classes_of(module_):
    """Scores and labels that count the points they are queried for."""

    def score(points):
        score.n_queries += len(points)
        return module_(points)

    score.n_queries = 0
    return score, lambda points: score(points).argmax(1)


def nearest_others(x, labels, n_starts):
    """Samples of the other class, nearest first."""
    distance = torch.cdist(x.double(), x.double())
    distance[labels[:, None] == labels] = float("inf")
    return x[distance.sort(dim=1).indices[:, :n_starts]]


def case(name, dtype, n=12, n_starts=10):
    problem = PROBLEMS[name]()
    score, label = classes_of(problem.module)
    x = torch.from_numpy(problem.data).to(dtype)
    labels = label(x)
    starts = nearest_others(x, labels, n_starts)[:n]
    shortest = torch.from_numpy(problem.nearest(problem.data) - problem.data)[:n].norm(dim=1)
    score.n_queries = 0
    return score, label, x[:n], labels[:n], starts, shortest


def check(found, x, source, label, shortest, budget, excess, tol=1e-3):
    """A valid bracket that is no nearer than the boundary and hardly farther."""
    assert found.success.all()
    assert (label(found.points) != source).all()
    assert (label(found.inner) == source).all()
    assert found.n_forward.max() <= budget
    distance = (found.points.double() - x.double()).norm(dim=1)
    rounding = 20 * torch.finfo(x.dtype).eps * x.norm(dim=1)
    assert ((found.points - found.inner).norm(dim=1) <= 1.01 * tol * distance + rounding).all()
    assert (distance >= shortest * (1 - 1e-4)).all()
    assert (distance <= shortest * (1 + excess)).all(), (distance / shortest).max()


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PROBLEMS)
def test_label_search_finds_the_nearest_point(name, dtype, box):
    score, label, x, source, starts, shortest = case(name, dtype)
    found = label_search(
        label, x, source, starts=starts, generator=generator(), bounds=BOXES[box], budget=400
    )
    assert score.n_queries == found.n_forward.sum()
    assert found.points.dtype == dtype
    check(found, x, source, label, shortest, 400, excess=0.02)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PROBLEMS)
def test_score_search_finds_the_nearest_point(name, dtype, box):
    score, label, x, source, starts, shortest = case(name, dtype)
    found = score_search(
        score, x, source, starts=starts, generator=generator(), bounds=BOXES[box], budget=200
    )
    assert score.n_queries == found.n_forward.sum()
    check(found, x, source, label, shortest, 200, excess=0.005)


def test_the_nearest_point_inside_a_box():
    weights = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    x, source = torch.zeros(1, 3, dtype=torch.float64), torch.tensor([0])
    score, label = classes_of(lambda p: torch.stack([0 * p[:, 0], p @ weights - 1], 1))
    bounds = torch.tensor([-1.0, -1, -1]).double(), torch.tensor([0.3, 2, 1]).double()
    starts = torch.tensor([[[0.3, 2.0, 0.5]]], dtype=torch.float64)
    common = dict(generator=generator(), bounds=bounds, budget=300)
    for search, query in ((label_search, label), (score_search, score)):
        found = search(query, x, source, starts=starts, **common)
        assert (found.points <= bounds[1]).all()
        expected = torch.tensor([[0.3, 0.7, 0.0]], dtype=torch.float64)
        torch.testing.assert_close(found.points, expected, atol=0.05, rtol=0)
        assert found.points.norm() < 1.002 * expected.norm()


def scalar_segments(label, x, source, starts, tol):
    """The search on segments for one sample, by Python floats."""
    coarse, best = _query_brackets.COARSE_WIDTH, None

    def crossed(unit, t):
        return label((x + t * unit)[None])[0] != source

    for start in starts:
        length = float((start - x).norm())
        unit = (start - x) / length
        t = length if best is None else min(length, best[1] * (1 - coarse))
        if not crossed(unit, t):
            continue
        low, high = 0.0, t
        while high - low > coarse * high:
            t = (low + high) / 2
            low, high = (low, t) if crossed(unit, t) else (t, high)
        best = unit, high, low
    unit, high, low = best
    while high - low > tol / 2 * high:
        t = (low + high) / 2
        low, high = (low, t) if crossed(unit, t) else (t, high)
    shift = high * tol / 4
    high += shift if crossed(unit, high + shift) else 0
    low -= 0 if crossed(unit, low - shift) else shift
    return x + high * unit, x + low * unit


@pytest.mark.parametrize("name", PROBLEMS)
def test_segment_search_equals_scalar_loop(name):
    score, label, x, source, starts, _ = case(name, torch.float64)
    found = segment_search(label, x, source, starts=starts)
    assert score.n_queries == found.n_forward.sum()
    assert found.n_forward.max() <= 100
    assert found.success.all()
    for i in range(len(x)):
        outer, inner = scalar_segments(label, x[i], source[i], starts[i], 1e-3)
        torch.testing.assert_close(found.points[i], outer, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.inner[i], inner, rtol=0, atol=1e-12)


@pytest.mark.parametrize("budget", [1, 2, 7, 13, 30, 61, 150])
def test_no_budget_is_exceeded(budget):
    score, label, x, source, starts, _ = case("sphere", torch.float64)
    for search, query in ((segment_search, label), (label_search, label), (score_search, score)):
        common = {} if search is segment_search else dict(generator=generator())
        score.n_queries = 0
        found = search(query, x, source, starts=starts, budget=budget, **common)
        assert score.n_queries == found.n_forward.sum()
        assert found.n_forward.max() <= budget
        assert found.success.all()
        assert (label(found.points) != source).all() and (label(found.inner) == source).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sample_does_not_depend_on_the_others(dtype):
    score, label, x, source, starts, _ = case("sphere", dtype)
    for search, query in ((label_search, label), (score_search, score)):
        for index in (slice(0, 1), slice(3, 10), torch.tensor([9, 2, 11])):
            common = dict(generator=generator(), budget=150)
            together = search(query, x, source, starts=starts, **common)
            common = dict(generator=generator(), budget=150)
            alone = search(query, x[index], source[index], starts=starts[index], **common)
            for one, other in zip(alone, together):
                assert torch.equal(one, other[index])


def test_label_search_reaches_a_target():
    def label(points):
        return torch.div(points[:, 0], 1.0, rounding_mode="floor").long().clamp(0, 3)

    x = torch.tensor([[0.5, 0.0], [0.2, 1.0]], dtype=torch.float64)
    starts = torch.tensor([[[2.2, 8.0], [1.9, 3.0]]], dtype=torch.float64).expand(2, -1, -1)
    target = torch.tensor([2, 1])
    source = label(x)
    found = label_search(
        label, x, source, starts=starts, generator=generator(), target=target, budget=400
    )
    assert torch.equal(label(found.points), target)
    assert (label(found.inner) != target).all()
    distance = (found.points - x).norm(dim=1)
    torch.testing.assert_close(distance, torch.tensor([1.5, 0.8]).double(), rtol=0.01, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_label_search_in_a_basis_finds_the_nearest_point(dtype):
    problem = PROBLEMS["linear"]()
    _score, label = classes_of(problem.module)
    x = torch.from_numpy(problem.data).to(dtype)[:15]
    weights = torch.from_numpy(problem.weights)
    basis = torch.linalg.qr(torch.randn(8, 3, generator=generator(), dtype=torch.float64))[0].T
    source = label(x)
    starts = nearest_others(
        torch.from_numpy(problem.data).to(dtype), torch.from_numpy(problem.target), 5
    )[:15]
    found = label_search(
        label, x, source, starts=starts, generator=generator(), basis=basis.to(dtype), budget=400
    )
    change = (found.points - x).double()
    assert (change - change @ basis.T @ basis).norm(dim=1).max() < 1e-5
    shortest = (x.double() @ weights + problem.bias).abs() / (basis @ weights).norm()
    check(found, x, source, label, shortest, 400, excess=0.01)


def test_label_search_without_a_boundary_has_no_success():
    x = torch.zeros(3, 4)
    starts = torch.ones(3, 2, 4)
    source = torch.zeros(3, dtype=torch.long)
    queries = []

    def label(points):
        queries.append(len(points))
        return torch.zeros(len(points), dtype=torch.long)

    box = torch.tensor(-2.0), torch.tensor(2.0)
    for bounds in (None, box):
        found = label_search(label, x, source, starts=starts, generator=generator(), bounds=bounds)
        assert not found.success.any()
        assert torch.equal(found.points, x) and torch.equal(found.inner, x)
        assert found.n_forward.max() <= 100
        assert sum(queries) == found.n_forward.sum()
        queries.clear()


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("n_starts", [0, 2])
def test_rays_find_the_boundary_where_starts_do_not(n_starts, box):
    _score, label, x, source, _, shortest = case("linear", torch.float64)
    starts = x[:, None].expand(-1, n_starts, -1) * 1.001  # own class
    found = label_search(
        label, x, source, starts=starts, generator=generator(), bounds=BOXES[box], budget=400
    )
    check(found, x, source, label, shortest, 400, excess=0.02)


def test_the_global_generator_is_not_touched():
    score, label, x, source, starts, _ = case("circle", torch.float64)
    before = torch.random.get_rng_state()
    label_search(label, x, source, starts=starts, generator=generator(), budget=100)
    score_search(score, x, source, starts=starts, generator=generator(), budget=100)
    assert torch.equal(before, torch.random.get_rng_state())


def test_bounds_and_a_basis_exclude_each_other():
    _score, label, x, source, starts, _ = case("circle", torch.float64)
    with pytest.raises(ValueError, match="cannot be combined"):
        label_search(
            label,
            x,
            source,
            starts=starts,
            generator=generator(),
            bounds=BOXES["box"],
            basis=torch.eye(2).double(),
        )


def test_image_shapes_are_checked():
    _score, label, x, source, starts, _ = case("sphere", torch.float64)
    common = dict(starts=starts, generator=generator())
    with pytest.raises(ValueError, match="image_shape and basis cannot be combined"):
        label_search(label, x, source, basis=torch.eye(6).double(), image_shape=(2, 3), **common)
    for shape in ((2, 4), (6,)):
        with pytest.raises(ValueError, match="height, width\\) of 6 numbers"):
            label_search(label, x, source, image_shape=shape, **common)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(8, 6), (3, 5, 5), (2, 1, 4, 4)])
def test_directions_of_images_have_low_frequencies(shape, dtype):
    """Orthonormal, and in as many of the lowest frequencies as have been drawn."""
    d = torch.Size(shape).numel()
    directions = Directions(torch.zeros(1, d, dtype=dtype), 7, generator(), image_shape=shape)
    height, width = shape[-2:]
    down, right = torch.arange(height).double() / height, torch.arange(width).double() / width
    frequency = (down[:, None] + right).expand(shape).flatten()
    for step in range(1, 2 + d // 7):
        drawn = directions.draw()
        assert drawn.dtype == dtype
        torch.testing.assert_close(drawn @ drawn.T, torch.eye(7, dtype=dtype), atol=1e-5, rtol=0)
        energy = dct2(drawn.view(7, *shape)).flatten(1).square().sum(0)
        limit = frequency.sort().values[min(7 * step, d) - 1]
        assert energy[frequency > limit + 1e-9].sum() < 1e-8
        assert (energy > 1e-7).sum() == min(7 * step, d)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["label", "score"])
def test_low_frequencies_find_a_smooth_normal_with_few_queries(name, dtype, unit):
    """The boundary of a linear score whose normal is smooth, in fewer queries than pixels."""
    coefficients = torch.zeros(1, 24, 24, dtype=torch.float64)
    coefficients[0, :4, :4] = torch.randn(4, 4, dtype=torch.float64, generator=generator(1))
    normal = idct2(coefficients).flatten() / coefficients.norm()
    x = torch.randn(5, 576, dtype=torch.float64, generator=generator(2)) / 24
    x -= (x @ normal - 1)[:, None] * normal  # at the distance 1 from the boundary
    starts = x[:, None] - (2 * normal + torch.randn(5, 3, 576, generator=generator(3)) / 6)
    values = lambda points: points.double() @ normal / unit
    score = lambda points: torch.stack([values(points), -values(points)], 1)
    label = lambda points: score(points).argmax(1)
    search, query = (label_search, label) if name == "label" else (score_search, score)
    distances = []
    for image_shape in ((1, 24, 24), None):
        found = search(
            query,
            (unit * x).to(dtype),
            torch.zeros(5, dtype=torch.long),
            starts=(unit * starts).to(dtype),
            generator=generator(),
            image_shape=image_shape,
            budget=200,
        )
        assert (label(found.points) == 1).all() and (label(found.inner) == 0).all()
        distances.append((found.points.double() / unit - x).norm(dim=1))
    low, every = distances
    assert (low >= 1 - 1e-5).all() and (low < 1.25).all(), low
    assert (every > 1.3 * low).all(), every


@pytest.fixture(scope="module")
def forest():
    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    clf = RandomForestClassifier(10, random_state=0).fit(X, y)

    def label(points):
        return torch.from_numpy(clf.predict(points.numpy()))

    x = torch.from_numpy(X)
    labels = label(x)
    return label, x[:12], labels[:12], nearest_others(x, labels, 10)[:12]


def test_reverted_coordinates_are_never_farther_and_still_across(forest):
    label, x, source, starts = forest
    bracket = segment_search(label, x, source, starts=starts)
    state = _query_brackets.QueryState(_label_margin(label, source, None), x, None, 1000)
    every = torch.arange(len(x))
    state.outer[:], state.inner[:] = bracket.points, bracket.inner
    state.radius[:] = (bracket.points - x).norm(dim=1)
    change = (bracket.points - x).abs()
    for halvings in (0, 3):
        _query_brackets.revert_coordinates(state, every, halvings)
        closer = (state.outer - x).abs()
        assert (closer <= change + 1e-12).all()
        assert (label(state.outer) != source).all()
        change = closer
    assert (state.radius < 0.8 * (bracket.points - x).norm(dim=1)).all()


def test_label_search_on_trees_beats_segments_and_keeps_labels(forest):
    label, x, source, starts = forest
    segments = segment_search(label, x, source, starts=starts)
    found = label_search(label, x, source, starts=starts, generator=generator(), budget=500)
    assert (label(found.points) != source).all() and (label(found.inner) == source).all()
    distance = (found.points - x).norm(dim=1)
    assert distance.mean() < 0.7 * (segments.points - x).norm(dim=1).mean()


def test_newton_goes_across_also_without_starts():
    """Its points lie beyond the boundary of linear scores, in any unit of x."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    x = torch.randn(20, 4, dtype=torch.float64, generator=generator)
    for unit in (1e-6, 1.0, 1e6):
        score = lambda points: points / unit @ weight
        source = score(unit * x).argmax(1)
        margin = query_search._score_margin(score, source, None)
        search = query_search.QueryState(margin, unit * x, None, 100)
        starts = (unit * x)[:, None]  # a class without training samples has x itself
        points = query_search._newton_starts(search, score, source, None, starts, 0.1)
        labels = score(points.flatten(0, 1)).argmax(1).view(20, -1)
        assert (labels[:, [0, 3]] != source[:, None]).all()


@pytest.mark.parametrize("name", ["label", "score"])
def test_named_targets_mix_with_any_other(name):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 3, dtype=torch.float64, generator=generator)
    x = torch.randn(12, 3, dtype=torch.float64, generator=generator)
    score = lambda points: points @ weight
    source, starts = score(x).argmax(1), x.flip(0)[:, None].expand(12, 4, 3) * 3
    target = torch.where(torch.arange(12) % 2 == 0, -1, (source + 1) % 3)

    def found(index, target):
        query = score if name == "score" else lambda points: score(points).argmax(1)
        search = query_search.score_search if name == "score" else query_search.label_search
        return search(
            query,
            x[index],
            source[index],
            starts=starts[index],
            target=target,
            generator=torch.Generator().manual_seed(0),
            budget=400,
        )

    mixed = found(torch.arange(12), target)
    free, named = torch.arange(0, 12, 2), torch.arange(1, 12, 2)
    for index, alone in ((free, found(free, None)), (named, found(named, target[named]))):
        torch.testing.assert_close(mixed.points[index], alone.points)
        assert torch.equal(mixed.n_forward[index], alone.n_forward)
