"""The fewest changes: closed form for linear scores, every subset for small problems."""

import itertools

import pytest
import torch

import skboundary.functional.sparse_search as module
from skboundary.functional._coordinate_values import CoordinateValues
from skboundary.functional.sparse_search import sparse_search

DTYPES = [torch.float32, torch.float64]


def draw(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


class Linear:
    """Class 1 where w x > b; counts the points that it got."""

    def __init__(self, weight, bias):
        self.weight, self.bias, self.n = weight, bias, 0

    def score(self, points):
        self.n += len(points)
        value = points @ self.weight - self.bias
        return torch.stack([-value, value], 1)

    def label(self, points):
        return self.score(points).argmax(1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e5])
def test_the_number_of_changes_is_the_least_for_linear_scores(dtype, unit):
    """The coordinates that gain most come first, each at one end of its values."""
    values = unit * draw(40, 7, seed=2, dtype=dtype).clamp(-0.7, 0.7)
    net = Linear(draw(7, seed=1, dtype=dtype) / unit, 0.3)
    x = unit * draw(30, 7, seed=3, dtype=dtype)
    source = net.label(x)
    net.n = 0
    starts = values[net.label(values) == 1][:2].expand(30, 2, 7)
    n = net.n
    found = sparse_search(net.label, x, source, values=values, starts=starts, score=net.score)
    assert found.n_forward.sum() == net.n - n
    ends = torch.stack([values.amin(0), values.amax(0)])
    margin = (x @ net.weight - net.bias).abs()
    gains = torch.where(source[:, None] == 0, net.weight, -net.weight) * (ends[:, None] - x)
    best = gains.amax(0).sort(1, descending=True).values.cumsum(1)
    exact = (best < margin[:, None]).sum(1) + 1
    ok = exact <= 7
    assert ok.sum() > 20 and exact[ok].max() > 2 and found.points.dtype == dtype
    assert torch.equal(found.success, ok)
    assert ((found.points != x).sum(1)[ok] == exact[ok]).all()
    assert (net.label(found.points) != source)[ok].all()


def brute_force(label, x, values, source):
    """The least number of changes of x, by every subset of columns and every choice of values."""
    columns = [values[:, j].unique() for j in range(len(x))]
    for k in range(1, len(x) + 1):
        for subset in itertools.combinations(range(len(x)), k):
            choices = torch.cartesian_prod(*[columns[j] for j in subset]).view(-1, k)
            points = x.expand(len(choices), -1).clone()
            points[:, list(subset)] = choices
            if (label(points) != source).any():
                return k
    return 0


@pytest.mark.parametrize("with_scores", [True, False])
def test_small_problems_against_every_subset(with_scores):
    """Random boxes in a grid: single changes are never missed, and few others are."""
    n_exact = n_all = 0
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        values = torch.randint(0, 4, (12, 4), generator=generator).double()
        low = torch.randint(0, 3, (3, 4), generator=generator).double()

        def depth(points, low=low):
            inside = (points[:, None] >= low) & (points[:, None] <= low + 1)
            return inside.double().sum(2).amax(1)  # coordinates inside of a box

        label = lambda points, depth=depth: (depth(points) == 4).long()
        score = lambda points, depth=depth: torch.stack(
            [3.5 - depth(points), depth(points) - 3.5], 1
        )
        x = torch.randint(0, 4, (25, 4), generator=generator).double()
        source = label(x)
        starts = values[:, None].expand(12, 25, 4).transpose(0, 1)
        found = sparse_search(
            label,
            x,
            source,
            values=values,
            starts=starts,
            score=score if with_scores else None,
            n_values=4,
            n_paths=2,
        )
        for i in range(25):
            exact = brute_force(label, x[i], values, source[i])
            n = int((found.points[i] != x[i]).sum())
            if found.success[i]:
                assert label(found.points[i : i + 1]) != source[i]
                assert n >= exact > 0
            assert n == 1 or exact != 1
            n_exact, n_all = n_exact + (n == exact), n_all + 1
    assert n_exact / n_all > (0.9 if with_scores else 0.7)


def test_without_scores_starts_are_set_back_until_nothing_can_be():
    values = draw(30, 6, seed=1)
    label = lambda points: ((points[:, 0] > 0.5) & (points[:, 2] + points[:, 3] > 1)).long()
    x = draw(20, 6, seed=2)
    x = x[label(x) == 0]
    starts = values[label(values) == 1]
    assert len(starts) > 1
    starts = starts.expand(len(x), *starts.shape)
    source = torch.zeros(len(x), dtype=torch.long)
    found = sparse_search(label, x, source, values=values, starts=starts)
    assert found.success.all() and (label(found.points) == 1).all()
    for i, j in (found.points != x).nonzero().tolist():
        point = found.points[i].clone()
        point[j] = x[i, j]
        assert label(point[None]) == 0
    assert (found.points != x)[:, [1, 4, 5]].sum() == 0


def test_changed_values_are_the_nearest_that_keep_the_class():
    values = torch.arange(100.0)[:, None] * torch.tensor([1.0, 0.0])
    label = lambda points: ((points[:, 0] > 30.5) & (points[:, 0] < 77.5)).long()
    x, source = torch.tensor([[3.0, 0], [90.2, 0], [-5.0, 0]]), torch.zeros(3, dtype=torch.long)
    starts = torch.tensor([[[50.0, 0]]]).expand(3, 1, 2)
    found = sparse_search(label, x, source, values=values, starts=starts)
    assert found.points[:, 0].tolist() == [31, 77, 31]
    inside = sparse_search(label, found.points, 1 - source, values=values, starts=starts * 0)
    assert inside.points[:, 0].tolist() == [30, 78, 30]


