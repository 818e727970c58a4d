"""Certified distances: closed forms, all linear regions of small networks, and no violation."""

import itertools

import pytest
import torch

from skboundary.functional.certified_distance import certified_distance

DTYPES = [torch.float32, torch.float64]


def random_layers(sizes, seed, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            scale * torch.randn(m, n, generator=generator, dtype=torch.float64).to(dtype) / n**0.5,
            scale * torch.randn(m, generator=generator, dtype=torch.float64).to(dtype) / 2,
        )
        for n, m in itertools.pairwise(sizes)
    ]


def logits(layers, x):
    for weight, bias in layers[:-1]:
        x = (x @ weight.T + bias).relu()
    return x @ layers[-1][0].T + layers[-1][1]


def draw(n, d, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64).to(dtype)


# ------------------------------------------------------------------------------ closed forms


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e5])
def test_a_linear_classifier_has_its_exact_distance(dtype, unit):
    (weight, bias), x = random_layers([5, 4], 0, dtype)[0], unit * draw(30, 5, dtype=dtype)
    layers = [(weight / unit, bias)]
    source = logits(layers, x).argmax(1)
    expected = torch.full((30,), torch.inf, dtype=torch.float64)
    for i in range(30):
        s = source[i]
        for j in set(range(4)) - {int(s)}:
            gap = (layers[0][0][s] - layers[0][0][j]).double(), (bias[s] - bias[j]).double()
            value = gap[0] @ x[i].double() + gap[1]
            expected[i] = min(expected[i], value / gap[0].norm())
    found = certified_distance(layers, x, source)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5 * unit)
    target = (source + 1) % 4
    to_target = certified_distance(layers, x, source, target=target)
    assert (to_target >= found).all() and (to_target > found).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e5])
def test_the_bound_is_tight_for_an_absolute_value(dtype, unit):
    """|x0| > 2 is class 1: no lines are needed on the side where x is."""
    hidden = torch.tensor([[1.0, 0], [-1, 0]], dtype=dtype) / unit, torch.zeros(2, dtype=dtype)
    last = torch.tensor([[0.0, 0], [1, 1]], dtype=dtype), torch.tensor([2.0, 0], dtype=dtype)
    x = unit * torch.tensor([[0.0, 3], [0.5, -1], [-1.5, 0], [3, 0], [-7, 0]], dtype=dtype)
    source = torch.tensor([0, 0, 0, 1, 1])
    found = certified_distance([hidden, last], x, source)
    exact = unit * torch.tensor([2.0, 1.5, 0.5, 1, 5], dtype=dtype)
    assert (found <= exact * (1 + 1e-6)).all()
    torch.testing.assert_close(found, exact, rtol=2e-3, atol=0)


def test_layers_after_one_another_are_one_layer():
    """Without a bend within reach, a chain has the distance of its product."""
    first, second = random_layers([4, 3, 3], 3)
    first = first[0], first[1] + 1000  # never negative near x
    second = second[0], second[1] - second[0].sum(1) * 1000
    x = draw(20, 4)
    source = logits([first, second], x).argmax(1)
    product = second[0] @ first[0], second[0] @ first[1] + second[1]
    exact = certified_distance([product], x, source)
    found = certified_distance([first, second], x, source)
    assert (found <= exact * (1 + 1e-9)).all()
    near = exact < 500
    assert near.any()
    torch.testing.assert_close(found[near], exact[near], rtol=2e-3, atol=0)


