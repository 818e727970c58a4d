import pytest
import torch
from torch import nn

from skboundary.functional.cosine_transform import frequency_flip
from skboundary.functional.subspace_deepfool import subspace_deepfool
from skboundary.functional.subspaces import (
    Bases,
    WholeSpace,
    component_windows,
    dct_windows,
    random_components,
)

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def every_pair(n, subspaces):
    pairs = torch.cartesian_prod(torch.arange(n), torch.arange(subspaces.n_subspaces))
    return pairs[:, 0], pairs[:, 1]


def search_all(logits, x, subspaces, **options):
    return subspace_deepfool(logits, x, subspaces, *every_pair(len(x), subspaces), **options)


def literal_deepfool(net, image, S, n_classes=10, overshoot=0.02, max_iter=100):
    """The procedure of the authors, one image and one subspace S (d, k) at a time."""
    ranking = net(image[None])[0].argsort(descending=True)[:n_classes]
    r, steps, predicted = torch.zeros(image.numel(), dtype=image.dtype), 0, ranking[0]
    while predicted == ranking[0] and steps < max_iter:
        x = (image + r.view_as(image)).requires_grad_()
        out = net(x[None])[0]
        gradients = [torch.autograd.grad(out[k], x, retain_graph=True)[0] for k in ranking]
        shortest = torch.inf
        for k in range(1, len(ranking)):
            w_k = (gradients[k] - gradients[0]).flatten()
            length = float((out[ranking[k]] - out[ranking[0]]).detach().abs() / (S.T @ w_k).norm())
            if length < shortest:
                shortest, w = length, w_k
        w = S @ (S.T @ w)
        r = r + max(shortest, 1e-4) * w / w.norm()
        predicted = net((image + (1 + overshoot) * r.view_as(image))[None])[0].argmax()
        steps += 1
    return float((1 + overshoot) * r.norm()), bool(predicted != ranking[0]), steps


def basis_of(subspaces, s, k):
    return subspaces.expand(torch.eye(k, dtype=torch.float64), torch.full((k,), s)).T


@pytest.mark.parametrize(
    "options", [{}, {"n_classes": 3}, {"overshoot": 1e-3}, {"overshoot": 0.3, "max_iter": 2}]
)
def test_a_network_is_searched_as_the_authors_do(cnn, digits, options):
    net, x = cnn.double(), torch.from_numpy(digits[0][300:306]).double()
    subspaces = dct_windows(8, 8, 2, 2, dtype=torch.float64)
    found = search_all(net, x, subspaces, **options)
    for i, (sample, s) in enumerate(zip(*every_pair(6, subspaces))):
        expected = literal_deepfool(net, x[sample], basis_of(subspaces, int(s), 4), **options)
        got = float(found.distance[i]), bool(found.flipped[i]), int(found.n_iter[i])
        assert got == (pytest.approx(expected[0], rel=1e-9), *expected[1:])
    assert len(set(found.n_iter.tolist())) > 1  # so that samples did leave at different times


def test_samples_are_searched_as_by_the_authors(mlp, iris):
    x = torch.from_numpy(iris[0][::10])
    subspaces = component_windows(
        random_components(4, 4, generator=seeded(0), dtype=torch.float64), 2, 1
    )
    found = search_all(mlp, x, subspaces)
    for i, (sample, s) in enumerate(zip(*every_pair(len(x), subspaces))):
        expected = literal_deepfool(mlp, x[sample], subspaces.vectors[s].T)
        assert float(found.distance[i]) == pytest.approx(expected[0], rel=1e-9)
        assert int(found.n_iter[i]) == expected[2]