def test_bounds_limit_the_values_and_fix_coordinates():
    net, values = Linear(torch.tensor([3.0, 1.0, 1.0]), 4.0), draw(50, 3, seed=1).float()
    values[0] = 3.0
    x = draw(20, 3, seed=2).float().clamp(-1, 1)
    x = x[net.label(x) == 0]
    source, none = torch.zeros(len(x), dtype=torch.long), x[:, None]
    free = sparse_search(net.label, x, source, values=values, starts=none, score=net.score)
    assert (free.points[:, 0] != x[:, 0]).sum() > len(x) / 2
    low, high = torch.full_like(x, -2), torch.full_like(x, 3.0)
    low[:, 0] = high[:, 0] = x[:, 0]
    bounds = low, high
    kept = sparse_search(
        net.label, x, source, bounds=bounds, values=values, starts=none, score=net.score
    )
    assert kept.success.any() and (kept.points[:, 0] == x[:, 0]).all()
    tight = low, torch.where(high == 3, 1.0, high)
    found = sparse_search(
        net.label, x, source, bounds=tight, values=values, starts=none, score=net.score
    )
    assert not found.success.all()
    assert (found.points <= tight[1]).all() and (found.points >= tight[0]).all()
    assert torch.equal(found.points[~found.success], x[~found.success])


def test_categories_have_nothing_in_between():
    values = torch.tensor([[0.0, 1], [3, 2], [7, 3], [7, 9]])
    label = lambda points: (points[:, 0] == 3).long()  # between 0 and 7 by order
    x, source = torch.tensor([[7.0, 1], [0, 1], [5, 5]]), torch.zeros(3, dtype=torch.long)
    categorical = torch.tensor([True, False])
    found = sparse_search(
        label, x, source, values=values, starts=x[:, None], categorical=categorical
    )
    assert found.points.tolist() == [[3, 1], [3, 1], [3, 5]]


def test_values_to_try_are_the_most_frequent_categories_and_evenly_spaced_numbers():
    category = torch.arange(70.0).repeat_interleave(torch.arange(1, 71))  # 69 is most frequent
    number = (torch.arange(len(category)) % 9).double()
    values, categorical = torch.stack([category, number], 1), torch.tensor([True, False])
    columns = CoordinateValues(values, categorical, 5)
    assert columns.options[0].tolist() == [*range(69, 5, -1)]
    assert columns.options[1, columns.is_option[1]].tolist() == [0, 2, 4, 6, 8]
    assert columns.scale.tolist() == [1, pytest.approx(number.numpy().std())]


def test_lengths_count_another_category_as_one_and_numbers_by_their_deviation():
    values = torch.tensor([[0.0, -3, 5], [1, 3, 5], [9, 3, 5], [9, -3, 5]])
    columns = CoordinateValues(values, torch.tensor([True, False, False]), 2)
    x = values[:1]
    assert columns.distance(x + torch.tensor([[1.0, 0, 0], [9, 0, 0]]), x).tolist() == [1, 1]
    assert columns.distance(x + torch.tensor([[0.0, 3, 0], [0, 0, 3]]), x).tolist() == [1, 3]
    points = x + torch.tensor([[1.0, 6, 2], [0, 0, 0]])
    assert columns.distance(points, x).tolist() == [3, 0]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_points_with_too_many_changes_are_not_returned(most):
    net, values = Linear(torch.ones(5, dtype=torch.float64), 3.0), draw(50, 5, seed=1).clamp(-1, 1)
    x = draw(40, 5, seed=2)
    x = x[net.label(x) == 0]
    source = torch.zeros(len(x), dtype=torch.long)
    run = lambda limit: sparse_search(
        net.label, x, source, values=values, starts=x[:, None], score=net.score, max_changes=limit
    )
    free, limited = run(None), run(most)
    n_changes = (free.points != x).sum(1)
    assert (limited.success == (free.success & (n_changes <= most))).all()
    assert limited.success.any() and ((limited.points != x).sum(1) <= most).all()


def test_targets_and_samples_of_several_parts(monkeypatch):
    weight, values, x = draw(3, 5, seed=1), draw(30, 5, seed=2), draw(40, 5, seed=3)
    score = lambda points: points @ weight.T
    label = lambda points: score(points).argmax(1)
    source = label(x)
    target = torch.where(torch.arange(40) % 2 == 0, (source + 1) % 3, -1)
    starts = torch.stack([values[label(values) == c][:2] for c in range(3)])[(source + 1) % 3]
    run = lambda: sparse_search(
        label, x, source, target=target, values=values, starts=starts, score=score, n_paths=2
    )
    found = run()
    assert found.success.all()
    reached = label(found.points)
    assert torch.where(target < 0, reached != source, reached == target).all()
    monkeypatch.setattr(module, "_MAX_NUMBERS", 1000)
    again = run()
    assert torch.equal(again.points, found.points) and torch.equal(again.n_forward, found.n_forward)


def test_constant_labels_are_not_found():
    label, x = (lambda points: torch.zeros(len(points), dtype=torch.long)), draw(4, 3)
    source = torch.zeros(4, dtype=torch.long)
    found = sparse_search(label, x, source, values=draw(9, 3), starts=draw(4, 2, 3))
    assert not found.success.any() and torch.equal(found.points, x)
    none = sparse_search(label, x[:0], source[:0], values=draw(9, 3), starts=draw(0, 2, 3))
    assert none.points.shape == (0, 3)
