import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from skboundary.functional.cosine_transform import (
    dct2,
    dct_matrix,
    frequency_flip,
    high_pass,
    idct2,
    low_pass,
)
from skboundary.functional.subspaces import (
    Bases,
    WholeSpace,
    component_windows,
    dct_windows,
    explicit_bases,
    pca_components,
    random_components,
)

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def draws(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(actual, expected, scale=1.0):
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    tolerance = 30 * torch.finfo(expected.dtype).eps * scale
    assert float((actual - expected).abs().max()) <= tolerance * max(1, float(expected.abs().max()))


def basis_images(height, width, channels, window, first):
    """The basis as the authors build it: one inverse transform for each unit coefficient."""
    rows = []
    for channel in range(channels):
        for i in range(window):
            for j in range(window):
                unit = np.zeros((channels, height, width))
                unit[channel, first[0] + i, first[1] + j] = 1
                rows.append(idctn(unit, axes=(1, 2), norm="ortho").ravel())
    return torch.from_numpy(np.array(rows))


@DTYPES
@pytest.mark.parametrize("shape", [(28, 28), (2, 3, 7, 12), (5, 1, 9)])
def test_transform_is_scipys_and_inverts(shape, dtype):
    x = draws(0, *shape, dtype=dtype)
    expected = torch.from_numpy(dctn(x.double().numpy(), axes=(-2, -1), norm="ortho")).to(dtype)
    close(dct2(x), expected)
    close(idct2(dct2(x)), x)
    C = dct_matrix(shape[-1], dtype=dtype)
    close(C @ C.T, torch.eye(shape[-1], dtype=dtype))


@DTYPES
@pytest.mark.parametrize(
    ("height", "width", "channels", "window", "step"),
    [(28, 28, 1, 8, 1), (32, 32, 3, 8, 2), (6, 6, 2, 6, 4), (9, 14, 3, 3, 2), (14, 9, 1, 2, 3)],
)
def test_windows_are_the_bases_of_the_authors(height, width, channels, window, step, dtype):
    subspaces = dct_windows(height, width, window, step, dtype=dtype)
    short = min(height, width)
    assert subspaces.n_subspaces == len(range(0, short - window + 1, step))
    w = draws(1, 2, subspaces.n_subspaces, channels * height * width, dtype=dtype)
    index = torch.arange(subspaces.n_subspaces)
    c = subspaces.coordinates(w, index)
    x = subspaces.expand(c[0], index)
    for s in range(subspaces.n_subspaces):
        first = [round(s * step * (n - window) / max(short - window, 1)) for n in (height, width)]
        assert max(first[0] + window - height, first[1] + window - width) <= 0
        basis = basis_images(height, width, channels, window, first).to(dtype)
        close(c[:, s], w[:, s] @ basis.T, scale=4)
        close(x[s], w[0, s] @ basis.T @ basis, scale=4)


def test_the_papers_subspaces():
    for (n, window, step), (count, dims) in {
        (28, 8, 1): (21, 64),
        (32, 8, 2): (13, 64),
        (224, 16, 16): (14, 256),
    }.items():
        subspaces = dct_windows(n, n, window, step)
        assert subspaces.n_subspaces == count and subspaces.rows.shape[1] ** 2 == dims


@DTYPES
def test_flip_mirrors_frequencies_and_inverts(dtype):
    x = draws(2, 4, 3, 8, 10, dtype=dtype)
    close(frequency_flip(frequency_flip(x)), x)
    close(dct2(frequency_flip(x)), dct2(x).flip(-1, -2))
    assert float((frequency_flip(x) - x).norm()) > 1


@pytest.mark.parametrize("bandwidth", [1, 5, 8])
@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8), (4, 3, 8, 8)])
def test_filters_keep_a_square_of_coefficients_of_every_image(shape, bandwidth):
    x = draws(3, *shape)
    low, high = dct2(low_pass(x, bandwidth)), dct2(high_pass(x, bandwidth))
    full = dct2(x)
    for kept, corner in ((low, slice(0, bandwidth)), (high, slice(8 - bandwidth, 8))):
        close(kept[..., corner, corner], full[..., corner, corner], scale=2)
        counts = (kept.abs() > 1e-9).sum((-2, -1))
        assert bool((counts == bandwidth**2).all())


