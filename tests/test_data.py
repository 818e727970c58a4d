"""Tests on the real data in the folder named by SKBOUNDARY_DATA."""

import importlib.util

import numpy as np
import pytest
import torch

from skboundary import FrozenNetwork, LatentKNNClassifier

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def load(data_folder):
    spec = importlib.util.spec_from_file_location("load", data_folder / "load.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pooled_features(net, x):
    return net(x, features=True)[1]


def test_pretrained_network_with_a_callable_layer_and_flipped_queries(load):
    """A third-party network of functional calls, whose latent space a callable returns."""
    net = load.mobilenet("mobilenet_v1_025_128_imagenet_uint8")
    X, _, X_test, _ = load.images("cifar10_small")
    X, X_test = (a.transpose(0, 3, 1, 2).repeat(4, 2).repeat(4, 3) for a in (X, X_test))
    frozen = FrozenNetwork(net, preprocess=lambda x: x / 127.5 - 1)
    clf = LatentKNNClassifier(
        frozen,
        layer=pooled_features,
        metric="cosine",
        query_weight=0.94,
        query_transforms=[lambda X: X[..., ::-1]],
    ).fit(X[:120])
    proba = clf.predict_proba(X_test[:30])
    assert proba.shape == (30, 1001) and np.allclose(proba.sum(1), 1, atol=1e-5)
    # by hand: the k nearest of two lists, each training sample once
    with torch.no_grad():
        stored = net(torch.tensor(X[:120]) / 127.5 - 1, features=True)
        both = [
            net(torch.tensor(q.copy()) / 127.5 - 1, features=True)
            for q in (X_test[:30], X_test[:30, :, :, ::-1])
        ]
    unit = torch.nn.functional.normalize
    cosine = torch.stack([unit(q[1]) @ unit(stored[1]).T for q in both]).amax(0)
    nearest = cosine.topk(3, dim=1).indices
    assert np.array_equal(clf.kneighbors(X_test[:30])[1], nearest)
    expected = 0.94 * both[0][0].softmax(1) + 0.06 * stored[0].softmax(1)[nearest].mean(1)
    np.testing.assert_allclose(proba, expected, atol=1e-5)
    with pytest.raises(ValueError, match="this network runs none"):
        LatentKNNClassifier(frozen).fit(X[:5], np.zeros(5, int))
