"""Wrong labels: samples whose neighbors in the latent space have other labels."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch
from sklearn.utils._optional_dependencies import check_pandas_support
from sklearn.utils.validation import check_is_fitted

from skboundary._validation import check_targets
from skboundary.neighbors._bank import Bank
from skboundary.networks._labels import encode_labels


class LabelIssues(Bunch):
    """Scores of labels, from :meth:`skboundary.LatentKNNClassifier.label_issues`.

    A dictionary whose keys are also attributes, arrays of shape (n_samples,).

    Parameters
    ----------
    **kwargs : ndarray of shape (n_samples,)
        The attributes.

    Attributes
    ----------
    score : ndarray of shape (n_samples,)
        In [0, 1]; the higher, the more suspicious is the label.
    suggested_label : ndarray of shape (n_samples,)
        The most frequent label of the neighbors; of equally frequent ones the given label, or
        else the first in `classes_`.
    is_issue : ndarray of shape (n_samples,), dtype bool
        Whether the score is above .5.
    rank : ndarray of shape (n_samples,)
        Position in the order of the scores: 0 is the most suspicious. Equal scores are in the
        order of the samples.
    given_label : ndarray of shape (n_samples,)
        The labels that were scored.

    See Also
    --------
    skboundary.LatentKNNClassifier.diagnose : Purity of the neighborhoods, and distances.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skboundary import LatentKNNClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> y[:3] = 2  # setosa, labeled as virginica
    >>> issues = LatentKNNClassifier(random_state=0).fit(X, y).label_issues(n_neighbors=15)
    >>> int(issues.rank[:3].max()), issues.suggested_label[:3]
    (2, array([0, 0, 0]))
    """

    def to_frame(self) -> Any:
        """Arrange the result in the columns of cleanlab's Datalab.

        Returns
        -------
        frame : pandas.DataFrame
            `is_label_issue`, `label_score` (1 - score: the lower, the more suspicious),
            `given_label` and `predicted_label`.

        Raises
        ------
        ImportError
            Where pandas is not installed.
        """
        columns = {
            "is_label_issue": self.is_issue,
            "label_score": 1 - self.score,
            "given_label": self.given_label,
            "predicted_label": self.suggested_label,
        }
        return check_pandas_support("LabelIssues.to_frame").DataFrame(columns)


class LabelIssuesMixin:
    """`label_issues` of `LatentKNNClassifier`."""

    query_transforms: Any
    verbose: int
    n_samples_fit_: int
    classes_: NDArray[Any]
    _bank: Bank
    _codes: NDArray[np.intp] | None
    _check: Callable[[Any], Any]
    _validate: Callable[..., None]

    def label_issues(
        self,
        X: ArrayLike | None = None,
        y: ArrayLike | None = None,
        *,
        method: str = "vote",
        n_neighbors: int = 30,
    ) -> LabelIssues:
        """Find labels that are probably wrong, by the labels of neighbors in the latent space.

        With p the shares of the labels among the neighbors of a sample, and j the given label, the
        score is ``1 - p[j]`` or, as in the ranking of SimiFeat [1]_, ``1 - p[j] / ||p||``.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), default=None
            If None, the training samples and their labels are scored. A sample is never among its
            own neighbors, also if it is passed here.
        y : array-like of shape (n_samples,), default=None
            Labels of X to score; omitted together with X.
        method : {"vote", "rank"}, default="vote"
            "vote" counts the neighbors with another label. "rank" also considers how much these
            agree: one other label is more suspicious than several.
        n_neighbors : int, default=30
            Number of neighbors. It is not the parameter of the classifier: more neighbors than for
            predictions find wrong labels better.

        Returns
        -------
        issues : LabelIssues
            `score`, `suggested_label`, `is_issue`, `rank` and `given_label`, arrays of shape
            (n_samples,), and `to_frame()`.

        Raises
        ------
        ValueError
            If fit got no y, if only one of X and y is given, for a label that is not in `classes_`,
            or if there are not more training samples than neighbors.

        Notes
        -----
        `query_weight`, `average`, `weights` and `contribute` have no effect: the network provides
        the latent space, and each neighbor one vote.

        References
        ----------
        .. [1] Z. Zhu, Z. Dong, Y. Liu, "Detecting corrupted labels without training a model to
           predict", `arXiv 2110.06283 <https://arxiv.org/abs/2110.06283>`_.
        """
        check_is_fitted(self)
        if self._codes is None:
            raise ValueError(
                "label_issues needs the labels of the training samples: pass y to fit."
            )
        if method not in ("vote", "rank"):
            raise ValueError(f"method={method!r} of label_issues is neither 'vote' nor 'rank'.")
        if (X is None) != (y is None):
            raise ValueError(
                "label_issues scores the labels y of X: pass both, or neither for the training "
                "samples."
            )
        self._validate(n_neighbors=n_neighbors)
        if n_neighbors >= self.n_samples_fit_:
            raise ValueError(
                f"n_neighbors={n_neighbors} of label_issues needs {n_neighbors + 1} training "
                "samples, as a sample is not its own neighbor, and there are "
                f"{self.n_samples_fit_}. Lower n_neighbors."
            )
        if X is None:
            codes = self._codes
            near = self._codes[self._bank.own_neighbors(n_neighbors)[1]]
        else:
            X = self._check(X)
            y = check_targets(self, X, y)
            assert y is not None
            codes = encode_labels(y, self.classes_)
            near = self._labels_nearby(X, codes, n_neighbors)
        return label_issues(codes, near, self.classes_, method)

    def _labels_nearby(self, X: Any, codes: NDArray[np.intp], k: int) -> NDArray[np.intp]:
        """Labels (n, k) of the neighbors of samples that may be among the training samples."""
        assert self._codes is not None
        blocks = self._bank.blocks(X, k + 1, self.query_transforms, self.verbose)
        parts, start = [], 0
        for found in blocks:
            near, own = self._codes[found.indices], codes[start : start + len(found.indices)]
            itself = self._bank.holds(found)[:, None] & (found.distances == found.distances[:, :1])
            # of several training samples at its place, it is one with its label
            likely = itself * (1 + (near == own[:, None]))
            drop = np.where(itself.any(1), likely.argmax(1), k)
            keep = np.arange(k + 1) != drop[:, None]
            parts.append(near[keep].reshape(-1, k))
            start += len(own)
        return np.concatenate(parts)


def label_issues(
    codes: NDArray[np.intp], near: NDArray[np.intp], classes: NDArray[Any], method: str
) -> LabelIssues:
    """Score labels by those of the neighbors; see `LatentKNNClassifier.label_issues`.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        Given labels, as positions in `classes`.
    near : ndarray of shape (n, k)
        Labels of the neighbors, as positions in `classes`.
    classes : ndarray of shape (n_classes,)
    method : {"vote", "rank"}
    """
    n, k = near.shape
    votes = np.zeros((n, len(classes)))
    np.add.at(votes, (np.arange(n)[:, None], near), 1.0)
    own = votes[np.arange(n), codes]
    score = 1 - own / (k if method == "vote" else np.linalg.norm(votes, axis=1))
    votes[np.arange(n), codes] += 0.5  # the given label wins a tie
    rank = np.empty(n, dtype=np.intp)
    rank[np.argsort(-score, kind="stable")] = np.arange(n)
    return LabelIssues(
        score=score,
        suggested_label=classes[votes.argmax(1)],
        is_issue=score > 0.5,
        rank=rank,
        given_label=classes[codes],
    )
