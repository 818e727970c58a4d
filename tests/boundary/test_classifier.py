"""The fitted classifier that the boundary estimators share."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from skboundary.boundary._classifier import FittedClassifier

X, y = load_iris(return_X_y=True)


def fit(estimator, labels=y, **params):
    return FittedClassifier.fit(
        estimator, X, labels, random_state=np.random.RandomState(0), **params
    )


@pytest.fixture
def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()


def test_one_pass_gives_all_that_a_network_computes(module):
    classifier, n = fit(module, latent=True), []  # its layer is known
    module.register_forward_hook(lambda module, args, output: n.append(len(output)))
    known = classifier.predict(X, latent=True)
    assert sum(n) == len(X) and known.n_runs == 1
    np.testing.assert_array_equal(known.predicted, classifier.labels(X))
    torch.testing.assert_close(known.logits, classifier.logits(X), rtol=0, atol=0)
    torch.testing.assert_close(known.latent, classifier.latent(X), rtol=0, atol=0)
    assert classifier.predict(X).latent is None


def test_usable_samples_are_those_predicted_correctly(module):
    classifier = fit(module)
    training = classifier.training
    np.testing.assert_array_equal(training.codes, classifier.labels(X))
    np.testing.assert_array_equal(training.usable, training.codes == y)
    assert fit(module, None).training.usable.all()
    assert training.logits is None and fit(module, latent=True).training.logits is not None


def test_scores_of_a_black_box_are_not_computed_to_predict():
    classifier = fit(KNeighborsClassifier())
    known = classifier.predict(X[:5])
    assert classifier.response == "label" and known.logits is None
    with classifier.open() as oracle:
        labels, logits = oracle.inspect(torch.from_numpy(X[:5]))
    assert logits is None and labels.tolist() == known.predicted.tolist()


def test_samples_are_kept_on_request_only(module):
    classifier = fit(module, response="gradient", keep_samples=False)
    assert classifier.training.X.shape == (0, 4) and classifier.response == "gradient"


def test_known_outputs_are_not_computed_again(module):
    classifier = fit(module, latent=True)
    x = torch.from_numpy(X[:7])
    with classifier.open() as oracle:
        known = classifier.training.outputs(np.arange(7)).cast(x.dtype)
        assert oracle.complete(x, known) == (known, 0)
        computed, n_runs = oracle.complete(x, None)
        assert n_runs == 1
        torch.testing.assert_close(computed.logits, known.logits)
        labels_alone = known._replace(logits=None)
        assert oracle.complete(x, labels_alone)[1] == 1
    with classifier.open("label") as oracle:
        assert oracle.complete(x, labels_alone) == (labels_alone, 0)
