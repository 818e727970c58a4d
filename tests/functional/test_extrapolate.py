"""Selection, pairing and placement against literal restatements in plain loops."""

import math

import pytest
import torch

from skboundary.functional import extrapolate
from skboundary.functional.extrapolate import (
    asymmetric_target,
    centroid_ratio,
    fill,
    margin_ratio,
    one_to_one_rounds,
    pair_nearest,
    pair_one_to_one,
    place,
    place_linear,
    place_on_grid,
    reachable,
    segment_ratio,
    select_majors,
    thin,
)

DTYPES = [torch.float32, torch.float64]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def distances(a, b):
    return torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")


def greedy(minors, majors, n_pairs):
    """Pair in rounds: literally, with a look at every major for every minor."""
    d = distances(minors, majors)
    n, m = d.shape
    pairs, done = [], set()
    while len(pairs) < min(n_pairs, n * m):
        used = set()
        for a in range(n):
            if len(used) == m:
                used = set()
            free = [b for b in range(m) if b not in used and (a, b) not in done]
            if free and len(pairs) < n_pairs:
                b = min(free, key=lambda b: (float(d[a, b]), b))
                pairs.append((a, b))
                done.add((a, b))
                used.add(b)
    return torch.tensor(pairs)


# ------------------------------------------------------------------------------- selection


@pytest.mark.parametrize("dtype", DTYPES)
def test_selection_takes_the_asked_share_of_those_on_their_side(dtype):
    margins = torch.randn(101, generator=generator(), dtype=dtype)
    own = sorted((float(g), i) for i, g in enumerate(margins) if g < 0)
    n = round(0.3 * len(own))
    bottom = select_majors(margins, "bottom", 0.3, generator=generator())
    top = select_majors(margins, "top", 0.3, generator=generator())
    assert bottom.tolist() == sorted(i for _, i in own[-n:])
    assert top.tolist() == sorted(i for _, i in own[:n])
    random = [select_majors(margins, "random", 0.3, generator=generator(s)) for s in (1, 1, 2)]
    assert torch.equal(random[0], random[1]) and not torch.equal(random[0], random[2])
    assert all(len(r) == n and (margins[r] < 0).all() for r in random)


def test_selection_of_ties_and_of_few():
    ties = torch.full((10,), -1.0)
    for bias in ("bottom", "top"):
        assert select_majors(ties, bias, 0.3, generator=generator()).tolist() == [0, 1, 2]
    few = torch.tensor([1.0, -2.0, 3.0])
    assert select_majors(few, "bottom", 0.01, generator=generator()).tolist() == [1]
    assert len(select_majors(few.abs(), "random", 1.0, generator=generator())) == 0


# --------------------------------------------------------------------------------- pairing


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "m", "d", "n_pairs"),
    [(5, 3, 2, 15), (3, 5, 2, 15), (1, 4, 2, 4), (4, 1, 2, 9), (30, 60, 8, 100),
     (60, 90, 2, 250), (13, 60, 2, 200), (12, 15, 3, 180)],
)  # fmt: skip
@pytest.mark.parametrize("ahead", [None, (1, 1), (3, 2)])
def test_one_to_one_is_the_literal_greedy_loop(dtype, n, m, d, n_pairs, ahead, monkeypatch):
    g = generator(n * m)
    minors, majors = (torch.randn(k, d, generator=g).to(dtype) for k in (n, m))
    if ahead:  # short lists run dry and narrow windows move on
        monkeypatch.setattr(extrapolate, "_DEPTH", ahead[0])
        monkeypatch.setattr(extrapolate, "_WINDOW", ahead[1])
        pairs = torch.empty(0, 2, dtype=torch.int64)
        for some in one_to_one_rounds(minors, majors, n_rounds=0):
            pairs = torch.cat([pairs, some])[:n_pairs]
            if len(pairs) == n_pairs:
                break
    else:
        pairs = pair_one_to_one(minors, majors, n_pairs)
    assert torch.equal(pairs, greedy(minors, majors, n_pairs))


def test_one_to_one_with_ties():
    g = generator()
    for _ in range(5):
        minors = torch.randint(0, 4, (20, 2), generator=g).double()
        majors = torch.randint(0, 4, (35, 2), generator=g).double()
        assert torch.equal(pair_one_to_one(minors, majors, 300), greedy(minors, majors, 300))


def test_rounds_use_a_major_once_and_leave_no_pair_over():
    g = generator()
    minors, majors = torch.randn(20, 3, generator=g), torch.randn(33, 3, generator=g)
    rounds = list(one_to_one_rounds(minors, majors, 33))
    for pairs in rounds:
        assert len(pairs[:, 1].unique()) == len(pairs)
        assert (pairs[1:, 0] > pairs[:-1, 0]).all()
    assert len(torch.cat(rounds).unique(dim=0)) == 20 * 33 == len(torch.cat(rounds))
    # more minors than majors: all majors serve before any serves again
    (first, *_) = one_to_one_rounds(majors, minors, 1)
    assert first[:20, 1].unique().tolist() == list(range(20)) and len(first) == 33


