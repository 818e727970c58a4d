import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skboundary import FrozenNetwork, LatentKNNClassifier
from skboundary.networks._module_state import evaluation_mode, tree_of
from skboundary.utils._checks._modules import module_state


def state(module):
    """Everything about a module that we must not change, by value."""
    return module_state([module])


def test_predictions_are_the_networks(cnn, digits):
    X, _ = digits
    with torch.no_grad():
        expected = cnn(torch.tensor(X))
    net = FrozenNetwork(cnn, batch_size=100)
    np.testing.assert_allclose(net.decision_function(X), expected, atol=1e-5)
    np.testing.assert_allclose(net.predict_proba(X), expected.softmax(1), atol=1e-6)
    assert np.array_equal(net.predict(X), expected.argmax(1))
    assert np.array_equal(net.fit(X).classes_, np.arange(10))


def test_columns_follow_sorted_classes(mlp, iris):
    X, y = iris
    names = np.array(["w", "u", "v"])
    net = FrozenNetwork(mlp, classes=names)
    plain = FrozenNetwork(mlp).predict_proba(X)
    assert list(net.classes_) == ["u", "v", "w"]
    np.testing.assert_allclose(net.predict_proba(X), plain[:, [1, 2, 0]], rtol=1e-12)
    assert np.array_equal(net.predict(X), names[plain.argmax(1)])
    # scikit-learn reads columns in sorted order
    host = LatentKNNClassifier(net, query_weight=1.0).fit(X, names[y])
    expected = roc_auc_score(y, plain, multi_class="ovr")
    for clf in (net, host):
        scores = clf.predict_proba(X)
        assert roc_auc_score(names[y], scores, multi_class="ovr") == pytest.approx(expected)
        assert clf.score(X, names[y]) == pytest.approx((plain.argmax(1) == y).mean())


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_logit_becomes_two_columns(shape):
    class One(nn.Module):
        def forward(self, x):
            return x[:, 0].reshape(shape)

    x = np.array([[-2.0], [0.5], [3.0]], np.float32)
    net = FrozenNetwork(One(), classes=["no", "yes"])
    np.testing.assert_allclose(net.decision_function(x), x[:, 0])
    np.testing.assert_allclose(net.predict_proba(x)[:, 1], 1 / (1 + np.exp(-x[:, 0])), rtol=1e-6)
    assert list(net.predict(x)) == ["no", "yes", "yes"]


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.Sigmoid()], ids=["softmax", "sigmoid"])
def test_probability_outputs_become_raw_logits(end, iris):
    X = iris[0]
    body = nn.Linear(4, 3 if isinstance(end, nn.Softmax) else 1).double()
    net = FrozenNetwork(nn.Sequential(body, end), output="proba")
    raw = FrozenNetwork(body)
    np.testing.assert_allclose(net.predict_proba(X), raw.predict_proba(X), atol=1e-12)
    ours, theirs = net.decision_function(X), raw.decision_function(X)
    if ours.ndim == 2:  # logits are known up to a constant
        ours, theirs = ours - ours[:, :1], theirs - theirs[:, :1]
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_log_softmax_output_is_a_logit(iris):
    body = nn.Linear(4, 3).double()
    net = FrozenNetwork(nn.Sequential(body, nn.LogSoftmax(1)))
    raw = FrozenNetwork(body)
    np.testing.assert_allclose(net.predict_proba(iris[0]), raw.predict_proba(iris[0]))


def test_proba_that_is_none_is_refused(iris):
    with pytest.raises(ValueError, match="declared to return prob.*Use output='logits'"):
        FrozenNetwork(nn.Linear(4, 3).double(), output="proba").predict(iris[0])


def test_preprocess_is_part_of_the_network(mlp, iris):
    X = iris[0]
    net = FrozenNetwork(mlp, preprocess=lambda x: (x - 1) / 2)
    np.testing.assert_allclose(net.predict_proba(X), FrozenNetwork(mlp).predict_proba((X - 1) / 2))


