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
from skboundary.exceptions import DisagreeingNeighborsWarning, warn_caller
from skboundary.neighbors._bank import Bank
from skboundary.networks._labels import encode_labels

_PASSES = 5
_TIE = 1e-9  # shares are sums of rounded weights


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
        The label with the largest share among the neighbors; of equal shares the given label, or
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
        score is ``1 - p[j]`` or, as in the ranking of SimiFeat [1]_, ``1 - p[j] / ||p||``. The
        vote is repeated: each neighbor has the weight ``p[j]`` that its own label got in the vote
        before, so that wrong labels count less. There are five votes, the first of equal
        weights. This is a weighted form of repeated edited nearest neighbors [2]_.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), default=None
            If None, the training samples and their labels are scored. A sample is never among its
            own neighbors, also if it is passed here.
        y : array-like of shape (n_samples,), default=None
            Labels of X to score; omitted together with X.
        method : {"vote", "rank"}, default="vote"
            "vote" is the share of the other labels. "rank" also considers how much these agree:
            one other label is more suspicious than several.
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

        Warns
        -----
        DisagreeingNeighborsWarning
            If most training samples have mostly neighbors with other labels, so that most labels
            are issues.

        Notes
        -----
        The network provides the latent space alone: `query_weight`, `average`, `weights` and
        `contribute` have no effect, and `query_transforms` only if X is given. Then the training
        samples are searched among themselves as well, for their weights.

        A network that has memorized a wrong label moves the sample to the class of the label, most
        in its last hidden layer, which is ``layer="auto"``. With two classes that layer may show
        none of the wrong labels. A network that was stopped early finds more of them than one that
        was not; an earlier `layer` is the second choice.

        References
        ----------
        .. [1] Z. Zhu, Z. Dong, Y. Liu, "Detecting corrupted labels without training a model to
           predict", `arXiv 2110.06283 <https://arxiv.org/abs/2110.06283>`_.
        .. [2] I. Tomek, "An experiment with the edited nearest-neighbor rule", IEEE Transactions on
           Systems, Man, and Cybernetics 6(6), 1976.
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
        own = self._bank.own_neighbors(n_neighbors)[1]
        weights = vote_weights(self._codes, own)
        outvoted = (weights < 0.5 - _TIE).mean()
        if outvoted > 0.5:
            warn_caller(
                f"{outvoted:.0%} of the training samples have mostly neighbors with other labels. "
                "It is more likely that samples of one class are not neighbors in this latent "
                "space than that so many labels are wrong: do not remove the issues, but use "
                "another network, layer or metric.",
                DisagreeingNeighborsWarning,
            )
        if X is None:
            codes, near = self._codes, own
        else:
            X = self._check(X)
            given = check_targets(self, X, y)
            assert given is not None
            codes = encode_labels(given, self.classes_)
            near = self._others_nearby(X, codes, n_neighbors)
        shares = label_shares(self._codes[near], weights[near], len(self.classes_))
        return label_issues(codes, shares, self.classes_, method)

    def _others_nearby(self, X: Any, codes: NDArray[np.intp], k: int) -> NDArray[np.intp]:
        """Neighbors (n, k) of samples that may be among the training samples, without these."""
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
            parts.append(found.indices[keep].reshape(-1, k))
            start += len(own)
        return np.concatenate(parts)


def vote_weights(codes: NDArray[np.intp], near: NDArray[np.intp]) -> NDArray[np.float64]:
    """Share that the label of each sample has among its neighbors, in the last vote but one.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        Labels, as positions among the classes.
    near : ndarray of shape (n, k)
        Neighbors of each sample.

    Returns
    -------
    weights : ndarray of shape (n,)
    """
    weights, agree = np.ones(len(codes)), codes[near] == codes[:, None]
    for _ in range(_PASSES - 1):
        weights = (_normalized(weights[near]) * agree).sum(1)
    return weights


def label_shares(
    labels: NDArray[np.intp], weights: NDArray[np.float64], n_classes: int
) -> NDArray[np.float64]:
    """Weighted shares (n, n_classes) of the labels (n, k) of neighbors."""
    cells = np.arange(len(labels))[:, None] * n_classes + labels
    counts = np.bincount(cells.ravel(), _normalized(weights).ravel(), len(labels) * n_classes)
    return counts.astype(np.float64, copy=False).reshape(-1, n_classes)


def _normalized(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide weights (n, k) by their sum; if all are 0, they count alike."""
    weights = np.where(weights.any(1, keepdims=True), weights, 1.0)
    return weights / weights.sum(1, keepdims=True)


def label_issues(
    codes: NDArray[np.intp], shares: NDArray[np.float64], classes: NDArray[Any], method: str
) -> LabelIssues:
    """Score labels by their shares among the neighbors; see `LatentKNNClassifier.label_issues`.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        Given labels, as positions in `classes`.
    shares : ndarray of shape (n, n_classes)
        Overwritten.
    classes : ndarray of shape (n_classes,)
    method : {"vote", "rank"}
    """
    each = np.arange(len(codes))
    norm = 1.0 if method == "vote" else np.linalg.norm(shares, axis=1)
    score = np.clip(1 - shares[each, codes] / norm, 0, 1)  # sums of rounded weights exceed 1
    rank = np.empty(len(codes), dtype=np.intp)
    rank[np.argsort(-score, kind="stable")] = each
    shares[each, codes] += _TIE  # the given label wins a tie
    return LabelIssues(
        score=score,
        suggested_label=classes[shares.argmax(1)],
        is_issue=score > 0.5 + _TIE,
        rank=rank,
        given_label=classes[codes],
    )