@DTYPES
@pytest.mark.parametrize(("n", "d"), [(40, 6), (6, 40), (7, 7)])
def test_pca_spans_what_scikit_learn_finds(n, d, dtype):
    from sklearn.decomposition import PCA

    x = draws(4, n, d, dtype=dtype) * torch.linspace(3, 1, d).to(dtype) + 5
    components = pca_components(x)
    k = len(components)
    assert k == (d if n > d else n - 1)
    close(components @ components.T, torch.eye(k, dtype=dtype), scale=4)
    theirs = torch.from_numpy(PCA(k).fit(x.double().numpy()).components_)
    agreement = (components.double() @ theirs.T).diagonal().abs()
    assert float(agreement.min()) > 1 - (1e-6 if dtype == torch.float32 else 1e-9)
    assert torch.equal(pca_components(x, 2), components[:2])


@DTYPES
@pytest.mark.parametrize("unit", [1e-5, 1.0, 1e5])
def test_small_components_of_raw_columns_are_found_in_either_dtype(unit, dtype):
    """The deviations of breast cancer's components span six powers of ten."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.decomposition import PCA

    X = load_breast_cancer().data
    theirs = torch.from_numpy(PCA(svd_solver="full").fit(X).components_)
    components = pca_components(torch.from_numpy(X * unit).to(dtype)).double()
    assert float((components * theirs).sum(1).abs().min()) > 0.999
    few = pca_components(torch.from_numpy(X[:20] * unit).to(dtype)).double()
    theirs = torch.from_numpy(PCA(svd_solver="full").fit(X[:20]).components_[:19])
    assert float((few * theirs).sum(1).abs().min()) > 0.999


def test_components_of_extreme_and_constant_samples():
    x = draws(9, 30, 4) * torch.tensor([4.0, 3.0, 2.0, 1.0])
    for unit in (1e-300, 1e300):
        agreement = (pca_components(x * unit) * pca_components(x)).sum(1).abs()
        assert float(agreement.min()) > 1 - 1e-9
    constant = pca_components(torch.ones(9, 3))
    close(constant @ constant.T, torch.eye(3))


@DTYPES
def test_random_components_are_orthonormal_and_seeded(dtype):
    def draw(seed):
        return random_components(5, 9, generator=torch.Generator().manual_seed(seed), dtype=dtype)

    close(draw(0) @ draw(0).T, torch.eye(5, dtype=dtype))
    assert torch.equal(draw(0), draw(0)) and not torch.allclose(draw(0), draw(1))


@DTYPES
def test_bases_project_each_sample_on_its_own_subspace(dtype):
    components = random_components(9, 9, generator=torch.Generator().manual_seed(0), dtype=dtype)
    subspaces = component_windows(components, 4, 2)
    assert subspaces.n_subspaces == 3
    w, index = draws(5, 2, 6, 9, dtype=dtype), torch.tensor([2, 0, 0, 1, 2, 0])
    c = subspaces.coordinates(w, index)
    x = subspaces.expand(c[1], index)
    for i, s in enumerate(index.tolist()):
        basis = components[2 * s : 2 * s + 4]
        close(c[:, i], w[:, i] @ basis.T)
        close(x[i], w[1, i] @ basis.T @ basis)
    whole = WholeSpace()
    assert whole.n_subspaces == 1
    assert torch.equal(whole.coordinates(w, index), w) and torch.equal(whole.expand(w, index), w)


@DTYPES
def test_explicit_bases_are_made_orthonormal_and_may_differ_in_size(dtype):
    given = [draws(6, 3, 7, dtype=dtype), draws(7, 1, 7, dtype=dtype)]
    subspaces = explicit_bases(given)
    assert isinstance(subspaces, Bases) and subspaces.vectors.shape == (2, 3, 7)
    index = torch.tensor([0, 1])
    w = draws(8, 2, 7, dtype=dtype)
    x = subspaces.expand(subspaces.coordinates(w, index), index)
    for s, basis in enumerate(given):
        projector = torch.linalg.pinv(basis.double()) @ basis.double()
        close(x[s], (w[s].double() @ projector).to(dtype), scale=8)
    assert not subspaces.vectors[1, 1:].any()
    with pytest.raises(ValueError, match="3 vectors of subspace 1 span 2 dimensions"):
        explicit_bases([given[0], given[0][[0, 1, 0]]])
