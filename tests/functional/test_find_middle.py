import pytest
import torch
from torch import nn

from skboundary.functional.margins import pairwise_margin
from skboundary.functional.root_finding import find_middle


def authors_loop(net, x1, x2, class1, class2, beta, max_iter=50):
    """DeepDIG's component III, one pair and one sample at a time."""
    for attempts in range(1, max_iter + 1):
        middle = (x1 + x2) / 2
        p = net(middle[None])[0].softmax(0)
        predicted = int(p.argmax())
        if predicted not in (class1, class2):
            return middle, "third", attempts
        if abs(float(p[class1]) - float(p[class2])) < beta:
            return middle, "success", attempts
        if predicted == int(net(x1[None])[0].argmax()):
            x1 = middle
        if predicted == int(net(x2[None])[0].argmax()):
            x2 = middle
    return middle, "limit", attempts


@pytest.fixture(scope="module")
def problem():
    """A random float64 network with three classes, and pairs of samples in two of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3)).double()
        x = 3 * torch.randn(400, 5, dtype=torch.float64)
    net = net.requires_grad_(False)
    labels = net(x).argmax(1)
    first, second = x[:200], x[200:]
    apart = labels[:200] != labels[200:]
    return net, first[apart], second[apart], labels[:200][apart], labels[200:][apart]


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-9])
def test_halving_is_the_authors_loop(problem, tol):
    net, x1, x2, class1, class2 = problem

    def evaluate(t, i):
        p = net((1 - t)[:, None] * x1[i] + t[:, None] * x2[i]).softmax(1)
        gap = pairwise_margin(p, class1[i], class2[i]).abs()
        return p.argmax(1), gap < tol

    found = find_middle(evaluate, class1, class2, dtype=torch.float64)
    middle = (1 - found.t)[:, None] * x1 + found.t[:, None] * x2
    ends = []
    for i in range(len(x1)):
        expected, end, attempts = authors_loop(net, x1[i], x2[i], class1[i], class2[i], tol)
        ends.append(end)
        assert found.n_evaluations[i] == attempts
        assert bool(found.success[i]) == (end == "success")
        assert bool(found.third_class[i]) == (end == "third")
        torch.testing.assert_close(middle[i], expected, atol=1e-12, rtol=1e-12)
    assert {"success", "third"} <= set(ends)


def step_function(t, index):
    return (t > 0.3).long(), torch.zeros_like(t, dtype=torch.bool)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_jump_reaches_the_limit(dtype):
    """A step function has no point of equal probabilities: neither success nor third class."""
    start = torch.zeros(3, dtype=torch.long)
    found = find_middle(step_function, start, start + 1, dtype=dtype, max_iter=20)
    assert found.t.dtype == dtype and (found.n_evaluations == 20).all()
    assert not found.success.any() and not found.third_class.any()
    torch.testing.assert_close(found.t, torch.full_like(found.t, 0.3), atol=1e-5, rtol=0)
    assert not len(find_middle(step_function, start[:0], start[:0]).t)


@pytest.mark.parametrize("dtype, most", [(torch.float32, 26), (torch.float64, 55)])
def test_a_bracket_that_holds_no_number_is_a_success(dtype, most):
    start = torch.zeros(3, dtype=torch.long)
    found = find_middle(step_function, start, start + 1, dtype=dtype, max_iter=100)
    assert found.success.all() and not found.third_class.any()
    assert (found.n_evaluations <= most).all()
    jump = torch.full_like(found.t, 0.3)
    assert ((found.t == jump) | (found.t == torch.nextafter(jump, jump + 1))).all()
