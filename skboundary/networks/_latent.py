"""LatentTransformer: the activations of one layer as features."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils.validation import check_is_fitted

from skboundary._callbacks import fit_tasks
from skboundary._device import DeviceLike, to_numpy
from skboundary._random import RandomStateLike
from skboundary._validation import all_or_nothing
from skboundary.networks._chunks import Output, over_chunks
from skboundary.networks._factory import is_trained
from skboundary.networks._host import NetworkHostMixin
from skboundary.networks._parameters import LATENT_CONSTRAINTS, fill_docstring


@fill_docstring
class LatentTransformer(
    NetworkHostMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Transform samples to the activations of a layer of a trained classifier.

    Read more in the :ref:`User Guide <networks>`.

    Parameters
    ----------
    {estimator}
    layer : str, int or callable, default="auto"
        "auto" is the input of the last `torch.nn.Linear` that runs; for a pipeline without a
        network the input of its last step, and for any other classifier X itself. The dotted
        name of a submodule is its output, ``"name:input"`` its input, an integer the output of a
        leaf module counted in execution order (-2 is the second to last), and a callable
        receives the module and a batch and returns the activations.
    {pool}
    {memory}
    {memory_key}
    {device}
    {batch_size}
    {random_state}
    {verbose}

    Attributes
    ----------
    {estimator_}
    {device_}
    {input_shape_}
    {n_features_in_}
    {feature_names_in_}

    See Also
    --------
    LatentKNNClassifier : Neighbors in the latent space.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skboundary import LatentTransformer
    >>> X, y = load_iris(return_X_y=True)
    >>> LatentTransformer(random_state=0).fit_transform(X, y).shape
    (150, 64)
    """

    _parameter_constraints: dict[str, Any] = LATENT_CONSTRAINTS

    def __init__(
        self,
        estimator: Any = None,
        *,
        layer: Any = "auto",
        pool: str | None = None,
        memory: Any = None,
        memory_key: str | None = None,
        device: DeviceLike = "auto",
        batch_size: int | str = "auto",
        random_state: RandomStateLike = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.layer = layer
        self.pool = pool
        self.memory = memory
        self.memory_key = memory_key
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing()
    @fit_tasks(lambda self: self._n_trainings)
    def fit(self, X: ArrayLike, y: ArrayLike | None = None, **fit_params: Any) -> LatentTransformer:
        """Fit the classifier unless it is trained, and find the layer.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,), default=None
            Required, and used, only if the classifier is fitted here.
        **fit_params : dict
            Metadata for `fit` of `estimator`, such as `sample_weight`, see :ref:`metadata`.

        Returns
        -------
        self : LatentTransformer

        Raises
        ------
        ValueError
            If X is not finite, if y is required but missing, or if the layer does not exist.
        """
        X, y = self._check_fit(X, None if is_trained(self.estimator) else y)
        metadata = self._route(fit_params, X).fit
        self.estimator_, self._network = self._as_network(X, y, logits=False, fit_params=metadata)
        self.device_ = self._network.device
        self._n_features_out = self._network.n_latent
        return self

    @over_chunks(lambda self, X: Output((self._network.n_latent,), self._network.dtype))
    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Compute the activations.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        latent : ndarray of shape (n_samples, n_latent)
            In the dtype of the network, at least float32.
        """
        check_is_fitted(self)
        return to_numpy(self._network.latent(self._check_X(X)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
