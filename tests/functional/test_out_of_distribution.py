import numpy as np
import pytest
import torch

from skboundary.functional.out_of_distribution import (
    boundary_score,
    conformal_p_values,
    head_distances,
)


def make_head(seed, n=40, d=6, n_classes=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = (n, d), (n_classes, d), (n_classes,)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize("unit", [1e-20, 1e-3, 1.0, 1e20])
@pytest.mark.parametrize("logit", [1e-4, 1.0, 1e4])
def test_at_the_distance_of_a_boundary_two_logits_are_equal(unit, logit):
    z, weight, bias = make_head(0)
    z, weight, bias = z * unit, weight * logit / unit, bias * logit
    distances = head_distances(z, weight, bias)
    logits = z @ weight.T + bias
    predicted = logits.argmax(1)
    for i in range(len(z)):
        for c in range(5):
            if c == predicted[i]:
                assert distances[i, c] == torch.inf
                continue
            normal = weight[c] - weight[predicted[i]]
            moved = z[i] + distances[i, c] * normal / (normal / normal.abs().max()).norm() / (
                normal.abs().max()
            )
            there = weight @ moved + bias
            assert abs(float(there[c] - there[predicted[i]])) < 1e-12 * logit * 50
        # and within the smallest of them the prediction is the same in every direction
        steps = torch.randn(200, 6, generator=torch.Generator().manual_seed(i)).double()
        steps = 0.999 * distances[i].min() * steps / steps.norm(dim=1, keepdim=True)
        assert ((z[i] + steps) @ weight.T + bias).argmax(1).eq(predicted[i]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_boundary_score_against_loops(dtype):
    z, weight, bias = make_head(1, dtype=dtype)
    center = z.mean(0) + 0.1
    score = boundary_score(z, weight, bias, center)
    assert score.dtype == torch.float64
    z, weight, bias, center = (a.double().numpy() for a in (z, weight, bias, center))
    for i in range(len(z)):
        logits = [sum(w * v for w, v in zip(weight[c], z[i])) + bias[c] for c in range(5)]
        y = int(np.argmax(logits))
        others = [
            abs(logits[y] - logits[c]) / np.sqrt(((weight[y] - weight[c]) ** 2).sum())
            for c in range(5)
            if c != y
        ]
        expected = np.mean(others) / np.sqrt(((z[i] - center) ** 2).sum())
        assert float(score[i]) == pytest.approx(expected, rel=1e-12)


def test_classes_without_a_boundary_do_not_count():
    z, weight, bias = make_head(2, n_classes=3)
    copied = torch.cat([weight, weight[:1]]), torch.cat([bias, bias[:1] - 1])
    distances, center = head_distances(z, *copied), torch.zeros(6).double()
    first = distances[:, :3].argmax(1) == 0  # those that are infinitely far from themselves
    assert first.any() and (distances[first, 3] == torch.inf).all()
    torch.testing.assert_close(
        boundary_score(z[first], *copied, center), boundary_score(z[first], weight, bias, center)
    )
    same = weight[:1].expand(3, -1), bias
    assert (boundary_score(z, *same, center) == torch.inf).all()
    # at the center, on a boundary: neither NaN
    there = torch.zeros(1, 6).double()
    assert boundary_score(there, weight, bias, center).isfinite().all()
    assert boundary_score(there, weight, torch.zeros(3).double(), center).tolist() == [0.0]


def test_p_values_against_counts():
    scores, calibration = torch.tensor([[0.0, 1.5], [2.0, 7.0]]), torch.tensor([2.0, 1.0, 2.0, 5.0])
    p = conformal_p_values(scores, calibration)
    expected = [[(1 + int((calibration >= s).sum())) / 5 for s in row] for row in scores]
    assert p.tolist() == expected == [[1.0, 0.8], [0.8, 0.2]]


@pytest.mark.parametrize("n_cal", [9, 40])
def test_p_values_of_exchangeable_scores_are_uniform(n_cal):
    rng, n_draws = np.random.default_rng(0), 4000
    draws = torch.from_numpy(rng.normal(size=(n_draws, n_cal + 1)) ** 3)
    p = torch.stack([conformal_p_values(draw[0], draw[1:]) for draw in draws]).numpy()
    counts = np.bincount(np.rint(p * (n_cal + 1)).astype(int), minlength=n_cal + 2)
    share = 1 / (n_cal + 1)
    assert counts[0] == 0 and counts.sum() == n_draws
    assert abs(counts[1:] - n_draws * share).max() < 5 * np.sqrt(n_draws * share * (1 - share))


@pytest.mark.parametrize("values", [2, 4, 30])
def test_p_values_of_equal_scores_are_valid(values):
    rng, n_cal, n_draws = np.random.default_rng(1), 19, 4000
    draws = torch.from_numpy(rng.integers(values, size=(n_draws, n_cal + 1)))
    p = torch.stack([conformal_p_values(draw[0], draw[1:]) for draw in draws]).numpy()
    for level in np.arange(1, 20) / 20:
        assert (p <= level).mean() <= level + 4 * np.sqrt(level * (1 - level) / n_draws)
    assert (p <= 0.95).mean() > 0.3  # and do not hold by saying nothing