@DTYPES
@pytest.mark.parametrize("n_outputs", [2, 5])
def test_margin_of_a_linear_network_is_known(n_outputs, dtype):
    generator = seeded(n_outputs)
    weight = torch.randn(n_outputs, 2, 9, 9, generator=generator, dtype=torch.float64)
    bias = torch.randn(n_outputs, generator=generator, dtype=torch.float64)
    x = torch.randn(20, 2, 9, 9, generator=generator, dtype=torch.float64)
    wide = random_components(40, 162, generator=generator, dtype=torch.float64)
    families = [
        dct_windows(9, 9, 3, 2, dtype=torch.float64),
        component_windows(wide, 5, 5),
        WholeSpace(),
    ]

    def net(x, weight=weight.to(dtype), bias=bias.to(dtype)):
        return x.flatten(1) @ weight.flatten(1).T + bias

    out = x.flatten(1) @ weight.flatten(1).T + bias
    label = out.argmax(1)
    lead = out - out.gather(1, label[:, None])
    slope = (weight[None] - weight[label][:, None]).flatten(2)
    for subspaces in families:
        samples, index = every_pair(20, subspaces)
        projected = subspaces.coordinates(slope[samples].transpose(0, 1), index).norm(dim=2).T
        reach = (lead[samples].abs() / projected).masked_fill(projected == 0, torch.inf).amin(1)
        cast = type(subspaces)(*(t.to(dtype) for t in subspaces))
        found = subspace_deepfool(net, x.to(dtype), cast, samples, index)
        assert found.flipped.all() and found.distance.dtype == dtype
        assert torch.equal(found.n_iter, torch.ones_like(samples))
        tolerance = 1e-4 if dtype == torch.float32 else 1e-12
        torch.testing.assert_close(found.distance.double(), 1.02 * reach, rtol=tolerance, atol=0)
        # without an overshoot the search ends on the boundary, or a shortest step or two behind it
        bare = subspace_deepfool(net, x.to(dtype), cast, samples, index, overshoot=0.0)
        beyond = bare.distance.double() / reach - 1
        assert bare.flipped.all() and float(beyond.min()) > -1e-4 and float(beyond.max()) < 1e-3


@DTYPES
@pytest.mark.parametrize("overshoot", [0.0, 0.02])
def test_margins_follow_the_unit_of_x(overshoot, dtype):
    """1e-4, the authors' shortest step, is many margins in small units."""
    weight = torch.randn(3, 6, generator=seeded(7), dtype=torch.float64)
    x = torch.randn(40, 6, generator=seeded(8), dtype=torch.float64)
    subspaces = component_windows(torch.eye(6, dtype=dtype), 2, 2)
    margins = []
    for unit in (1e-5, 1e-3, 1.0, 1e3, 1e5):
        found = search_all(
            lambda x, w=(weight / unit).to(dtype): x @ w.T,
            (x * unit).to(dtype),
            subspaces,
            overshoot=overshoot,
        )
        assert found.flipped.all()
        margins.append(found.distance.double() / unit)
    for other in margins:
        torch.testing.assert_close(other, margins[2], rtol=2e-3, atol=1e-6)


@DTYPES
@pytest.mark.parametrize("bias", [0.0, 1.0, -1e4])
@pytest.mark.parametrize("start", [0.0, 1.0, -1e4])
def test_a_search_from_the_boundary_leaves_it(start, bias, dtype):
    """Where both logits are equal the step has no length of its own."""

    def net(x):
        return torch.stack([torch.full_like(x[:, 0], bias), x[:, 0] - start + bias], 1)

    x = torch.tensor([[start, 3.0]], dtype=dtype)
    first = torch.tensor([0])
    found = subspace_deepfool(net, x, WholeSpace(), first, first)
    assert found.flipped.all()
    scale = max(abs(start), abs(bias), 3.0)
    assert 0 < float(found.distance) <= 20 * torch.finfo(dtype).eps * scale


def test_no_batch_is_empty_and_no_grad_does_not_matter():
    def net(x):
        assert len(x) > 0
        return torch.stack([torch.zeros_like(x[:, 0]), x[:, 0] - 1], 1)

    x, axes = torch.zeros(3, 2), Bases(torch.eye(2)[:, None])
    for mode in (torch.enable_grad(), torch.no_grad()):
        with mode:
            found = search_all(net, x, axes)
            whole = search_all(net, x, WholeSpace())
        assert found.distance.tolist() == [pytest.approx(1.02), torch.inf] * 3
        assert whole.distance.tolist() == [pytest.approx(1.02)] * 3


@pytest.mark.parametrize("batch_size", [1, 7, 24])
def test_batches_are_of_few_sizes_and_do_not_change_the_result(cnn, digits, batch_size):
    net, x, sizes = cnn.double(), torch.from_numpy(digits[0][300:312]).double(), []

    def counted(x):
        sizes.append(len(x))
        return net(x)

    subspaces = dct_windows(8, 8, 3, 1, dtype=torch.float64)
    whole = search_all(net, x, subspaces)
    parts = search_all(counted, x, subspaces, batch_size=batch_size)
    assert max(sizes) == batch_size and set(sizes) <= {*range(1, 9), 10, 12, 14, 16, 20, 24}
    torch.testing.assert_close(parts.distance, whole.distance, rtol=1e-9, atol=0)
    assert torch.equal(parts.flipped, whole.flipped) and torch.equal(parts.n_iter, whole.n_iter)


