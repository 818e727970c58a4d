"""Pairing against literal restatements in plain loops."""

import pytest
import torch
from scipy.stats import chi2

from skboundary.functional import pairing
from skboundary.functional.nearest_neighbors import search
from skboundary.functional.pairing import (
    fill,
    one_to_one_rounds,
    pair_nearest,
    pair_one_to_one,
)

DTYPES = [torch.float32, torch.float64]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def distances(a, b):
    return torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")


def greedy(minority, majority, n_pairs):
    """Pair in rounds, literally: every pair of samples is considered."""
    d = distances(minority, majority)
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "m", "d", "n_pairs"),
    [
        (5, 3, 2, 15),
        (3, 5, 2, 15),
        (1, 4, 2, 4),
        (4, 1, 2, 9),
        (30, 60, 8, 100),
        (60, 90, 2, 250),
        (13, 60, 2, 200),
        (12, 15, 3, 180),
    ],
)
@pytest.mark.parametrize("ahead", [None, (1, 1), (3, 2)])
def test_one_to_one_is_the_literal_greedy_loop(dtype, n, m, d, n_pairs, ahead, monkeypatch):
    g = generator(n * m)
    minority, majority = (torch.randn(k, d, generator=g).to(dtype) for k in (n, m))
    if ahead:  # short lists run dry and narrow windows move on
        monkeypatch.setattr(pairing, "_DEPTH", ahead[0])
        monkeypatch.setattr(pairing, "_WINDOW", ahead[1])
        pairs = torch.empty(0, 2, dtype=torch.int64)
        for some in one_to_one_rounds(minority, majority, n_rounds=0):
            pairs = torch.cat([pairs, some])[:n_pairs]
            if len(pairs) == n_pairs:
                break
    else:
        pairs = pair_one_to_one(minority, majority, n_pairs)
    assert torch.equal(pairs, greedy(minority, majority, n_pairs))


def test_one_to_one_with_ties():
    g = generator()
    for _ in range(5):
        minority = torch.randint(0, 4, (20, 2), generator=g).double()
        majority = torch.randint(0, 4, (35, 2), generator=g).double()
        assert torch.equal(
            pair_one_to_one(minority, majority, 300), greedy(minority, majority, 300)
        )


def test_rounds_use_a_majority_sample_once_and_yield_every_pair():
    g = generator()
    minority, majority = torch.randn(20, 3, generator=g), torch.randn(33, 3, generator=g)
    rounds = list(one_to_one_rounds(minority, majority, 33))
    for pairs in rounds:
        assert len(pairs[:, 1].unique()) == len(pairs)
        assert (pairs[1:, 0] > pairs[:-1, 0]).all()
    assert len(torch.cat(rounds).unique(dim=0)) == 20 * 33 == len(torch.cat(rounds))
    # more minority samples: all majority samples are used before any is used again
    (first, *_) = one_to_one_rounds(majority, minority, 1)
    assert first[:20, 1].unique().tolist() == list(range(20)) and len(first) == 33


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exclude_self", [False, True])
def test_nearest_pairs_are_near_and_different(dtype, exclude_self):
    g = generator()
    queries, samples = (torch.randn(k, 4, generator=g).to(dtype) for k in (50, 30))
    samples = queries if exclude_self else samples
    m = len(samples) - exclude_self
    order = distances(queries, samples).argsort(dim=1, stable=True)[:, exclude_self:]
    for n_pairs, k in ((100, 5), (250, 5), (251, 6), (600, 12), (7, 5), (9999, m)):
        pairs = pair_nearest(
            queries, samples, n_pairs, 5, generator=generator(), exclude_self=exclude_self
        )
        assert len(pairs) == min(n_pairs, 50 * m) == len(pairs.unique(dim=0))
        assert (order[pairs[:, 0], :k] == pairs[:, 1:]).any(1).all()
    again = pair_nearest(
        queries, samples, 999, 5, generator=generator(), exclude_self=exclude_self, replace=True
    )
    assert len(again) == 999 and (order[again[:, 0], :5] == again[:, 1:]).any(1).all()
    few = pair_nearest(queries, samples, 99, 99, generator=generator(), replace=True)
    assert len(few) == 99 and few[:, 1].max() < len(samples)
    one, two, again = (
        pair_nearest(queries, samples, 7, 5, generator=generator(s)) for s in (1, 2, 1)
    )
    assert torch.equal(one, again) and not torch.equal(one, two)


@pytest.mark.parametrize("replace", [False, True])
def test_each_pair_is_drawn_with_the_same_chance(replace):
    g = generator()
    queries, samples = torch.randn(9, 2, generator=g), torch.randn(12, 2, generator=g)
    n_draws, n_pairs, k = 400, 10, 3
    counts = torch.zeros(9, 12, dtype=torch.float64)
    for _ in range(n_draws):
        pairs = pair_nearest(queries, samples, n_pairs, k, generator=g, replace=replace)
        counts.index_put_(tuple(pairs.T), torch.ones(n_pairs).double(), accumulate=True)
    near = distances(queries, samples).argsort(dim=1, stable=True)[:, :k]
    drawn = counts.gather(1, near).flatten()
    assert drawn.sum() == counts.sum() == n_draws * n_pairs  # none but the nearest
    expected = n_draws * n_pairs / (9 * k)
    statistic = ((drawn - expected) ** 2 / expected).sum()
    if not replace:  # so many of the pairs at once vary less
        statistic /= (9 * k - n_pairs) / (9 * k - 1)
    assert 0.001 < chi2.sf(float(statistic), 9 * k - 1) < 0.999


def test_with_replacement_as_many_queries_are_used_as_in_smote():
    samples = torch.randn(53, 4, generator=generator())
    for n, expected in ((53, 33.7), (26, 20.7)):
        bases = [
            len(
                pair_nearest(
                    samples, samples, n, 5, generator=generator(s), exclude_self=True, replace=True
                )[:, 0].unique()
            )
            for s in range(40)
        ]
        assert sum(bases) / 40 == pytest.approx(expected, abs=1) and min(bases) > expected - 8


def test_only_drawn_queries_are_searched(monkeypatch):
    searched = []

    def spy(index, queries, k, **kwargs):
        searched.append(len(queries))
        return search(index, queries, k, **kwargs)

    monkeypatch.setattr(pairing, "search", spy)
    samples = torch.randn(500, 4, generator=generator())
    pairs = pair_nearest(samples, samples, 20, 5, generator=generator(), exclude_self=True)
    assert searched == [len(pairs[:, 0].unique())] and searched[0] <= 20


def test_fill_repeats_from_the_first():
    pairs = torch.tensor([[0, 1], [2, 3], [4, 5]])
    filled, repeated = fill(pairs, 7)
    assert filled[:, 0].tolist() == [0, 2, 4, 0, 2, 4, 0]
    assert repeated.tolist() == [False] * 3 + [True] * 4
