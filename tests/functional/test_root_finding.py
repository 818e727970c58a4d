"""Batched root finding against closed forms and scalar loops."""

import math

import pytest
import torch

from skboundary.functional.root_finding import find_root

DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_cubic_roots(dtype):
    roots = torch.rand(200, dtype=dtype, generator=torch.Generator().manual_seed(0))
    calls = []

    def value(t, index):
        calls.append(len(index))
        return (t - roots[index]) * (1 + 5 * (t - roots[index]) ** 2)

    low, high = torch.zeros(200, dtype=dtype), torch.ones(200, dtype=dtype)
    index = torch.arange(200)
    root = find_root(value, low, high, value(low, index), value(high, index), tol=1e-5)
    assert root.converged.all() and (root.t - roots).abs().max() <= 1.2e-5
    assert (root.low <= root.t).all() and (root.t <= root.high).all()
    assert root.n_evaluations.sum() == sum(calls[2:])
    assert calls[-1] < 200  # functions that are done have left
    assert root.n_evaluations.max() <= 12  # bisection would need 17


@pytest.mark.parametrize("dtype", DTYPES)
def test_jumps_are_bisected_to_the_last_bit(dtype):
    jumps = torch.tensor([0.1, 1 / 3, 0.77, 0.9999], dtype=dtype)

    def value(t, index):
        return torch.where(t < jumps[index], -1.0, 3.0).to(dtype)

    low, high = torch.zeros(4, dtype=dtype), torch.ones(4, dtype=dtype)
    ends = torch.full((4,), -1.0, dtype=dtype), torch.full((4,), 3.0, dtype=dtype)
    root = find_root(value, low, high, *ends, tol=0.0, max_iter=300)
    assert not root.converged.any()
    assert (root.low < jumps).all() and (root.high >= jumps).all()
    assert (torch.nextafter(root.low, root.high) == root.high).all()
    short = find_root(value, low, high, *ends, tol=0.0, max_iter=20)
    assert (short.n_evaluations == 20).all() and ((short.high - short.low) < 1e-3).all()


def test_intervals_without_a_change_of_sign_are_unchanged():
    low, high = torch.zeros(3), torch.ones(3)
    f_low, f_high = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([2.0, -1.0, 1.0])

    def value(t, index):
        raise AssertionError("asked for nothing")

    root = find_root(value, low, high, f_low, f_high, tol=1e-3)
    assert root.t.tolist() == [0.0, 1.0, 0.0]
    assert root.converged.tolist() == [False, False, True]
    assert root.n_evaluations.tolist() == [0, 0, 0]


def test_a_root_does_not_depend_on_the_others():
    shift = torch.linspace(0.05, 0.95, 30, dtype=torch.float64)

    def roots(index):
        part = shift[index]

        def value(t, index):
            return torch.atan(40 * (t - part[index])) + 0.1 * torch.sin(9 * t)

        n = len(part)
        low, high, every = part.new_zeros(n), part.new_ones(n), torch.arange(n)
        return find_root(value, low, high, value(low, every), value(high, every), tol=1e-9).t

    together = roots(torch.arange(30))
    alone = torch.cat([roots(torch.tensor([i])) for i in range(30)])
    assert torch.equal(together, alone)


def test_scalar_reference():
    """The same roots as math by hand, ends in either order."""

    def value(t, index):
        return torch.exp(t) - 2

    low, high = torch.tensor([0.0, 2.0]).double(), torch.tensor([2.0, 0.0]).double()
    index = torch.arange(2)
    root = find_root(value, low, high, value(low, index), value(high, index), tol=1e-12)
    assert (root.t - math.log(2)).abs().max() < 1e-11


def test_bisection_safeguards_false_position():
    """A jump from -1 to 1e9 stops false position at one end for dozens of steps."""
    value = lambda t, index: torch.where(t < 0.7, -1.0, 1e9).double()
    low, high = torch.zeros(1).double(), torch.ones(1).double()
    root = find_root(value, low, high, value(low, 0), value(high, 0), tol=0.0, max_iter=40)
    assert root.high - root.low < 2e-3
