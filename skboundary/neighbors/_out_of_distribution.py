"""Samples unlike the training data: scores, and p-values of the classes of a sample."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skboundary._device import to_numpy
from skboundary._validation import check_targets, named
from skboundary.exceptions import SeenSamplesWarning, warn_caller
from skboundary.functional.out_of_distribution import boundary_score, conformal_p_values
from skboundary.neighbors._bank import BLOCK, Bank
from skboundary.neighbors._votes import Vote
from skboundary.networks._chunks import Output, over_chunks
from skboundary.networks._labels import encode_labels

_NORMALIZED = 0.02  # probabilities of networks sum to 1 up to half of this


class OutOfDistributionMixin:
    """`score_samples` and `credibility` of `LatentKNNClassifier`."""

    query_transforms: Any
    verbose: int
    n_samples_fit_: int
    classes_: NDArray[Any]
    _bank: Bank
    _codes: NDArray[np.intp] | None
    _check: Callable[[Any], Any]
    _check_n_neighbors: Callable[[int], None]
    _validate: Callable[..., None]
    kneighbors: Callable[..., Any]

    def score_samples(
        self,
        X: ArrayLike | None = None,
        *,
        method: str = "knn",
        n_neighbors: int | None = None,
    ) -> NDArray[Any]:
        """Score how much samples are like the training samples; higher values are more alike.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), default=None
            If None, the training samples; with "knn" a sample is not considered its own neighbor.
        method : {"knn", "boundary", "energy"}, default="knn"
            - "knn": minus the distance to the k-th neighbor [1]_, in `metric` of the estimator.
              With ``metric="cosine"`` the order is that of [1]_.
            - "boundary": mean distance in the latent space from the boundaries between the
              predicted and the other classes, divided by the distance from the mean of the
              training samples (fDBD [2]_).
            - "energy": ``log(sum_c exp(logit_c))``, the negative free energy [3]_. It ignores the
              training samples.
        n_neighbors : int, default=None
            The number k of "knn"; None is the parameter of the estimator.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Those of different methods are on different scales.

        Raises
        ------
        ValueError
            For "boundary", if the latent space is not the input of a linear layer that returns the
            logits, as that of ``layer="auto"`` in most networks. For "energy", if the outputs are
            probabilities, as those of most classifiers without a torch module, so that the sum is
            1 for each sample. If `n_neighbors` is given for a method without neighbors.

        Notes
        -----
        `query_transforms` take effect with "knn" only. With one output for two classes, the order
        of "energy" is that of the largest probability.

        References
        ----------
        .. [1] Y. Sun, Y. Ming, X. Zhu, Y. Li, "Out-of-distribution detection with deep nearest
           neighbors", `arXiv 2204.06507 <https://arxiv.org/abs/2204.06507>`_.
        .. [2] L. Liu, Y. Qin, "Fast decision boundary based out-of-distribution detector",
           `arXiv 2312.11536 <https://arxiv.org/abs/2312.11536>`_.
        .. [3] W. Liu, X. Wang, J. Owens, Y. Li, "Energy-based out-of-distribution detection",
           `arXiv 2010.03759 <https://arxiv.org/abs/2010.03759>`_.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from skboundary import LatentKNNClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = LatentKNNClassifier(metric="cosine", random_state=0).fit(X, y)
        >>> bool(clf.score_samples(X).min() > clf.score_samples(-X).max())
        True
        """
        check_is_fitted(self)
        if method not in ("knn", "boundary", "energy"):
            raise ValueError(
                f"method={method!r} of score_samples is none of 'knn', 'boundary' and 'energy'."
            )
        if method == "knn":
            return -self.kneighbors(X, n_neighbors)[0][:, -1]
        if n_neighbors is not None:
            raise ValueError(
                f"n_neighbors={n_neighbors} has no effect on method={method!r}: omit it, or use "
                "method='knn'."
            )
        if method == "energy":
            self._check_logits()
        return self._score_outputs(X, center=self._center() if method == "boundary" else None)

    @over_chunks(lambda self, X, center: Output((), np.float64))
    def _score_outputs(self, X: Any, center: NDArray[Any] | None) -> NDArray[Any]:
        """Score samples by what the network returns for them: "boundary" if there is a center."""
        if X is not None:
            X = self._check(X)
        scores = []
        for latent, logits in self._bank.output_blocks(X, self.verbose):
            if center is None:
                scores.append(logits.double().logsumexp(1))
            else:
                mean = torch.from_numpy(center).to(latent.device)
                scores.append(boundary_score(latent, *self._head(latent, logits), mean))
        return to_numpy(torch.cat(scores))

    def _center(self) -> NDArray[Any]:
        """Mean latent vector (n_latent,) of the training samples."""
        return to_numpy(self._bank.class_means(np.zeros(self.n_samples_fit_, dtype=np.intp), 1)[0])

    def _head(self, latent: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        head = self._bank.head(latent, logits)
        if head is None:
            raise ValueError(
                "method='boundary' needs the linear layer that maps latent vectors to logits. Here "
                "there is none: the classifier has no torch module, `layer` is not the input of "
                "its last nn.Linear, or something follows that layer. Use method='knn', or "
                "layer='auto' with a network that ends in nn.Linear."
            )
        return head

    def _check_logits(self) -> None:
        """Raise a ValueError if the outputs of the network are logarithms of probabilities."""
        stored = torch.from_numpy(np.array(self._bank.stored.outputs[:BLOCK]))
        if (stored.double().logsumexp(1).abs() < _NORMALIZED).all():
            raise ValueError(
                "method='energy' needs logits, but the classifier returns probabilities: their "
                "sum is 1 for the training samples, and the score is its logarithm. Use "
                "method='knn', or the largest of its probabilities."
            )

    def credibility(
        self, X: ArrayLike, *, X_cal: ArrayLike, y_cal: ArrayLike, n_neighbors: int = 30
    ) -> NDArray[np.float64]:
        """Compute a p-value for each class of a sample (deep k-nearest neighbors [1]_).

        The nonconformity of a sample and a class is the share of the neighbors with other labels.
        The p-value of a class is the share of calibration samples, and the sample itself, whose
        nonconformity with their own labels is at least as large:
        ``(1 + number of calibration samples at least as nonconforming) / (n_cal + 1)``.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        X_cal : array-like of shape (n_cal, ...)
            Calibration samples. Neither the network nor `fit` may have seen them.
        y_cal : array-like of shape (n_cal,)
            Their true labels.
        n_neighbors : int, default=30
            It is not the parameter of the classifier: few neighbors give few different p-values.

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
            Columns follow `classes_`. The classes with p > a are a prediction set: if a sample and
            the calibration samples are exchangeable, its true class is in the set with a
            probability of at least 1 - a. The largest p-value is the credibility of the prediction
            [1]_; where it is low, the neighbors of the sample support no class.

        Raises
        ------
        ValueError
            If fit got no y, if `y_cal` contains a label that is not in `classes_`, or if there are
            fewer training samples than neighbors.

        Warns
        -----
        SeenSamplesWarning
            If more than half of the calibration samples are among the training samples.

        Notes
        -----
        The probability is one over samples and calibration samples together: for the samples of
        one class, or of one region, it may be lower. Without the 1 that [1]_ omits it would not
        hold. [1]_ counts the neighbors in several layers; here there is one.

        References
        ----------
        .. [1] N. Papernot, P. McDaniel, "Deep k-nearest neighbors: towards confident, interpretable
           and robust deep learning", `arXiv 1803.04765 <https://arxiv.org/abs/1803.04765>`_.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from skboundary import LatentKNNClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = LatentKNNClassifier(random_state=0).fit(X[::2], y[::2])
        >>> p = clf.credibility(X[1::4], X_cal=X[3::4], y_cal=y[3::4])
        >>> p.shape
        (38, 3)
        """
        check_is_fitted(self)
        if self._codes is None:
            raise ValueError("credibility needs the labels of the training samples: pass y to fit.")
        self._validate(n_neighbors=n_neighbors)
        self._check_n_neighbors(n_neighbors)
        X = self._check(X)
        if y_cal is None:
            raise ValueError("credibility needs the labels of the calibration samples: pass y_cal.")
        with named("cal"):
            X_cal = self._check(X_cal)
            labels = check_targets(self, X_cal, y_cal)
            assert labels is not None
            of_cal = torch.from_numpy(encode_labels(labels, self.classes_))[:, None]
        shares, seen = self._label_shares(X_cal, n_neighbors)
        if seen.mean() > 0.5:
            warn_caller(
                f"{seen.mean():.1%} of the calibration samples are among the training samples, "
                "where each is its own neighbor, so p-values are too low. Pass samples that were "
                "in no training.",
                SeenSamplesWarning,
            )
        calibration = 1 - shares.gather(1, of_cal)[:, 0]
        own, _ = self._label_shares(X, n_neighbors)
        return to_numpy(conformal_p_values(1 - own, calibration))

    def _label_shares(self, X: Any, k: int) -> tuple[Tensor, NDArray[np.bool_]]:
        """Shares (n, n_classes) of the labels of neighbors, and which samples fit has seen (n,)."""
        vote = Vote(query_weight=0.0, average="proba", weights="uniform", codes=self._codes)
        blocks = self._bank.blocks(X, k, self.query_transforms, self.verbose)
        parts = [(self._bank.mean_of_neighbors(b, vote), self._bank.holds(b)) for b in blocks]
        shares, seen = zip(*parts, strict=True)
        return torch.cat(shares), np.concatenate(seen)
