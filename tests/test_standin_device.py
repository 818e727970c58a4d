"""The stand-in for an accelerator refuses what a real one refuses, and counts what it does."""

import copy

import pytest
import torch

from tests.standin_device import count


@pytest.fixture
def x(standin):
    return torch.arange(6.0).view(2, 3).to(standin)


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + torch.ones(2, 3),
        lambda x: torch.ones(2, 3) + x,
        lambda x: torch.ones(2, 3).add_(x),
        lambda x: x @ torch.ones(3, 1),
        lambda x: torch.cat([x, torch.ones(2, 3)]),
        lambda x: torch.ones(2, 3)[x[0, :1].long()],
        lambda x: x.index_select(0, torch.tensor([0])),
        lambda x: x.index_put_((torch.tensor([0], device=x.device),), torch.ones(1, 3)),
        lambda x: torch.add(x, x, out=torch.empty(2, 3)),
        lambda x: torch.nn.Linear(3, 2)(x),
        lambda x: x.numpy(),
    ],
)
def test_tensors_on_both_devices_do_not_mix(x, mix):
    with pytest.raises((RuntimeError, TypeError)):
        mix(x)


def test_numbers_mix_and_results_stay_on_the_device(x):
    results = [x + 1, x * torch.tensor(2.0), x.sum(), x[0], x.T, x > 2, x.new_zeros(2), x[[0]]]
    results += [*x.unbind(), *x.topk(2), torch.rand(2, device=x.device), copy.deepcopy(x)]
    assert all(result.device == x.device for result in results)
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]] and x.sum().item() == 15


def test_what_is_written_to_shows_in_all_views(x):
    row = x[1]
    row.mul_(2)
    x[x > 7] = -1
    out = torch.empty(3, device=x.device)
    assert torch.add(row, 1, out=out) is out
    assert x.tolist() == [[0, 1, 2], [6, -1, -1]] and out.tolist() == [7, 0, 0]


def test_gradients_are_those_of_the_cpu(standin):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(16, 2)
        )
    x = torch.arange(32.0).view(2, 1, 4, 4).requires_grad_()
    (expected,) = torch.autograd.grad(module(x).square().sum(), x)
    there = x.detach().to(standin).requires_grad_()
    (gradient,) = torch.autograd.grad(module.to(standin)(there).square().sum(), there)
    assert gradient.device == there.device and torch.equal(gradient.cpu(), expected)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda x: torch.ones(5).to(x.device), (1, 0, 0)),
        (lambda x: torch.tensor([1.0], device=x.device), (1, 0, 0)),
        (lambda x: x.copy_(torch.ones(2, 3)), (1, 0, 0)),
        (lambda x: x[:, [2, 0]], (1, 0, 0)),
        (lambda x: x.cpu(), (0, 1, 0)),
        (lambda x: x.tolist(), (0, 1, 0)),
        (lambda x: torch.empty(2, 3).copy_(x), (0, 1, 0)),
        (lambda x: x.sum().item(), (0, 0, 1)),
        (lambda x: bool(x.any()), (0, 0, 1)),
        (lambda x: x.nonzero(), (0, 0, 1)),
        (lambda x: x[x > 1], (0, 0, 1)),
        (lambda x: x.masked_fill_(x > 1, 0.0), (0, 0, 0)),
        (lambda x: torch.where(x > 1, x, 0.0), (0, 0, 0)),
        (lambda x: x + 1.0, (0, 0, 0)),
        (lambda x: x.clone().copy_(x), (0, 0, 0)),
    ],
)
def test_transfers_and_synchronizations_are_counted(x, step, expected):
    with count() as traffic:
        step(x)
    found = traffic.transfers_in, traffic.transfers_out, traffic.synchronizations
    assert found == expected and sum(traffic.names.values()) == sum(expected)


def test_launches_are_operations_that_compute(x):
    with count() as traffic:
        torch.empty_like(x.T.reshape(6)[None].expand(4, -1).detach())  # reshape copies
        torch.zeros(2, device=x.device).add_(1)
    assert traffic.launches == 3
    with count() as nothing:
        torch.zeros(2).add_(1)
    assert not nothing.launches
