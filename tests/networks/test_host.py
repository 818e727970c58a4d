"""What the estimators around a network share: docstrings, metadata, and a new one in ten lines."""

import re

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils import get_tags

import skboundary
from skboundary import (
    BiasedExtrapolationClassifier,
    BiasedExtrapolationSampler,
    BoundaryCharacterizer,
    BoundarySampleExtractor,
    LatentKNNClassifier,
    LatentTransformer,
    SubspaceMargins,
)
from skboundary.networks._host import NetworkHostMixin
from skboundary.networks._parameters import (
    DESCRIPTIONS,
    LATENT_CONSTRAINTS,
    NETWORK_CONSTRAINTS,
    fill_docstring,
)

HOSTS = {
    "latent": LatentTransformer(),
    "knn": LatentKNNClassifier(),
    "extractor": BoundarySampleExtractor(method="label", effort="fast"),
    "characterizer": BoundaryCharacterizer(n_samples=5, n_partners=2),
    "margins": SubspaceMargins(subspaces=None),
    "sampler": BiasedExtrapolationSampler(),
    "classifier": BiasedExtrapolationClassifier(n_iter=1),
}


@fill_docstring
class ScaledProba(NetworkHostMixin, ClassifierMixin, BaseEstimator):
    """Probabilities of a network.

    Parameters
    ----------
    {estimator}
    {device}
    """

    _parameter_constraints = {name: NETWORK_CONSTRAINTS[name] for name in ("estimator", "device")}

    def __init__(self, estimator=None, *, device="auto"):
        self.estimator = estimator
        self.device = device

    def fit(self, X, y=None, **fit_params):
        X, y = self._check_fit(X, y)
        metadata = self._route(fit_params, X).fit
        self.estimator_, self._network = self._as_network(X, y, fit_params=metadata)
        self.device_, self.classes_ = self._network.device, self._network.classes_
        return self

    def predict_proba(self, X):
        return self._network.proba(self._network.logits(self._check_X(X))).numpy()


def test_a_new_estimator_takes_ten_lines(iris, mlp):
    X, y = iris
    ours = ScaledProba(LogisticRegression(max_iter=1000)).fit(X, y)
    expected = LogisticRegression(max_iter=1000).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(ours.predict_proba(X), expected, atol=1e-12)
    assert ScaledProba(mlp).fit(X).predict_proba(X).shape == (150, 3)
    assert not get_tags(ScaledProba(mlp)).target_tags.required
    with pytest.raises(ValueError, match="requires y"):
        ScaledProba().fit(X)
    with pytest.raises(ValueError, match="1 features"):
        ours.predict_proba(X[:, None])


def test_docstrings_hold_the_shared_descriptions():
    assert "    device : str or torch.device" in ScaledProba.__doc__
    for name in skboundary.__all__:
        doc = getattr(skboundary, name).__doc__
        assert not re.search(r"^ *\{\w+\}$", doc, re.MULTILINE)


def test_each_shared_parameter_is_described():
    assert set(LATENT_CONSTRAINTS) < set(DESCRIPTIONS)


def test_an_unknown_placeholder_is_an_error():
    with pytest.raises(KeyError, match="no_such_parameter"):
        fill_docstring(type("Host", (), {"__doc__": "Summary.\n\n{no_such_parameter}\n"}))


def fit(host, X, y):
    return host.fit_resample(X, y) if hasattr(host, "fit_resample") else host.fit(X, y)


@pytest.mark.parametrize("name", HOSTS)
def test_estimators_without_a_request_are_fitted_with_routing_enabled(name, iris):
    X, y = iris
    keep = np.r_[:100, 110:150]
    with config_context(enable_metadata_routing=True):
        for request in (None, False):
            inner = LogisticRegression().set_fit_request(sample_weight=request)
            fit(clone(HOSTS[name]).set_params(estimator=inner), X[keep], y[keep])