def test_a_preprocessing_module_is_frozen_too(mlp, iris):
    noise = nn.Sequential(nn.Dropout(0.9), nn.Linear(4, 4)).double().train()
    before = state(noise)
    net = FrozenNetwork(mlp, preprocess=noise)
    with torch.no_grad():
        expected = FrozenNetwork(mlp).predict_proba(noise[1](torch.tensor(iris[0])))
    np.testing.assert_allclose(net.predict_proba(iris[0]), expected)
    assert state(noise) == before


def test_wrong_number_of_classes_and_shapes(mlp, iris):
    with pytest.raises(ValueError, match=r"3 outputs, but there are 2 classes: \['a', 'b'\]"):
        FrozenNetwork(mlp, classes=["a", "b"]).predict(iris[0])
    with pytest.raises(ValueError, match=r"classes=\['a', 'b', 'a'\] contains duplicates"):
        FrozenNetwork(mlp, classes=["a", "b", "a"]).predict(iris[0])
    with pytest.raises(ValueError, match=r"outputs of shape \(150, 4, 1\)"):
        FrozenNetwork(nn.Unflatten(1, (4, 1))).predict(iris[0])
    with pytest.raises(ValueError, match="'output' parameter of FrozenNetwork"):
        FrozenNetwork(mlp, output="odds").predict(iris[0])


def test_classes_are_known_after_fit_and_belong_to_the_module(mlp, iris):
    net = FrozenNetwork(mlp)
    with pytest.raises(AttributeError, match="call fit, or set classes"):
        net.classes_
    assert list(net.fit(*iris).classes_) == [0, 1, 2]
    assert list(net.set_params(module=mlp, batch_size=2).classes_) == [0, 1, 2]
    net.set_params(module=nn.Linear(3, 5))
    with pytest.raises(AttributeError, match="no classes_ before fit"):
        net.classes_
    assert net.predict(np.ones((2, 3))).shape == (2,)  # nor is X compared with the former columns
    assert list(net.fit(np.ones((2, 3))).classes_) == [0, 1, 2, 3, 4]


METHODS = ["predict", "predict_proba", "decision_function"]


@pytest.mark.parametrize("method", METHODS)
def test_only_fit_writes_attributes(mlp, iris, method):
    X = pd.DataFrame(iris[0], columns=list("abcd"))
    net = FrozenNetwork(mlp)
    for attributes in (set(vars(net)), set(vars(net.fit(X)))):
        values = dict(vars(net))
        getattr(net, method)(X)
        assert set(vars(net)) == set(values)
        assert all(vars(net)[key] is value for key, value in values.items())


@pytest.mark.parametrize("method", METHODS)
def test_columns_are_checked_after_fit_and_not_without(mlp, iris, method):
    X = pd.DataFrame(iris[0], columns=list("abcd"))
    permuted, narrow = X[list("bacd")], iris[0][:, :3]
    net = FrozenNetwork(mlp)
    getattr(net, method)(permuted)
    with pytest.raises(ValueError, match=r"Sequential fails .* samples of shape \(3,\)"):
        getattr(net, method)(narrow)
    net.fit(X)
    with pytest.raises(ValueError, match="feature names should match"):
        getattr(net, method)(permuted)
    with pytest.raises(ValueError, match="X has 3 features, but FrozenNetwork is expecting 4"):
        getattr(net, method)(narrow)
    assert not hasattr(clone(net), "feature_names_in_")


def test_tags_say_what_holds(mlp, iris):
    net = FrozenNetwork(mlp)
    tags = get_tags(net)
    assert not tags.requires_fit and not tags.target_tags.required and tags.input_tags.sparse
    check_is_fitted(net)
    X = iris[0]
    assert np.array_equal(net.predict(sparse.csr_matrix(X)), net.predict(X))


def test_a_clone_is_a_new_shell_around_the_same_module(mlp, iris):
    net = FrozenNetwork(mlp, classes=[0, 1, 2])
    other = clone(net)
    assert other is not net and other.module is mlp
    other.set_params(output="proba")
    assert net.output == "logits"
    assert clone(LatentKNNClassifier(net)).estimator.module is mlp
    search = GridSearchCV(LatentKNNClassifier(net), {"n_neighbors": [1, 2]}, cv=2).fit(*iris)
    assert search.best_estimator_.estimator.module is mlp
    assert cross_val_predict(net, *iris, cv=2, method="predict_proba").shape == (150, 3)


