"""Gradient-free searches against closed forms and a scalar loop."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

from skboundary.datasets import make_circle, make_linear, make_sphere, make_xor
from skboundary.functional import _query_brackets as module
from skboundary.functional import query_search
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
    """Scores and labels that count the rows they are asked about."""

    def score(points):
        score.n_rows += len(points)
        return module_(points)

    score.n_rows = 0
    return score, lambda points: score(points).argmax(1)


def nearest_others(x, labels, n_starts):
    """Rows of the other class, nearest first."""
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
    score.n_rows = 0
    return score, label, x[:n], labels[:n], starts, shortest


def check(found, x, source, label, shortest, budget, excess, tol=1e-3):
    """A valid bracket that is no nearer than the boundary and hardly farther."""
    assert found.success.all()
    assert (label(found.outer) != source).all()
    assert (label(found.inner) == source).all()
    assert found.n_evaluations.max() <= budget
    distance = (found.outer.double() - x.double()).norm(dim=1)
    rounding = 20 * torch.finfo(x.dtype).eps * x.norm(dim=1)
    assert ((found.outer - found.inner).norm(dim=1) <= 1.01 * tol * distance + rounding).all()
    assert (distance >= shortest * (1 - 1e-4)).all()
    assert (distance <= shortest * (1 + excess)).all(), (distance / shortest).max()


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PROBLEMS)
def test_label_search__closed_form__nearest_point(name, dtype, box):
    score, label, x, source, starts, shortest = case(name, dtype)
    found = label_search(
        label, x, source, starts, generator=generator(), bounds=BOXES[box], budget=400
    )
    assert score.n_rows == found.n_evaluations.sum()
    assert found.outer.dtype == dtype
    check(found, x, source, label, shortest, 400, excess=0.02)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PROBLEMS)
def test_score_search__closed_form__nearest_point(name, dtype, box):
    score, label, x, source, starts, shortest = case(name, dtype)
    found = score_search(
        score, x, source, starts, generator=generator(), bounds=BOXES[box], budget=200
    )
    assert score.n_rows == found.n_evaluations.sum()
    check(found, x, source, label, shortest, 200, excess=0.005)


def test_search__box_that_bites__nearest_point_inside():
    weights = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    x, source = torch.zeros(1, 3, dtype=torch.float64), torch.tensor([0])
    score, label = classes_of(lambda p: torch.stack([0 * p[:, 0], p @ weights - 1], 1))
    bounds = torch.tensor([-1.0, -1, -1]).double(), torch.tensor([0.3, 2, 1]).double()
    starts = torch.tensor([[[0.3, 2.0, 0.5]]], dtype=torch.float64)
    common = dict(generator=generator(), bounds=bounds, budget=300)
    for search, ask in ((label_search, label), (score_search, score)):
        found = search(ask, x, source, starts, **common)
        assert (found.outer <= bounds[1]).all()
        expected = torch.tensor([[0.3, 0.7, 0.0]], dtype=torch.float64)
        torch.testing.assert_close(found.outer, expected, atol=0.05, rtol=0)
        assert found.outer.norm() < 1.002 * expected.norm()


def scalar_segments(label, x, source, starts, tol):
    """The contest of segments for one row, by Python floats."""
    coarse, best = module.COARSE, None

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
def test_segment_search__equals_scalar_loop(name):
    score, label, x, source, starts, _ = case(name, torch.float64)
    found = segment_search(label, x, source, starts)
    assert score.n_rows == found.n_evaluations.sum()
    assert found.n_evaluations.max() <= 100
    assert found.success.all()
    for i in range(len(x)):
        outer, inner = scalar_segments(label, x[i], source[i], starts[i], 1e-3)
        torch.testing.assert_close(found.outer[i], outer, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.inner[i], inner, rtol=0, atol=1e-12)


@pytest.mark.parametrize("budget", [1, 2, 7, 13, 30, 61, 150])
def test_search__any_budget__never_exceeded(budget):
    score, label, x, source, starts, _ = case("sphere", torch.float64)
    for search, ask in ((segment_search, label), (label_search, label), (score_search, score)):
        common = {} if search is segment_search else dict(generator=generator())
        score.n_rows = 0
        found = search(ask, x, source, starts, budget=budget, **common)
        assert score.n_rows == found.n_evaluations.sum()
        assert found.n_evaluations.max() <= budget
        assert found.success.all()
        assert (label(found.outer) != source).all() and (label(found.inner) == source).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_search__rows_beside__do_not_matter(dtype):
    score, label, x, source, starts, _ = case("sphere", dtype)
    for search, ask in ((label_search, label), (score_search, score)):
        for rows in (slice(0, 1), slice(3, 10), torch.tensor([9, 2, 11])):
            common = dict(generator=generator(), budget=150)
            together = search(ask, x, source, starts, **common)
            common = dict(generator=generator(), budget=150)
            alone = search(ask, x[rows], source[rows], starts[rows], **common)
            for one, other in zip(alone, together):
                assert torch.equal(one, other[rows])


def test_label_search__target__is_reached():
    def label(points):
        return torch.div(points[:, 0], 1.0, rounding_mode="floor").long().clamp(0, 3)

    x = torch.tensor([[0.5, 0.0], [0.2, 1.0]], dtype=torch.float64)
    starts = torch.tensor([[[2.2, 8.0], [1.9, 3.0]]], dtype=torch.float64).expand(2, -1, -1)
    target = torch.tensor([2, 1])
    source = label(x)
    found = label_search(label, x, source, starts, generator=generator(), target=target, budget=400)
    assert torch.equal(label(found.outer), target)
    assert (label(found.inner) != target).all()
    distance = (found.outer - x).norm(dim=1)
    torch.testing.assert_close(distance, torch.tensor([1.5, 0.8]).double(), rtol=0.01, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_label_search__basis__closed_form(dtype):
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
        label, x, source, starts, generator=generator(), basis=basis.to(dtype), budget=400
    )
    change = (found.outer - x).double()
    assert (change - change @ basis.T @ basis).norm(dim=1).max() < 1e-5
    shortest = (x.double() @ weights + problem.bias).abs() / (basis @ weights).norm()
    check(found, x, source, label, shortest, 400, excess=0.01)


def test_label_search__no_boundary__ends_without_success():
    x = torch.zeros(3, 4)
    starts = torch.ones(3, 2, 4)
    source = torch.zeros(3, dtype=torch.long)
    questions = []

    def label(points):
        questions.append(len(points))
        return torch.zeros(len(points), dtype=torch.long)

    box = torch.tensor(-2.0), torch.tensor(2.0)
    for bounds in (None, box):
        found = label_search(label, x, source, starts, generator=generator(), bounds=bounds)
        assert not found.success.any()
        assert torch.equal(found.outer, x) and torch.equal(found.inner, x)
        assert found.n_evaluations.max() <= 100
        assert sum(questions) == found.n_evaluations.sum()
        questions.clear()


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("n_starts", [0, 2])
def test_label_search__no_start_of_another_class__rays_find_it(n_starts, box):
    _score, label, x, source, _, shortest = case("linear", torch.float64)
    starts = x[:, None].expand(-1, n_starts, -1) * 1.001  # own class
    found = label_search(
        label, x, source, starts, generator=generator(), bounds=BOXES[box], budget=400
    )
    check(found, x, source, label, shortest, 400, excess=0.02)


def test_search__global_generator__is_not_touched():
    score, label, x, source, starts, _ = case("circle", torch.float64)
    before = torch.random.get_rng_state()
    label_search(label, x, source, starts, generator=generator(), budget=100)
    score_search(score, x, source, starts, generator=generator(), budget=100)
    assert torch.equal(before, torch.random.get_rng_state())


def test_label_search__bounds_and_basis__raise():
    _score, label, x, source, starts, _ = case("circle", torch.float64)
    with pytest.raises(ValueError, match="exclude each other"):
        label_search(
            label,
            x,
            source,
            starts,
            generator=generator(),
            bounds=BOXES["box"],
            basis=torch.eye(2).double(),
        )


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


def test_reset__trees__never_farther_and_still_across(forest):
    label, x, source, starts = forest
    bracket = segment_search(label, x, source, starts)
    search = module.Search(_label_margin(label, source, None), x, None, 1000)
    everyone = torch.arange(len(x))
    search.outer[:], search.inner[:] = bracket.outer, bracket.inner
    search.radius[:] = (bracket.outer - x).norm(dim=1)
    change = (bracket.outer - x).abs()
    for halvings in (0, 3):
        module.reset(search, everyone, halvings)
        closer = (search.outer - x).abs()
        assert (closer <= change + 1e-12).all()
        assert (label(search.outer) != source).all()
        change = closer
    assert (search.radius < 0.8 * (bracket.outer - x).norm(dim=1)).all()


def test_label_search__trees__beats_segments_and_keeps_labels(forest):
    label, x, source, starts = forest
    segments = segment_search(label, x, source, starts)
    found = label_search(label, x, source, starts, generator=generator(), budget=500)
    assert (label(found.outer) != source).all() and (label(found.inner) == source).all()
    distance = (found.outer - x).norm(dim=1)
    assert distance.mean() < 0.7 * (segments.outer - x).norm(dim=1).mean()


def test_newton_goes_across_also_without_starts():
    """Its points lie beyond the boundary of linear scores, in any unit of x."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    x = torch.randn(20, 4, dtype=torch.float64, generator=generator)
    for unit in (1e-6, 1.0, 1e6):
        score = lambda points: points / unit @ weight
        source = score(unit * x).argmax(1)
        margin = query_search._score_margin(score, source, None)
        search = query_search.Search(margin, unit * x, None, 100)
        starts = (unit * x)[:, None]  # a class without training samples has x itself
        points = query_search._newton(search, score, source, None, starts, 0.1)
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

    def found(rows, target):
        ask = score if name == "score" else lambda points: score(points).argmax(1)
        search = query_search.score_search if name == "score" else query_search.label_search
        return search(
            ask,
            x[rows],
            source[rows],
            starts[rows],
            target=target,
            generator=torch.Generator().manual_seed(0),
            budget=400,
        )

    mixed = found(torch.arange(12), target)
    free, named = torch.arange(0, 12, 2), torch.arange(1, 12, 2)
    for rows, alone in ((free, found(free, None)), (named, found(named, target[named]))):
        torch.testing.assert_close(mixed.outer[rows], alone.outer)
        assert torch.equal(mixed.n_evaluations[rows], alone.n_evaluations)
