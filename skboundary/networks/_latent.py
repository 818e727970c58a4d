"""LatentTransformer: the activations of one layer as features."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils.validation import check_is_fitted

from skboundary._device import to_numpy
from skboundary._validation import all_or_nothing, check_input, check_targets
from skboundary.networks._factory import (
    NETWORK_CONSTRAINTS,
    as_network,
    is_trained,
    takes_frames,
    takes_sparse,
)


class LatentTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Turn rows into the activations of a layer of a trained classifier.

    Read more in the :ref:`User Guide <networks>`.

    Parameters
    ----------
    estimator : estimator or torch.nn.Module, default=None
        The classifier. A module, a :class:`FrozenNetwork` and a
        :class:`~sklearn.frozen.FrozenEstimator` are used as they are; any other estimator is
        cloned and fitted. None trains a small multilayer perceptron on standardized columns.
    layer : str, int or callable, default="auto"
        "auto" is the input of the last `torch.nn.Linear` that runs; for a pipeline without a
        network the input of its last step, for any other classifier X itself. The dotted name
        of a submodule means its output, ``"name:input"`` its input, an integer the output of a
        leaf module counted in the order they run (-2 is the last but one), and a callable
        takes the module and a batch and returns the activations.
    pool : {"avg"}, default=None
        Average feature maps over all axes after the second; None flattens them.
    memory : path or joblib.Memory, default=None
        Where to keep what a trained network gave for each row. A row that comes again, in any
        fold of any search, is not run again. It has no effect on an estimator that is fitted
        here.
    memory_key : str, default=None
        A name for what the network computes besides its weights. It replaces the digest of its
        code and attributes in `memory`, where that refuses something that it cannot read.
    device : str or torch.device, default="auto"
        "auto" keeps a module on the accelerator where it is, else takes the best device there
        is.
    batch_size : "auto" or int, default="auto"
        Rows in a batch; "auto" is bounded by memory. Halved when memory runs out.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the default network and of skorch nets.
    verbose : int, default=0
        A progress bar when positive.

    Attributes
    ----------
    estimator_ : estimator
        The trained classifier.
    device_ : torch.device
        Where the network runs.
    input_shape_ : tuple of int
        Shape of one row of X.
    n_features_in_ : int
        Size of the second axis of X.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, when X has names that are all strings.

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

    _parameter_constraints: dict[str, Any] = NETWORK_CONSTRAINTS

    def __init__(
        self,
        estimator: Any = None,
        *,
        layer: Any = "auto",
        pool: str | None = None,
        memory: Any = None,
        memory_key: str | None = None,
        device: Any = "auto",
        batch_size: Any = "auto",
        random_state: Any = None,
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
    def fit(self, X: Any, y: Any = None) -> LatentTransformer:
        """Train the classifier where it has to be, and find the layer.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,), default=None
            Needed, and read, only where the classifier is trained here.

        Returns
        -------
        self : LatentTransformer

        Raises
        ------
        ValueError
            For input that is not finite, a missing y, or a layer that is not there.
        """
        X = check_input(self, X, reset=True, keep_frame=takes_frames(self.estimator))
        y = None if is_trained(self.estimator) else check_targets(self, X, y)
        self.estimator_, self._network = as_network(
            self.estimator,
            X,
            y,
            layer=self.layer,
            pool=self.pool,
            memory=self.memory,
            memory_key=self.memory_key,
            device=self.device,
            batch_size=self.batch_size,
            random_state=self.random_state,
            verbose=self.verbose,
            logits=False,
        )
        self.device_ = self._network.device
        self._n_features_out = self._network.n_latent
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Compute the activations.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        latent : ndarray of shape (n_samples, n_latent)
            In the dtype of the network, float32 at least.
        """
        check_is_fitted(self)
        X = check_input(self, X, reset=False, keep_frame=takes_frames(self.estimator))
        return to_numpy(self._network.latent(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = not is_trained(self.estimator)
        tags.transformer_tags.preserves_dtype = []
        tags.input_tags.sparse = takes_sparse(self.estimator)
        return tags
