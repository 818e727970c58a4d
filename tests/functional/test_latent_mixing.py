import numpy as np
import pytest
import torch

from skboundary.functional.latent_mixing import (
    class_means,
    flip_bound,
    merge_lists,
    mix,
    project_between_means,
)


def draws(seed, *shape, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("w", [0.0, 0.3, 0.88, 1.0])
def test_mix_is_the_papers_formula(w, dtype):
    query, neighbors = draws(0, 5, 3, dtype=dtype), draws(1, 5, 4, 3, dtype=dtype)
    mixed = mix(query, neighbors, w)
    assert mixed.dtype == dtype
    for i in range(5):
        for c in range(3):
            expected = w * float(query[i, c])
            expected += (1 - w) / 4 * sum(float(neighbors[i, j, c]) for j in range(4))
            assert float(mixed[i, c]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("w", [0.52, 0.76, 0.88, 0.94])
def test_a_lead_beyond_the_bound_cannot_be_overturned(w):
    query, neighbors = draws(2, 20000, 3).log().softmax(1), draws(3, 20000, 1, 3)
    neighbors = (20 * neighbors).softmax(2)
    top = query.topk(2, dim=1).values
    lead = top[:, 0] - top[:, 1]
    changed = mix(query, neighbors, w).argmax(1) != query.argmax(1)
    assert changed.any() and lead[changed].max() < flip_bound(w)
    # and the bound is reached
    query = torch.tensor([[0.5 + flip_bound(w) / 2, 0.5 - flip_bound(w) / 2]])
    assert mix(query - torch.tensor([1e-6, 0]), torch.tensor([[[0.0, 1.0]]]), w).argmax() == 1
    assert flip_bound(0.0) == float("inf")


@pytest.mark.parametrize("seed", range(5))
def test_merged_lists_are_those_of_a_slow_merge(seed):
    rng = np.random.default_rng(seed)
    lists = [[(rng.integers(4) / 2, i) for i in rng.permutation(12)[:5]] for _ in range(2 * 20)]
    lists = [sorted(row) for row in lists]
    pairs = [a + b for a, b in zip(lists[::2], lists[1::2])]
    d = torch.tensor([[p[0] for p in row] for row in pairs])
    i = torch.tensor([[int(p[1]) for p in row] for row in pairs])
    distances, indices = merge_lists(d, i, 5)
    for row in range(20):
        best = {}
        for dist, index in pairs[row]:
            best[int(index)] = min(dist, best.get(int(index), np.inf))
        expected = sorted((dist, index) for index, dist in best.items())[:5]
        assert list(zip(distances[row].tolist(), indices[row].tolist())) == expected


def test_projection_runs_from_a_class_mean_to_the_nearest_other():
    means = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    t, nearest = project_between_means(torch.tensor([[1.0, 9.0], [2.0, 0.0]]).double(), means)
    assert nearest.tolist() == [1, 0, 0]
    expected = [[0.5, 0.5, -0.8], [1.0, 0.0, 1.0]]
    torch.testing.assert_close(t, torch.tensor(expected).double())
    at_means, _ = project_between_means(means, means)
    torch.testing.assert_close(at_means.diag(), torch.zeros(3).double())


def test_class_means():
    latent = draws(4, 10, 3)
    labels = torch.tensor([0, 2, 2, 0, 0, 2, 2, 2, 0, 0])
    means = class_means(latent, labels, 3)
    torch.testing.assert_close(means[0], latent[labels == 0].mean(0))
    torch.testing.assert_close(means[2], latent[labels == 2].mean(0))
    assert means[1].isnan().all()
    t, nearest = project_between_means(latent, means)
    assert nearest[0] == 2 and nearest[2] == 0 and t[:, 1].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_class_means_are_summed_in_float64(dtype):
    """Sums of 3e5 float32 numbers of about 100 are wrong in the third digit."""
    labels = torch.arange(300_000) % 2
    latent = (100 + labels[:, None] / 4).to(dtype)
    means = class_means(latent, labels, 2)
    assert means.dtype == torch.float64
    assert means.flatten().tolist() == [100, 100.25]


@pytest.mark.parametrize("offset", [0.0, 2.0**13, 2.0**20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projections_do_not_cancel_at_an_offset(offset, dtype):
    latent = (8 * draws(6, 200, 5)).round() / 8  # so that float32 holds the offset sum exactly
    labels = torch.arange(200) % 3
    expected = project_between_means(latent, class_means(latent, labels, 3))
    moved = (latent + offset).to(dtype)
    projections, nearest = project_between_means(moved, class_means(moved, labels, 3))
    torch.testing.assert_close(projections, expected[0], rtol=0, atol=1e-7)
    assert torch.equal(nearest, expected[1])
