"""Margins against loops."""

import pytest
import torch

from skboundary.functional.margins import (
    class_margin,
    equally_probable,
    margin_band,
    pairwise_margin,
    runner_up,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_margins_equal_loops(dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 6, dtype=dtype, generator=generator)
    label = torch.randint(6, (50,), generator=generator)
    target = (label + 1 + torch.randint(5, (50,), generator=generator)) % 6
    for i in range(50):
        row, own = logits[i].tolist(), int(label[i])
        rivals = {c: v for c, v in enumerate(row) if c != own}
        best = max(rivals, key=rivals.get)
        rival = runner_up(logits, label)
        assert (int(rival.label[i]), float(rival.logit[i])) == (best, rivals[best])
        assert float(class_margin(logits, label)[i]) == pytest.approx(row[own] - rivals[best])
        expected = row[own] - row[int(target[i])]
        assert float(pairwise_margin(logits, label, target)[i]) == pytest.approx(expected)
    assert torch.equal(class_margin(logits, label) > 0, logits.argmax(1) == label)


def test_margins_have_gradients():
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    label, target = torch.tensor([0, 1, 2]), torch.tensor([1, 3, 0])
    assert torch.autograd.gradcheck(lambda l: class_margin(l, label), logits)
    assert torch.autograd.gradcheck(lambda l: pairwise_margin(l, label, target), logits)


@pytest.mark.parametrize(
    "logits, proba, equal",
    [
        ([0.0, 1e-4, -9.0], None, True),
        ([0.0, 1e-3, -9.0], None, False),
        ([1e5, 1e5 + 0.04, 0.0], None, True),  # a float32 cannot tell more
        ([1e5, 1e5 + 0.5, 0.0], None, False),
        ([7.0, 500.0, -9.0], [0.5, 0.5, 0.0], False),  # one of two sigmoids that are both 1
        ([0.0, 0.5, 30.0], None, True),  # neither is probable at all
    ],
)
def test_classes_are_equally_probable_within_rounding(logits, proba, equal):
    logits = torch.tensor([logits])
    proba = logits.softmax(1) if proba is None else torch.tensor([proba])
    band = margin_band(0.0, 2**-23, logits)
    for pair in ([0], [1]), ([1], [0]):
        source, target = map(torch.tensor, pair)
        assert equally_probable(proba, logits, source, target, band).tolist() == [equal]
