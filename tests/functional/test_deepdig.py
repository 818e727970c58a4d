import math

import pytest
import torch
from torch import nn

from skboundary.functional.deepdig import (
    autoencoder,
    generate,
    reconstruction_loss,
    target_loss,
    train_autoencoders,
)

# three blobs in the unit square, and the classifier "nearest center"
CENTERS = torch.tensor([[0.2, 0.2], [0.8, 0.2], [0.5, 0.8]])


def nearest_center(centers, sharpness=20.0):
    return lambda x: -sharpness * (x[:, None] - centers.to(x)).square().sum(2)


def blobs(n, seed=0, dtype=torch.float32):
    noise = torch.randn(3 * n, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return (CENTERS.to(dtype).repeat_interleave(n, 0) + 0.05 * noise).clamp(0, 1)


def make(n, seed=0, dtype=torch.float32, size=2):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [autoencoder((size,)).to(dtype) for _ in range(n)]


def seeds(n):
    return [torch.Generator().manual_seed(i) for i in range(n)]


def bce(p, want):
    return -(want * math.log(p) + (1 - want) * math.log(1 - p))


@pytest.mark.parametrize(("dtype", "rel"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_losses_are_the_papers(dtype, rel, n_classes):
    g = torch.Generator().manual_seed(n_classes)
    output, x = (torch.rand(6, 3, 4, generator=g, dtype=dtype) for _ in range(2))
    logits = 4 * torch.randn(6, n_classes, generator=g, dtype=dtype)
    target = torch.arange(6) % n_classes
    for i, loss in enumerate(reconstruction_loss(output, x).tolist()):
        pairs = zip(output[i].flatten().tolist(), x[i].flatten().tolist())
        assert loss == pytest.approx(sum(bce(p, w) for p, w in pairs) / 12, rel=rel)
    for i, loss in enumerate(target_loss(logits, target).tolist()):
        e = [math.exp(v) for v in logits[i].tolist()]
        terms = [bce(v / sum(e), float(k == target[i])) for k, v in enumerate(e)]
        assert loss == pytest.approx(sum(terms) / n_classes, rel=rel)


def test_a_saturated_wrong_class_keeps_its_gradient():
    """p = 1 in float32 for the wrong class: the literal formula gives log 0 there."""
    logits = torch.tensor([[60.0, 0.0, -5.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(target_loss(logits, torch.tensor([1])).sum(), logits)
    exact = logits.detach().double().requires_grad_()
    p = torch.tensor([60.0, 0.0, -5.0]).double().softmax(0)
    # d/dl of -(log p_1 + log(1 - p_0) + log(1 - p_2)) / 3, with 1 - p_0 = p_1 + p_2
    share = p[1:] / p[1:].sum()
    expected = torch.tensor([2.0, -1 - share[0], -share[1]]).double() / 3
    torch.testing.assert_close(gradient[0].double(), expected, atol=1e-6, rtol=1e-5)
    assert target_loss(exact, torch.tensor([1])).item() == pytest.approx(
        (60 + 60 - math.log1p(math.exp(-5))) / 3
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_side_by_side_is_one_by_one(dtype):
    """Also where classes are smaller than a batch, and where one is done before the other."""
    x, classify = blobs(150, dtype=dtype), nearest_center(CENTERS)
    members = [torch.arange(150), torch.arange(150, 190), torch.arange(300, 450)]
    targets = torch.tensor([1, 2, 1])
    settings = {"max_iter": 160, "patience": 1}
    together = make(3, dtype=dtype)
    training = train_autoencoders(together, classify, x, members, targets, seeds(3), **settings)
    assert len(training.n_steps.unique()) > 1  # they did stop at different times
    for i, alone in enumerate(make(3, dtype=dtype)):
        single = train_autoencoders(
            [alone], classify, x, [members[i]], targets[[i]], [seeds(3)[i]], **settings
        )
        assert single.n_steps[0] == training.n_steps[i]
        torch.testing.assert_close(single.reached[0], training.reached[i])
        made, expected = (generate(module, x[members[i]]) for module in (together[i], alone))
        tolerance = 1e-3 if dtype == torch.float32 else 1e-9
        torch.testing.assert_close(made, expected, atol=tolerance, rtol=0)


def test_one_step_is_adam_on_the_papers_loss():
    x, classify = blobs(40, dtype=torch.float64), nearest_center(CENTERS)
    (module,), (reference,) = make(1, dtype=torch.float64), make(1, dtype=torch.float64)
    one = torch.Generator().manual_seed(7)
    train_autoencoders(
        [module], classify, x, [torch.arange(40)], torch.tensor([2]), [one], max_iter=3
    )
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.01)
    x, onehot = x[:40], torch.eye(3, dtype=torch.float64)[2].expand(40, 3)
    for _ in range(3):
        optimizer.zero_grad()
        output = reference(x)
        loss = nn.functional.binary_cross_entropy(output, x)
        p = classify(output).softmax(1)
        (loss + 0.8 * nn.functional.binary_cross_entropy(p, onehot)).backward()
        optimizer.step()
    for ours, theirs in zip(module.parameters(), reference.parameters()):
        torch.testing.assert_close(ours, theirs)


def test_the_yield_is_high_and_there_is_a_way_back():
    x, classify = blobs(200), nearest_center(CENTERS)
    pairs = [(s, t) for s in range(3) for t in range(3) if s != t]
    members = [torch.arange(200 * s, 200 * (s + 1)) for s, _ in pairs]
    source, target = torch.tensor(pairs).T
    first, second = make(6), make(6, seed=1)
    training = train_autoencoders(first, classify, x, members, target, seeds(6))
    assert (training.reached > 0.95).all() and (training.n_steps < 1000).all()
    made = [generate(module, x[m]) for module, m in zip(first, members)]
    for x, t in zip(made, target):
        assert (classify(x).argmax(1) == t).float().mean() > 0.95
    members = list(torch.arange(1200).split(200))
    train_autoencoders(second, classify, torch.cat(made), members, source, seeds(6))
    for module, x, s in zip(second, made, source):
        assert (classify(generate(module, x)).argmax(1) == s).float().mean() > 0.95


def test_bounds_scale_the_samples_and_nothing_else():
    """Rows in other units, a constant column among them, go the same way."""
    unit = torch.cat([blobs(60, dtype=torch.float64), torch.zeros(180, 1).double()], 1)
    low, high = torch.tensor([[-3.0, 10.0, 5.0], [1.0, 30.0, 5.0]]).double()
    x = low + (high - low) * unit
    classify = nearest_center(CENTERS)
    members, target = [torch.arange(60)], torch.tensor([1])
    plain, scaled = (make(1, dtype=torch.float64, size=3)[0] for _ in range(2))
    settings = {"max_iter": 30}
    train_autoencoders(
        [plain], lambda x: classify(x[:, :2]), unit, members, target, seeds(1), **settings
    )

    def in_units(x):
        return classify(((x - low) / (high - low).where(high > low, 1))[:, :2])

    train_autoencoders(
        [scaled], in_units, x, members, target, seeds(1), low=low, high=high, **settings
    )
    made = generate(scaled, x, low=low, high=high)
    assert (made >= low).all() and (made <= high).all() and (made[:, 2] == 5).all()
    torch.testing.assert_close(made, low + (high - low) * generate(plain, unit))


@pytest.mark.parametrize("shape", [(7,), (6, 5), (1, 6, 6), (3, 9, 10), (3, 3, 3)])
def test_the_architecture_follows_the_shape_of_the_samples(shape):
    module = autoencoder(shape)
    is_conv = any(isinstance(part, nn.Conv2d) for part in module)
    assert is_conv == (shape == (3, 9, 10))
    widths = [part.weight.shape[0] for part in module if hasattr(part, "weight")]
    assert widths[:2] == ([12, 24] if is_conv else [100, 50])
    out = module(torch.rand(4, *shape))
    assert out.shape == (4, *shape) and out.min() > 0 and out.max() < 1


def test_color_images_train_side_by_side():
    x = torch.rand(30, 3, 5, 5, generator=torch.Generator().manual_seed(0))

    def classify(x):  # is it brighter in red or in blue?
        return 30 * torch.stack([x[:, 0].mean((1, 2)), x[:, 2].mean((1, 2))], 1)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        modules = [autoencoder((3, 5, 5)) for _ in range(2)]
    members, target = [torch.arange(30)] * 2, torch.tensor([0, 1])
    training = train_autoencoders(modules, classify, x, members, target, seeds(2), max_iter=60)
    assert (training.reached > 0.9).all()


@pytest.mark.slow
def test_the_rate_decays_every_thousand_steps(monkeypatch):
    rates, step = [], torch.optim.Adam.step

    def spy(optimizer, *args):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    module = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid())
    x = blobs(1)
    train_autoencoders(
        [module],
        nearest_center(CENTERS),
        x,
        [torch.arange(3)],
        torch.tensor([0]),
        seeds(1),
        max_iter=1001,
        patience=None,
        lr=0.02,
    )
    assert rates[:1000] == [0.02] * 1000 and rates[1000] == pytest.approx(0.019)
