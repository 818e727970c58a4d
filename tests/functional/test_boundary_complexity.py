import math

import pytest
import torch

from skboundary.functional.boundary_complexity import (
    distance_to_samples,
    draw_partners,
    linearity,
    oscillation,
)


def draws(seed, *shape, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def checkerboard(x):
    return x.floor().sum(1).long() % 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_points", [2, 50])
def test_oscillation_is_the_slow_count(dtype, n_points):
    start, end = (4 * draws(i, 9, 2, dtype=dtype) for i in range(2))
    found = oscillation(checkerboard, start, end, n_points=n_points)
    assert found.share.dtype == dtype
    for i in range(9):
        t = torch.arange(n_points, dtype=dtype)[:, None] / n_points
        classes = checkerboard(t * start[i] + (1 - t) * end[i]).tolist()
        changes = sum(classes[u] != classes[u + 1] for u in range(n_points - 1))
        assert found.changes[i] == changes
        assert float(found.share[i]) == pytest.approx(changes / n_points)


def test_oscillation_of_a_line_is_one_change_per_crossing_segment():
    start, end = 2 * draws(0, 200, 2) - 1, 2 * draws(1, 200, 2) - 1
    side = lambda x: (x @ torch.tensor([1.0, -0.5]).double() > 0.1).long()
    # t = 0 ... 49 / 50 reads from `end` up to a fiftieth before `start`
    crosses = side(end) != side(start + (end - start) / 50)
    assert crosses.any() and not crosses.all()
    assert torch.equal(oscillation(side, start, end).changes, crosses.long())


def test_a_batch_holds_few_samples_at_a_time():
    largest = 0

    def label(x):
        nonlocal largest
        largest = max(largest, x.numel())
        return torch.zeros(len(x), dtype=torch.long)

    oscillation(label, torch.zeros(300, 1000), torch.zeros(300, 1000))
    assert 50 * 1000 <= largest <= 2**22


@pytest.mark.parametrize(("n", "m"), [(2, 50), (40, 50), (120, 50), (3000, 5)])
def test_partners_are_others_and_differ(n, m):
    partners = draw_partners(n, m, torch.Generator().manual_seed(0))
    assert partners.shape == (n, min(m, n - 1))
    assert (partners != torch.arange(n)[:, None]).all()
    assert partners.min() >= 0 and partners.max() < n
    ordered = partners.sort(1).values
    assert (ordered[:, 1:] != ordered[:, :-1]).all()
    if m < n - 1:  # every other point is as likely
        counts = torch.bincount(partners.flatten(), minlength=n).double()
        assert (counts - m).abs().max() < 6 * math.sqrt(m)


@pytest.mark.parametrize("n", [0, 1])
def test_a_point_alone_has_no_partner(n):
    assert draw_partners(n, 50, torch.Generator()).shape == (n, 0)


def test_linearity_is_the_papers_formula():
    d = torch.tensor([0.5, 2.0, -1.0, 3.0, -0.25, 0.0]).double()
    positive = torch.tensor([True, False, False, True, True, False])
    found = linearity(d, positive)
    mean, wrong = 6.75 / 6, (2.0 + 0.25) / 2
    assert found.distance.item() == pytest.approx(mean / (1 + mean))
    assert found.error_distance.item() == pytest.approx(wrong / (1 + wrong))
    assert found.error_rate.item() == pytest.approx(2 / 6)
    right = linearity(d, d > 0)
    assert right.error_rate == 0 and right.error_distance.isnan()
    nothing = linearity(d[:0], positive[:0])
    assert all(value.isnan() for value in nothing)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distance_to_samples(dtype):
    points, samples = draws(0, 20, 3, dtype=dtype), draws(1, 50, 3, dtype=dtype)
    expected = (points[:, None].double() - samples.double()).norm(dim=2).amin(1)
    found = distance_to_samples(points, samples)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-6)
