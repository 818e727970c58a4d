"""Selection, targets and placement against literal restatements and closed forms."""

import pytest
import torch

from skboundary.functional.extrapolation import (
    asymmetric_target,
    centroid_ratio,
    margin_ratio,
    place,
    place_linear,
    place_on_grid,
    reachable,
    segment_ratio,
    select_majority,
    thin,
)

DTYPES = [torch.float32, torch.float64]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------- selection


@pytest.mark.parametrize("dtype", DTYPES)
def test_selection_takes_the_given_share_of_those_on_their_side(dtype):
    margins = torch.randn(101, generator=generator(), dtype=dtype)
    own = sorted((float(g), i) for i, g in enumerate(margins) if g < 0)
    n = round(0.3 * len(own))
    bottom = select_majority(margins, "bottom", 0.3, generator=generator())
    top = select_majority(margins, "top", 0.3, generator=generator())
    assert bottom.tolist() == sorted(i for _, i in own[-n:])
    assert top.tolist() == sorted(i for _, i in own[:n])
    random = [select_majority(margins, "random", 0.3, generator=generator(s)) for s in (1, 1, 2)]
    assert torch.equal(random[0], random[1]) and not torch.equal(random[0], random[2])
    assert all(len(r) == n and (margins[r] < 0).all() for r in random)


def test_selection_of_ties_and_of_few():
    ties = torch.full((10,), -1.0)
    for bias in ("bottom", "top"):
        assert select_majority(ties, bias, 0.3, generator=generator()).tolist() == [0, 1, 2]
    few = torch.tensor([1.0, -2.0, 3.0])
    assert select_majority(few, "bottom", 0.01, generator=generator()).tolist() == [1]
    assert len(select_majority(few.abs(), "random", 1.0, generator=generator())) == 0


# -------------------------------------------------------------------------- the probability


@pytest.mark.parametrize("dtype", DTYPES)
def test_ratios(dtype):
    z = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=dtype)
    minority, majority = (torch.tensor(v, dtype=dtype) for v in ([3.0, 0.0], [0.0, 8.0]))
    torch.testing.assert_close(
        centroid_ratio(z, minority, majority), torch.tensor([8 / 3, 5 / 4], dtype=dtype)
    )
    torch.testing.assert_close(
        segment_ratio(torch.tensor([0.2, 0.5], dtype=dtype)), torch.tensor([4.0, 1.0], dtype=dtype)
    )
    minority_margins = torch.tensor([0.5, -3.0, 1.5, 9.0], dtype=dtype)
    majority_margins = torch.tensor([-4.0, -2.0, 7.0, -8.0, -9.0], dtype=dtype)
    ratio = margin_ratio(minority_margins, majority_margins, 0.5)  # 2 of 3, 2 of 4 (half to even)
    torch.testing.assert_close(ratio, torch.tensor(3.0, dtype=dtype))


def test_the_target_of_equation_1():
    ratio = torch.tensor([0.3, 1.0, 1.5, 2.0, 50.0], dtype=torch.float64)

    def expected(gamma, p_min):
        raw = [0.5 + gamma * (max(1, r) - 1) for r in ratio.tolist()]
        return torch.tensor([min(max(p, p_min), 1 - p_min) for p in raw], dtype=torch.float64)

    for setting in ((-0.4, 0.05), (0.2, 0.1), (0.0, 0.0)):
        torch.testing.assert_close(asymmetric_target(ratio, *setting), expected(*setting))


def test_targets_are_clipped_to_a_tenth_of_the_gap():
    minority, majority = (
        torch.tensor([0.8, 0.8, 0.8]).logit(),
        torch.tensor([0.3, 0.3, 0.3]).logit(),
    )
    clipped = reachable(torch.tensor([0.05, 0.5, 0.79]), minority, majority)
    torch.testing.assert_close(clipped, torch.tensor([0.35, 0.5, 0.75]))


# ---------------------------------------------------------------------------- the position


def segments(n, dtype):
    g = generator(n)
    minority = torch.rand(n, generator=g, dtype=torch.float64) * 9 + 1e-3
    majority = -torch.rand(n, generator=g, dtype=torch.float64) * 9 - 1e-3
    target = reachable(torch.rand(n, generator=g, dtype=torch.float64), minority, majority)
    return target.to(dtype), minority.to(dtype), majority.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_closed_form_equals_root_finding(dtype):
    target, minority, majority = segments(500, dtype)
    position = place_linear(target, minority, majority)
    assert ((position > 0) & (position < 1)).all()
    torch.testing.assert_close(torch.lerp(minority, majority, position).sigmoid(), target)
    found, there = place(
        lambda t, index: torch.lerp(minority[index], majority[index], t), target, minority, majority
    )
    assert there.all()
    torch.testing.assert_close(found, position, atol=1e-4, rtol=1e-4)


def test_root_finding_on_curved_margins():
    target, minority, majority = segments(500, torch.float64)

    def margin(t, index):
        return torch.lerp(minority[index], majority[index], t**3)

    position, there = place(margin, target, minority, majority)
    assert there.all()
    reached = margin(position, torch.arange(500)).sigmoid()
    assert (reached - target).abs().max() < 1e-3


def test_a_jump_is_met_from_the_nearer_side():
    def margin(t, index):
        return (2.0 - 1.5 * (t >= 0.3) - 3.5 * (t >= 0.7)).double()  # p = .88, .62, .05

    ends = torch.tensor([2.0, 2.0]).double(), torch.tensor([-3.0, -3.0]).double()
    target = torch.tensor([0.7, 0.1]).double()
    position, there = place(margin, target, *ends, max_iter=30)
    assert not there.any()
    assert margin(position, None).tolist() == [0.5, -3.0]
    torch.testing.assert_close(position, torch.tensor([0.3, 0.7]).double(), atol=1e-5, rtol=0)


# ------------------------------------------------------------- decision-boundary re-sampling


def test_thinning_takes_every_tenth():
    d = torch.rand(200, generator=generator(), dtype=torch.float64)
    order = sorted(range(200), key=lambda i: float(d[i]))
    assert thin(d, 20).tolist() == [order[q] for q in range(0, 200, 10)]
    assert thin(d, 60).tolist() == [order[round(q * 200 / 60)] for q in range(60)]
    assert sorted(thin(d, 999).tolist()) == list(range(200))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_grid_finds_the_nearest_hundredth(dtype):
    minority = torch.tensor([3.0, 60.0, 0.3]).to(dtype)  # the second is too steep for a hundredth
    majority = torch.tensor([-1.0, -61.0, -1e-3]).to(dtype)
    tried = []

    def margin(t, index):
        tried.append(float(t[0]))
        return torch.lerp(minority[index], majority[index], t)

    position, accepted = place_on_grid(margin, majority)
    assert position.dtype == dtype and accepted.tolist() == [True, False, True]
    assert position.tolist() == pytest.approx([0.75, 0.5, 1.0])
    assert tried == pytest.approx([1 - step / 100 for step in range(1, 100)])
