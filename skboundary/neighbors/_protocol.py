"""What a search object must offer to be used as `neighbors`."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class NeighborSearch(Protocol):
    """A search for nearest neighbors, as the parameter `neighbors` of estimators takes it.

    :class:`~skboundary.TorchNearestNeighbors` and scikit-learn's ``NearestNeighbors`` conform to
    it. The object is cloned, or copied deeply where it has no ``get_params``, before `fit` is
    called on the copy; the original is never changed. Estimators are pickled with their fitted
    search.

    Two attributes are optional: `effective_metric_`, or else `metric`. If it is "sqeuclidean",
    `LatentKNNClassifier.diagnose` takes the roots of the distances.

    Examples
    --------
    >>> import numpy as np
    >>> from skboundary import LatentKNNClassifier
    >>> class BruteForce:
    ...     def fit(self, X):
    ...         self.X_ = X
    ...         return self
    ...
    ...     def kneighbors(self, X=None, n_neighbors=None, return_distance=True):
    ...         queries = self.X_ if X is None else X
    ...         distances = np.linalg.norm(queries[:, None] - self.X_, axis=2)
    ...         if X is None:
    ...             np.fill_diagonal(distances, np.inf)
    ...         indices = distances.argsort(axis=1)[:, :n_neighbors]
    ...         if not return_distance:
    ...             return indices
    ...         return np.take_along_axis(distances, indices, axis=1), indices
    >>> X, y = np.random.default_rng(0).normal(size=(50, 4)), np.arange(50) % 2
    >>> clf = LatentKNNClassifier(neighbors=BruteForce(), random_state=0).fit(X, y)
    >>> clf.kneighbors(X[:1])[1].shape
    (1, 3)
    """

    def fit(self, X: NDArray[Any]) -> Any:
        """Store the samples to search.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_latent)
            Latent vectors, in the floating dtype of the classifier.

        Returns
        -------
        self : object
            The fitted search.
        """

    def kneighbors(
        self,
        X: NDArray[Any] | None = None,
        n_neighbors: int | None = None,
        return_distance: bool = True,
    ) -> Any:
        """Find the nearest samples of each query.

        Parameters
        ----------
        X : ndarray of shape (n_queries, n_latent) or None
            Queries, in the dtype of `fit`. None searches the neighbors of the stored samples, each
            without itself; only `LatentKNNClassifier.kneighbors` and `diagnose` without X need it.
        n_neighbors : int
            Always given, as the second positional argument, and at most the number of samples.
        return_distance : bool, default=True
            Left at its default.

        Returns
        -------
        distances : ndarray of shape (n_queries, n_neighbors)
            In increasing order, in any unit. Only with `return_distance`.
        indices : ndarray of shape (n_queries, n_neighbors), integers
            Positions of the neighbors in the X of `fit`.
        """


def check_found(
    search: Any, found: Any, shape: tuple[int, int], n_samples: int
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Refuse neighbors that a search of the user cannot have found.

    Parameters
    ----------
    search : object
        For the message.
    found : tuple
        What its `kneighbors` returned: distances and indices.
    shape : tuple (n_queries, n_neighbors)
        That both must have.
    n_samples : int
        Number of samples that it was fitted on.

    Returns
    -------
    distances, indices : ndarray of shape (n_queries, n_neighbors)

    Raises
    ------
    ValueError
        For too few neighbors, indices of samples that do not exist, and distances that are NaN or
        infinite.
    """
    distances, indices = (np.asarray(part) for part in found)
    what = ""
    if distances.shape != shape or indices.shape != shape:
        what = f"distances of shape {distances.shape} and indices of shape {indices.shape}"
    elif indices.dtype.kind not in "iu" or ((indices < 0) | (indices >= n_samples)).any():
        what = f"indices that are not integers from 0 to {n_samples - 1}"
    elif not np.isfinite(distances).all():
        what = "distances that are NaN or infinite"
    if what:
        raise ValueError(
            f"neighbors={search!r} returns {what} for {shape[0]} queries and n_neighbors="
            f"{shape[1]}. Use an exact search, lower n_neighbors, or mend the search."
        )
    return distances, indices
