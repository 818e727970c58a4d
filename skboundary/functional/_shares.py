"""Queries divided among threads."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Event

import torch
from torch import Tensor

_SHARE = 64  # fewer queries are not worth a thread of their own

_Parts = tuple[Tensor, ...]


def share_out(
    share: Callable[[Tensor, Tensor | None, Event], _Parts],
    queries: Tensor,
    exclude: Tensor | None,
) -> Iterable[_Parts]:
    """Search on the CPU with a share of the queries for each of torch's threads.

    The products of one batch are too small, and the steps between them too many, for several
    threads to work on them together.

    Parameters
    ----------
    share : callable
        Receives queries, their `exclude`, and an event that is set when another share has failed;
        returns tensors.
    queries : Tensor of shape (q, d)
    exclude : Tensor of shape (q,) or None

    Returns
    -------
    parts : iterable of tuple of Tensor
        For each tensor that `share` returns, that of the first share, of the second, and so on.
    """
    threads = torch.get_num_threads() if queries.device.type == "cpu" else 1
    n_shares, stop = min(threads, len(queries) // _SHARE), Event()
    if n_shares <= 1:
        return ((part,) for part in share(queries, exclude, stop))
    shares = queries.tensor_split(n_shares)
    excludes = [None] * n_shares if exclude is None else exclude.tensor_split(n_shares)
    try:
        with ThreadPoolExecutor(n_shares, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                futures = [
                    pool.submit(share, part, of_part, stop)
                    for part, of_part in zip(shares, excludes, strict=True)
                ]
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()  # raises if this share has failed
            except BaseException:  # the pool waits for its threads, after Ctrl-C too
                stop.set()
                raise
    finally:
        torch.set_num_threads(threads)  # set per thread, but new threads take the last one set
    return zip(*(future.result() for future in futures), strict=True)
