"""Pairing against literal restatements in plain loops."""

import math

import pytest
import torch

from skboundary.functional import pairing
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
        monkeypatch.setattr(pairing, "_DEPTH", ahead[0])
        monkeypatch.setattr(pairing, "_WINDOW", ahead[1])
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