@DTYPES
def test_a_subspace_orthogonal_to_the_weights_is_censored_not_zero(dtype):
    components = random_components(30, 30, generator=seeded(3), dtype=dtype)
    weight = torch.stack([torch.zeros(30, dtype=dtype), components[:10].sum(0)])
    subspaces = component_windows(components, 10, 10)
    x = torch.randn(8, 30, generator=seeded(4)).to(dtype)
    found = search_all(lambda x: x @ weight.T, x, subspaces)
    orthogonal = every_pair(8, subspaces)[1] > 0
    assert torch.equal(found.flipped, ~orthogonal)
    assert found.distance[orthogonal].isinf().all() and (found.n_iter[orthogonal] == 0).all()
    assert found.distance[~orthogonal].isfinite().all()


def test_a_search_that_is_stopped_or_stuck_keeps_what_it_walked():
    def net(x):  # beyond x = 1 the slope is gone, and the boundary is never met
        return torch.stack([torch.full_like(x[:, 0], 4.0), x[:, 0].clamp_max(1)], 1)

    line = Bases(torch.ones(1, 1, 1))
    first = torch.tensor([0])
    stuck = subspace_deepfool(net, torch.zeros(1, 1), line, first, first)
    assert not stuck.flipped.any() and stuck.n_iter.tolist() == [1]
    assert stuck.distance.tolist() == [pytest.approx(4 * 1.02)]

    def bent(x):  # Newton's steps halve the way to the root of x^2
        return torch.stack([x[:, 0] ** 2, torch.zeros_like(x[:, 0])], 1)

    one = torch.ones(1, 1, dtype=torch.float64)
    line = Bases(torch.ones(1, 1, 1, dtype=torch.float64))
    stopped = subspace_deepfool(bent, one, line, first, first, max_iter=3)
    assert not stopped.flipped.any() and stopped.n_iter.tolist() == [3]
    assert stopped.distance.tolist() == [pytest.approx(1.02 * 7 / 8)]


def test_the_whole_space_is_nearer_than_any_subspace(cnn, digits):
    net, x = cnn.double(), torch.from_numpy(digits[0][300:360]).double()
    whole = search_all(net, x, WholeSpace())
    parts = search_all(net, x, dct_windows(8, 8, 4, 2, dtype=torch.float64))
    smallest = parts.distance.view(60, -1).amin(1)
    assert float((whole.distance < smallest).double().mean()) >= 0.95


def test_flipping_data_and_network_mirrors_the_margins(cnn, digits):
    net, x = cnn.double(), torch.from_numpy(digits[0][300:320]).double()
    x += 0.01 * torch.rand(x.shape, generator=seeded(6))  # equal pixels leave the gradient open
    subspaces = dct_windows(8, 8, 3, 1, dtype=torch.float64)
    plain = search_all(net, x, subspaces)
    flipped = search_all(lambda x: net(frequency_flip(x)), frequency_flip(x), subspaces)
    mirrored = flipped.distance.view(20, -1).flip(1)
    torch.testing.assert_close(mirrored, plain.distance.view(20, -1), rtol=1e-6, atol=0)
    assert float((plain.distance.view(20, -1) / mirrored.flip(1)).log().abs().mean()) > 0.1


@DTYPES
def test_searches_do_not_depend_on_their_company(cnn, digits, dtype):
    net, x = cnn.to(dtype), torch.from_numpy(digits[0][300:305]).to(dtype)
    subspaces = dct_windows(8, 8, 2, 3, dtype=dtype)
    samples, index = every_pair(5, subspaces)
    together = subspace_deepfool(net, x, subspaces, samples, index)
    assert together.coordinates.dtype == dtype
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    for i in (0, 4, 11):
        alone = subspace_deepfool(
            net, x[samples[i : i + 1]], subspaces, samples[:1], index[i : i + 1]
        )
        torch.testing.assert_close(
            alone.distance, together.distance[i : i + 1], rtol=tolerance, atol=0
        )


def test_the_perturbation_flips_the_prediction(cnn, digits):
    x = torch.from_numpy(digits[0][300:320])
    subspaces = dct_windows(8, 8, 4, 2)
    samples, index = every_pair(20, subspaces)
    found = subspace_deepfool(cnn, x, subspaces, samples, index)
    delta = subspaces.expand(found.coordinates, index)
    torch.testing.assert_close(delta.norm(dim=1), found.distance)
    with torch.no_grad():
        changed = cnn(x[samples] + delta.view(-1, 1, 8, 8)).argmax(1) != cnn(x)[samples].argmax(1)
    assert torch.equal(changed, found.flipped) and found.flipped.double().mean() > 0.9


def test_a_network_of_one_linear_layer_is_left_as_it_was():
    net = nn.Linear(3, 2)
    found = search_all(net, torch.randn(4, 3, generator=seeded(5)), WholeSpace())
    assert found.flipped.all() and net.weight.grad is None