def exact_distance(layers, x, source):
    """To the nearest point of a grid of the plane that is predicted otherwise."""
    axis = torch.linspace(-8, 8, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    others = grid[logits(layers, grid).argmax(1) != source]
    return (others - x).norm(dim=1).min() if len(others) else torch.tensor(torch.inf)


def test_the_bound_is_below_the_distance_on_a_grid_and_not_far():
    ratios = []
    for seed in range(6):
        layers, x = random_layers([2, 8, 8, 3], seed), draw(3, 2, seed=10 + seed)
        source = logits(layers, x).argmax(1)
        found = certified_distance(layers, x, source)
        for i in range(3):
            exact = exact_distance(layers, x[i], source[i])
            assert found[i] <= exact
            if exact.isfinite():
                ratios.append(found[i] / exact)
    assert torch.stack(ratios).median() > 0.6


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [[3, 16, 2], [6, 20, 20, 4], [4, 8, 8, 8, 8, 3]])
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_no_point_of_the_ball_has_another_class(dtype, sizes, scale):
    layers, x = random_layers(sizes, 5, dtype, scale), draw(40, sizes[0], dtype=dtype)
    source = logits(layers, x).argmax(1)
    found = certified_distance(layers, x, source)
    assert (found > 0).all()
    target = (source + 1) % sizes[-1]
    to_target = certified_distance(layers, x, source, target=target)
    assert (to_target >= found * 0.99).all()
    # in float64: what is certified is free of the rounding of logits
    exact = [(weight.double(), bias.double()) for weight, bias in layers]
    radius = (1 - 1e-4) * found
    for points in attack(layers, x, source, radius):
        assert (logits(exact, points.double()).argmax(1) == source).all()
    for points in attack(layers, x, source, (1 - 1e-4) * to_target):
        out = logits(exact, points.double())
        gap = out.gather(1, source[:, None]) - out.gather(1, target[:, None])
        assert (gap > 0).all()


def attack(layers, x, source, radius):
    """Points of balls: on random rays, and by projected gradient steps down the margin."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        ray = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
        yield x + radius[:, None] * ray / ray.norm(dim=1, keepdim=True)
    points = x.clone()
    for _ in range(30):
        points.requires_grad_()
        out = logits(layers, points)
        rival = out.scatter(1, source[:, None], -torch.inf).amax(1)
        margin = out.gather(1, source[:, None])[:, 0] - rival
        (gradient,) = torch.autograd.grad(margin.sum(), points)
        step = gradient / gradient.norm(dim=1, keepdim=True).clamp(min=1e-30)
        away = points.detach() - radius[:, None] * step - x
        points = x + away * (radius / away.norm(dim=1).clamp(min=1e-30)).clamp(max=1)[:, None]
        yield points


# ------------------------------------------------------------------------------ edges


def test_samples_of_another_class_have_the_bound_zero():
    layers, x = random_layers([3, 8, 3], 0), draw(20, 3)
    predicted = logits(layers, x).argmax(1)
    assert (certified_distance(layers, x, (predicted + 1) % 3) == 0).all()
    assert (certified_distance(layers[:1], x, logits(layers[:1], x).argmin(1)) == 0).all()


def test_constant_logits():
    last = torch.zeros(2, 3), torch.tensor([1.0, 0])
    x, source = torch.ones(2, 3), torch.tensor([0, 1])
    assert certified_distance([last], x, source).tolist() == [torch.inf, 0]
    hidden = torch.ones(3, 3), torch.ones(3)
    found = certified_distance([hidden, last], x, source)
    assert found[0] > 1e6 and found[1] == 0


def test_a_sample_where_a_relu_bends():
    hidden = torch.eye(2), torch.zeros(2)
    last = torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([1.0, 0])
    found = certified_distance([hidden, last], torch.zeros(1, 2), torch.tensor([0]))
    assert 0.5 < found.item() <= 1


def test_no_samples():
    layers = random_layers([3, 4, 2], 0)
    none = torch.empty(0, 3, dtype=torch.float64), torch.empty(0, dtype=torch.long)
    assert certified_distance(layers, *none).shape == (0,)


@pytest.mark.parametrize(
    "layers, words",
    [
        ([], "layers is empty"),
        ([(torch.ones(2, 4), torch.ones(2))], "layer 0 takes 4 numbers, but gets 3"),
        (
            [(torch.ones(5, 3), torch.ones(5)), (torch.ones(2, 4), torch.ones(2))],
            "layer 1 takes 4 numbers, but gets 5",
        ),
        ([(torch.ones(2, 3), torch.ones(3))], r"a bias of shape \(3,\)"),
    ],
)
def test_layers_that_do_not_follow_one_another(layers, words):
    with pytest.raises(ValueError, match=words):
        certified_distance(layers, torch.ones(1, 3), torch.tensor([0]))


def test_a_target_that_is_the_source():
    layers = random_layers([3, 2], 0)
    with pytest.raises(ValueError, match="target and source of sample 0 are both 1"):
        certified_distance(layers, draw(1, 3), torch.tensor([1]), target=torch.tensor([1]))