def test_pickle(mlp, iris):
    net = FrozenNetwork(mlp, classes=["a", "b", "c"])
    other = pickle.loads(pickle.dumps(net))
    assert np.array_equal(other.predict_proba(iris[0]), net.predict_proba(iris[0]))


def test_module_stays_on_its_device_and_its_pickle_opens_on_the_cpu(mlp, iris, device):
    there = copy.deepcopy(mlp).to(device)
    net = FrozenNetwork(there)
    expected = net.predict_proba(iris[0])
    assert next(there.parameters()).device.type == device
    other = pickle.loads(pickle.dumps(net))
    assert next(other.module.parameters()).device.type == "cpu"
    np.testing.assert_allclose(other.set_params(device="cpu").predict_proba(iris[0]), expected)
    np.testing.assert_allclose(FrozenNetwork(mlp, device=device).predict_proba(iris[0]), expected)
    assert next(mlp.parameters()).device.type == "cpu"


def test_the_module_gets_everything_back(cnn, digits):
    X, y = digits
    cnn.train()
    cnn.features[1].eval()
    cnn.hidden.weight.requires_grad_(False)
    cnn.head.bias.grad = torch.ones_like(cnn.head.bias)
    before = state(cnn)
    net = FrozenNetwork(cnn)
    net.predict(X)
    host = LatentKNNClassifier(net, layer="features", pool="avg").fit(X[:50], y[:50])
    host.predict_proba(X[50:60])
    assert state(cnn) == before
    with pytest.raises(ValueError, match=r"SmallCNN fails .* samples of shape \(1, 5, 8\)"):
        net.predict(X[:, :, :5])  # a shape the network cannot take
    with pytest.raises(ValueError, match="SmallCNN fails when"):
        LatentKNNClassifier(net, layer="features").fit(X[:9, :, :5], y[:9])
    assert state(cnn) == before


def test_flags_come_back_when_the_pass_breaks_half_way(cnn, digits):
    cnn.train()
    before = state(cnn)
    fail = cnn.hidden.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        LatentKNNClassifier(FrozenNetwork(cnn)).fit(*digits)
    fail.remove()
    assert state(cnn) == before


def test_gradients_of_logits_are_exact_and_leave_no_trace(mlp, iris):
    from skboundary.networks._factory import as_network

    X, _y = iris
    _, network = as_network(FrozenNetwork(mlp, classes=[2, 0, 1]), X, None)
    mlp[0].weight.grad = torch.ones_like(mlp[0].weight)
    before = state(mlp)
    x = torch.tensor(X[:3], requires_grad=True)
    with network.differentiable_logits() as logits:
        assert not any(p.requires_grad for p in mlp.parameters())
        logits(x)[:, 0].sum().backward()
        step = torch.zeros(4, dtype=torch.float64)
        step[1] = 1e-6
        slope = (logits(x + step) - logits(x - step))[:, 0] / 2e-6
    torch.testing.assert_close(x.grad[:, 1], slope.detach(), rtol=1e-6, atol=1e-6)
    assert state(mlp) == before


def test_evaluation_mode_ignores_an_overridden_eval():
    class Stubborn(nn.Linear):
        def eval(self):
            raise RuntimeError("I am always training")

    net = Stubborn(2, 2)
    with evaluation_mode(tree_of(net)):
        assert not net.training
    assert net.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_module_computes_in_its_own_dtype(mlp, iris, dtype):
    p = FrozenNetwork(copy.deepcopy(mlp).to(dtype)).predict_proba(iris[0])
    assert p.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    exact = FrozenNetwork(mlp).predict_proba(iris[0])
    np.testing.assert_allclose(p, exact, atol={8: 1e-12, 4: 1e-5, 2: 0.1}[dtype.itemsize])


@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_classes_are_finite(missing):
    network = FrozenNetwork(nn.Linear(2, 3), classes=[0.0, missing, 1.0])
    with pytest.raises(ValueError, match="classes=.* contains NaN or infinity"):
        network.predict(np.zeros((1, 2), dtype=np.float32))
