"""Root finding on segments, for many intervals in one batch."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from skboundary.functional._shapes import expanded_like, shapes

__all__ = ["Middle", "Root", "find_middle", "find_root"]


class Root(NamedTuple):
    """Roots of n functions, (n,) each."""

    t: Tensor  # the root, or the end that is nearer to it where there is none
    value: Tensor  # the function there
    low: Tensor  # the bracket that is left; the function has opposite signs at its ends
    high: Tensor
    converged: Tensor  # |value| <= tol
    n_evaluations: Tensor


@shapes(low="n", high="n", f_low="n", f_high="n")
def find_root(
    value: Callable[[Tensor, Tensor], Tensor],
    low: Tensor,
    high: Tensor,
    f_low: Tensor,
    f_high: Tensor,
    *,
    tol: float | Tensor,
    max_iter: int | Tensor = 60,
) -> Root:
    """Find a root of each function by the Illinois method, in brackets that only shrink.

    The rule of false position, ``t = (low f_high - high f_low) / (f_high - f_low)``, where the
    value at an end that stays for two consecutive steps is halved [1]_; three consecutive steps
    that shrink the bracket by less than half are followed by a bisection, which is all that a
    function with jumps allows. An interval is left once the value is within `tol` of zero or no
    number lies between the ends of its bracket. One without a change of sign is returned at once.

    Parameters
    ----------
    value : callable
        ``value(t, index)``: the functions numbered `index` (m,) at the points `t` (m,), as (m,).
    low, high : Tensor of shape (n,)
        Ends of the brackets.
    f_low, f_high : Tensor of shape (n,)
        Values of the functions at the ends.
    tol : float or Tensor of shape (n,)
        Largest absolute value that counts as zero, in units of the functions. 0 bisects a step
        function to its jump.
    max_iter : int or Tensor of shape (n,), default=60
        Evaluations of each function at most.

    Returns
    -------
    root : Root
        Of the two ends of the last bracket, `t` is the one whose value is nearer to zero.

    Raises
    ------
    ValueError
        For shapes that do not match.

    References
    ----------
    .. [1] M. Dowell, P. Jarratt, "A modified regula falsi method for computing the root of an
       equation", BIT 11, 1971, `doi 10.1007/BF01934364 <https://doi.org/10.1007/BF01934364>`_.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.root_finding import find_root
    >>> square = torch.tensor([2.0, 9.0])
    >>> low, high = torch.zeros(2), torch.full((2,), 5.0)
    >>> root = find_root(lambda t, i: t**2 - square[i], low, high, -square, 25 - square, tol=1e-5)
    >>> root.t
    tensor([1.4142, 3.0000])
    """
    low, high, f_low, f_high = (v.clone() for v in (low, high, f_low, f_high))
    tol = expanded_like(tol, low, low.dtype)
    weight_low, weight_high = f_low.clone(), f_high.clone()  # halved by the Illinois rule
    last = torch.zeros_like(low)  # the end that moved last: -1 low, 1 high
    slow = torch.zeros_like(low)  # consecutive steps that shrank the bracket by less than half
    n_evaluations = torch.zeros_like(low, dtype=torch.long)
    crosses = f_low.sign() * f_high.sign() < 0
    active = (crosses & (torch.minimum(f_low.abs(), f_high.abs()) > tol)).nonzero()[:, 0]
    most = expanded_like(max_iter, n_evaluations)
    while True:
        active = active[n_evaluations[active] < most[active]]
        if not len(active):
            break
        a, b, w_a, w_b = low[active], high[active], weight_low[active], weight_high[active]
        false_position = a - w_a * (b - a) / (w_b - w_a)
        inside = (false_position > torch.minimum(a, b)) & (false_position < torch.maximum(a, b))
        t = torch.where(inside & (slow[active] < 3), false_position, a + (b - a) / 2)
        between = ((t != a) & (t != b)).nonzero()[:, 0]  # a mask would wait for its size each time
        active, t, a, b, w_a, w_b = (v[between] for v in (active, t, a, b, w_a, w_b))
        if not len(active):
            break
        f = value(t, active)
        n_evaluations[active] += 1
        f_a, f_b = f_low[active], f_high[active]
        moves_low = f.sign() == f_a.sign()
        side = torch.where(moves_low, -1.0, 1.0).to(low.dtype)
        again = side == last[active]
        w_a, w_b = (torch.where(again, w / 2, w) for w in (w_a, w_b))
        low[active], f_low[active] = torch.where(moves_low, t, a), torch.where(moves_low, f, f_a)
        high[active], f_high[active] = torch.where(moves_low, b, t), torch.where(moves_low, f_b, f)
        weight_low[active] = torch.where(moves_low, f, w_a)
        weight_high[active] = torch.where(moves_low, w_b, f)
        last[active] = side
        shrank = (high[active] - low[active]).abs() < (b - a).abs() / 2
        slow[active] = torch.where(shrank | (slow[active] >= 3), 0, slow[active] + 1)
        active = active[f.abs() > tol[active]]
    nearer = f_low.abs() <= f_high.abs()
    root, at_root = torch.where(nearer, low, high), torch.where(nearer, f_low, f_high)
    return Root(root, at_root, low, high, at_root.abs() <= tol, n_evaluations)


class Middle(NamedTuple):
    """Results of n bisections, (n,) each."""

    t: Tensor  # the last midpoint
    success: Tensor  # the two classes are equally probable there, or nothing lies between them
    third_class: Tensor  # another class is predicted there
    n_evaluations: Tensor  # midpoints, the "attempts" of the paper


@shapes(start="n", end="n")
def find_middle(
    evaluate: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    end: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    max_iter: int = 50,
) -> Middle:
    """Bisect segments until both classes are equally probable, component III of DeepDIG [1]_.

    A midpoint that is predicted as a third class ends the search of its segment without success;
    one where both classes are equally probable ends it with success, and so does a bracket without
    a number between its ends; any other midpoint replaces the end that has its class. Only
    midpoints are evaluated.

    Parameters
    ----------
    evaluate : callable
        ``evaluate(t, index)``: the predicted class (m,), and whether the two classes are equally
        probable (m,), at the positions `t` (m,) in [0, 1] of the segments numbered `index` (m,).
    start, end : Tensor of shape (n,), dtype int64
        The predicted classes at 0 and at 1.
    dtype : torch.dtype, default=torch.float32
        Of the positions.
    max_iter : int, default=50
        Midpoints of a segment at most; unlimited in the authors' code.

    Returns
    -------
    middle : Middle
        Neither success nor third class: the limit was reached.

    Raises
    ------
    ValueError
        For shapes that do not match.

    References
    ----------
    .. [1] H. Karimi, T. Derr, J. Tang, "Characterizing the decision boundary of deep neural
       networks", `arXiv 1912.11460 <https://arxiv.org/abs/1912.11460>`_.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.root_finding import find_middle
    >>> evaluate = lambda t, i: ((t > 0.375).long(), t == 0.375)
    >>> find_middle(evaluate, torch.tensor([0]), torch.tensor([1])).t
    tensor([0.3750])
    """
    low = torch.zeros(start.shape, dtype=dtype, device=start.device)
    high, t = torch.ones_like(low), torch.full_like(low, 0.5)
    success, third_class = (torch.zeros_like(start, dtype=torch.bool) for _ in range(2))
    n_evaluations = torch.zeros_like(start)
    active = torch.arange(len(start), device=start.device)
    for _ in range(max_iter):
        middle = (low[active] + high[active]) / 2
        exhausted = (middle == low[active]) | (middle == high[active])
        success[active[exhausted]] = True
        active, middle = active[~exhausted], middle[~exhausted]
        if not len(active):
            break
        t[active] = middle
        predicted, equal = evaluate(middle, active)
        n_evaluations[active] += 1
        at_start, at_end = predicted == start[active], predicted == end[active]
        third_class[active] = ~(at_start | at_end)
        success[active] = (at_start | at_end) & equal
        low[active[at_start]] = middle[at_start]
        high[active[at_end]] = middle[at_end]
        active = active[~(third_class | success)[active]]
    return Middle(t, success, third_class, n_evaluations)
