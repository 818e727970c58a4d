"""Shapes of arguments are checked where a public function begins."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import pytest
import torch

from skboundary.functional._shapes import shapes
from skboundary.functional.nearest_boundary import nearest_boundary


@shapes(x="n ...", other="n ...", d="... k", label="n")
def accept(x, other=None, *, d=None, label=None):
    """Return x."""
    return x


def test_shapes_that_match_pass():
    x = torch.zeros(3, 2, 4)
    assert accept(x) is x
    assert accept(x, x, label=torch.zeros(3)) is x
    assert accept(x, d=torch.zeros(2, 4, 7)) is x
    assert accept(x, label=0.5) is x  # not a tensor


@pytest.mark.parametrize(
    "given, message",
    [
        ({"x": torch.zeros(())}, r"x has shape \(\), expected \(n, ...\)."),
        ({"label": torch.zeros(4)}, r"label has shape \(4,\), expected \(n,\) = \(3,\) as x"),
        ({"label": torch.zeros(3, 1)}, r"label has shape \(3, 1\), expected \(n,\)."),
        ({"other": torch.zeros(3, 2)}, r"other has shape \(3, 2\), expected .* = \(3, 2, 4\) as x"),
        ({"d": torch.zeros(4, 7)}, r"d has shape \(4, 7\), expected \(..., k\) = \(2, 4, k\) as x"),
    ],
)
def test_shapes_that_do_not_match_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        accept(**{"x": torch.zeros(3, 2, 4)} | given)


def test_a_search_names_the_argument():
    with pytest.raises(ValueError, match=r"source has shape \(2,\), expected \(n,\) = \(3,\)"):
        nearest_boundary(lambda x: x, torch.zeros(3, 2), torch.zeros(2).long())


def test_the_decorated_function_keeps_its_documentation():
    assert accept.__name__ == "accept" and accept.__doc__ == "Return x."


def test_a_misspelled_argument_is_refused_at_once():
    with pytest.raises(ValueError, match="'y' is not in list"):
        shapes(y="n")(lambda x: x)