@pytest.mark.parametrize("dtype", DTYPES)
def test_nearest_asks_no_more_than_it_needs(dtype):
    g = generator()
    queries, rows = (torch.randn(k, 4, generator=g).to(dtype) for k in (50, 30))
    order = distances(queries, rows).argsort(dim=1, stable=True)
    for n_pairs, k, asked in ((100, 5, 20), (250, 5, 50), (600, 12, 50), (7, 5, 2), (9999, 30, 50)):
        pairs = pair_nearest(queries, rows, n_pairs, 5, generator=generator())
        assert len(pairs) == min(n_pairs, 1500) == len(pairs.unique(dim=0))
        assert len(pairs[:, 0].unique()) == asked
        for rank, part in enumerate(pairs.split(asked)):
            assert torch.equal(part[:, 1], order[part[:, 0], rank])
        assert math.ceil(len(pairs) / asked) <= k
    one, two = (pair_nearest(queries, rows, 7, 5, generator=generator(s)) for s in (1, 2))
    assert not torch.equal(one, two)


def test_fill_repeats_from_the_first():
    pairs = torch.tensor([[0, 1], [2, 3], [4, 5]])
    filled, repeated = fill(pairs, 7)
    assert filled[:, 0].tolist() == [0, 2, 4, 0, 2, 4, 0]
    assert repeated.tolist() == [False] * 3 + [True] * 4


# -------------------------------------------------------------------------- the probability


@pytest.mark.parametrize("dtype", DTYPES)
def test_ratios(dtype):
    z = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=dtype)
    minor, major = torch.tensor([3.0, 0.0], dtype=dtype), torch.tensor([0.0, 8.0], dtype=dtype)
    torch.testing.assert_close(
        centroid_ratio(z, minor, major), torch.tensor([8 / 3, 5 / 4], dtype=dtype)
    )
    torch.testing.assert_close(
        segment_ratio(torch.tensor([0.2, 0.5], dtype=dtype)), torch.tensor([4.0, 1.0], dtype=dtype)
    )
    minor_margins = torch.tensor([0.5, -3.0, 1.5, 9.0], dtype=dtype)
    major_margins = torch.tensor([-4.0, -2.0, 7.0, -8.0, -9.0], dtype=dtype)
    ratio = margin_ratio(minor_margins, major_margins, 0.5)  # 2 of 3, 2 of 4 (half to even)
    torch.testing.assert_close(ratio, torch.tensor(3.0, dtype=dtype))


def test_the_target_of_equation_1():
    ratio = torch.tensor([0.3, 1.0, 1.5, 2.0, 50.0], dtype=torch.float64)

    def expected(gamma, p_max, p_min):
        raw = [0.5 + gamma * p_max * (max(1, r) - 1) for r in ratio.tolist()]
        return torch.tensor([min(max(p, p_min), 1 - p_min) for p in raw], dtype=torch.float64)

    for setting in ((-0.4, 1.0, 0.05), (0.4, 0.5, 0.1), (0.0, 1.0, 0.0)):
        torch.testing.assert_close(asymmetric_target(ratio, *setting), expected(*setting))


def test_targets_are_clipped_to_a_tenth_of_the_gap():
    minor, major = torch.tensor([0.8, 0.8, 0.8]).logit(), torch.tensor([0.3, 0.3, 0.3]).logit()
    clipped = reachable(torch.tensor([0.05, 0.5, 0.79]), minor, major)
    torch.testing.assert_close(clipped, torch.tensor([0.35, 0.5, 0.75]))


# ---------------------------------------------------------------------------- the position


def segments(n, dtype):
    g = generator(n)
    minor = torch.rand(n, generator=g, dtype=torch.float64) * 9 + 1e-3
    major = -torch.rand(n, generator=g, dtype=torch.float64) * 9 - 1e-3
    target = reachable(torch.rand(n, generator=g, dtype=torch.float64), minor, major)
    return target.to(dtype), minor.to(dtype), major.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_closed_form_equals_root_finding(dtype):
    target, minor, major = segments(500, dtype)
    position = place_linear(target, minor, major)
    assert ((position > 0) & (position < 1)).all()
    torch.testing.assert_close(torch.lerp(minor, major, position).sigmoid(), target)
    found, there = place(
        lambda t, rows: torch.lerp(minor[rows], major[rows], t), target, minor, major
    )
    assert there.all()
    torch.testing.assert_close(found, position, atol=1e-4, rtol=1e-4)


def test_root_finding_on_curved_margins():
    target, minor, major = segments(500, torch.float64)

    def margin(t, rows):
        return torch.lerp(minor[rows], major[rows], t**3)

    position, there = place(margin, target, minor, major)
    assert there.all()
    reached = margin(position, torch.arange(500)).sigmoid()
    assert (reached - target).abs().max() < 1e-3


def test_a_jump_is_met_from_the_nearer_side():
    def margin(t, rows):
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


def test_the_grid_finds_the_nearest_hundredth():
    minor = torch.tensor([3.0, 60.0]).double()  # the second is too steep for a hundredth
    major = torch.tensor([-1.0, -61.0]).double()
    position, accepted = place_on_grid(lambda t, rows: torch.lerp(minor, major, t), 2)
    assert position[0] == 0.75 and accepted.tolist() == [True, False]
