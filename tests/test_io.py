"""`save` and `load`: results in another process, what is asked for, and what is refused."""

import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from torch import nn

import skboundary as skb
from skboundary._saved._folder import write_manifest
from skboundary.exceptions import DeviceWarning, SavedVersionWarning
from skboundary.io import load, save
from tests import io_cases
from tests.io_cases import CASES, Net, fitted, iris, results


@pytest.fixture(scope="session")
def estimators():
    return {name: fitted(name) for name in CASES}


@pytest.fixture(scope="session")
def saved(estimators, tmp_path_factory):
    """A folder with all of them, and what `save` returned."""
    folder = tmp_path_factory.mktemp("saved")
    return folder, io_cases.save_all(folder, estimators)


@pytest.fixture(scope="session")
def elsewhere(saved):
    """Results of the loaded estimators in another process."""
    folder, _ = saved
    subprocess.run([sys.executable, "-m", "tests.io_cases", folder], check=True, timeout=300)
    return np.load(folder / "results.npz")


@pytest.mark.parametrize("name", CASES)
def test_results_in_another_process_are_equal_to_the_last_bit(name, estimators, elsewhere):
    expected = results(name, estimators[name])
    assert expected
    for i, value in enumerate(expected):
        value = value.astype(str) if value.dtype == object else value
        np.testing.assert_array_equal(elsewhere[f"{name}/{i}"], value, strict=True)


def test_every_public_estimator_is_saved():
    public = [getattr(skb, name) for name in skb.__all__]
    names = {cls.__name__ for cls in public if hasattr(cls, "get_params")} - {"BiasSettings"}
    assert names == {name.partition("-")[0] for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_save_names_what_load_is_given(name, saved):
    given = CASES[name][4]()
    objects = {**given.get("objects", {}), **({"module": None} if "module" in given else {})}
    assert sorted(saved[1][name]) == sorted(objects)


@pytest.mark.parametrize("name", CASES)
def test_pickles_have_equal_results_and_no_storage_of_torch(name, estimators):
    estimator = estimators[name]
    data = pickle.dumps(estimator)
    expected = results(name, estimator)
    for value, other in zip(results(name, pickle.loads(data)), expected, strict=True):
        np.testing.assert_array_equal(value, other, strict=True)
    has_module = "module" in CASES[name][4]() or "skorch" in name
    assert has_module == (b"torch._utils" in data or b"torch.storage" in data)


@pytest.mark.parametrize(
    "name", [n for n in CASES if not CASES[n][4]() and not n.startswith("BoundaryChar")]
)
def test_estimators_without_a_module_of_the_user_go_through_skops(name, estimators):
    import skops.io

    data = skops.io.dumps(estimators[name])
    cls = type(estimators[name])
    ours = {f"{cls.__module__}.{cls.__name__}", "skboundary.networks._carrier.ArrayBytes"}
    assert set(skops.io.get_untrusted_types(data=data)) == ours
    other = skops.io.loads(data, trusted=[*ours])
    if isinstance(other, skb.BiasedExtrapolationSampler):
        np.testing.assert_array_equal(other.parents_, estimators[name].parents_)
        return
    for value, expected in zip(results(name, other), results(name, estimators[name]), strict=True):
        np.testing.assert_array_equal(value, expected, strict=True)


def test_latent_vectors_are_stored_once(tmp_path):
    X, y = iris()
    clf = skb.LatentKNNClassifier(random_state=0).fit(np.tile(X, (40, 1)), np.tile(y, 40))
    latent = clf._bank.stored.latent.nbytes
    data = pickle.dumps(clf)
    assert latent < len(data) < 1.5 * latent
    other = pickle.loads(data)
    assert other._bank.stored.latent.ctypes.data == other.neighbors_._index.samples.data_ptr()
    save(clf, tmp_path / "clf")
    size = sum(file.stat().st_size for file in (tmp_path / "clf").rglob("*") if file.is_file())
    assert latent < size < 1.5 * latent


# --------------------------------------------------------------------------- modules, objects


@pytest.fixture
def with_module(saved):
    return saved[0] / "SubspaceMargins"


def test_weights_go_into_a_copy_of_the_module(with_module):
    module = Net(7).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    model = load(with_module, module)
    assert model.estimator is not module and model.estimator_.module is model.estimator
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())
    for name, tensor in Net(0).state_dict().items():
        assert torch.equal(model.estimator.state_dict()[name], tensor)


def _other(**parts):
    module = Net()
    for name, part in parts.items():
        setattr(module, name, part)
    return module


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (None, "contains objects that are not saved. Give module=..."),
        (LogisticRegression(), "module is a LogisticRegression, not a torch.nn.Module"),
        (_other(head=nn.Linear(4, 2)), r"'head.bias' is torch.float32 \(3,\)"),
        (Net().double(), "'again.bias' is torch.float32 .*, and torch.float64"),
        (_other(more=nn.Linear(1, 1)), "'more.bias' is absent in the saved"),
        (_other(norm=None), "'norm.bias' is torch.float32 .*, and absent in module"),
    ],
)
def test_another_module_is_refused(with_module, module, message):
    with pytest.raises(ValueError, match=message):
        load(with_module, module)


class Tanh(Net):
    def forward(self, x):
        return self.head(self.again(torch.tanh(self.body(self.norm(x)))))


class Scaled(Net):
    factor = 1.1

    def forward(self, x):
        return self.factor * super().forward(x)


def test_logits_may_differ_by_5_percent_of_the_largest(with_module, monkeypatch):
    for factor in (0.9, 1.1):
        monkeypatch.setattr(Scaled, "factor", factor)
        with pytest.raises(ValueError, match="when it was saved"):
            load(with_module, Scaled())
    for factor in (0.96, 1.04):
        monkeypatch.setattr(Scaled, "factor", factor)
        load(with_module, Scaled())


def test_a_network_that_computes_something_else_is_refused(saved, with_module):
    with pytest.raises(ValueError, match=r"estimator.json: .* when it was saved. The module, or"):
        load(with_module, Tanh())
    given = CASES["LatentKNNClassifier-given"][4]()
    objects = given["objects"]
    objects["estimator__estimator__frozennetwork__preprocess"] = torch.square
    with pytest.raises(ValueError, match="when it was saved. The module, or another"):
        load(saved[0] / "LatentKNNClassifier-given", Net(), objects=objects)


def test_objects_are_given_back_by_name(saved):
    folder = saved[0] / "LatentKNNClassifier-given"
    given = CASES[folder.name][4]()
    clf = load(folder, **given)
    assert clf.query_transforms is given["objects"]["query_transforms"]
    assert clf.neighbors is given["objects"]["neighbors"] and clf.neighbors_ is not clf.neighbors
    without = {k: v for k, v in given["objects"].items() if k != "neighbors"}
    with pytest.raises(ValueError, match=r"Give module=..., objects={'neighbors': ...}"):
        load(folder, objects=without)
    with pytest.raises(ValueError, match="was given 'other'"):
        load(folder, given["module"], objects={**given["objects"], "other": 1})


def test_a_module_with_weights_may_come_before_the_network(tmp_path):
    X = iris()[0]
    scale = nn.BatchNorm1d(4).double().eval()
    scale.running_mean.fill_(2.0)
    net = skb.FrozenNetwork(Net(0).double(), preprocess=scale).fit(X)
    assert save(net, tmp_path / "net") == ["module", "preprocess"]
    objects = {"preprocess": nn.BatchNorm1d(4).double()}
    other = load(tmp_path / "net", Net().double(), objects=objects)
    np.testing.assert_array_equal(other.predict_proba(X), net.predict_proba(X))


def test_places_of_this_machine_are_not_saved(tmp_path):
    X = iris()[0]
    net = Net(0).double()
    model = skb.LatentTransformer(net, memory=str(tmp_path / "cache")).fit(X)
    assert save(model, tmp_path / "model") == ["module", "memory"]
    assert str(tmp_path / "cache") not in (tmp_path / "model" / "estimator.json").read_text()
    for memory in (None, str(tmp_path / "other")):
        other = load(tmp_path / "model", net, objects={"memory": memory})
        np.testing.assert_allclose(other.transform(X), model.transform(X), rtol=1e-12)
        assert (tmp_path / "other").exists() == (memory is not None)


def test_names_to_trust_are_named(saved):
    folder = saved[0] / "BoundarySampleExtractor-forest"
    with pytest.raises(
        ValueError, match=r"(?s)parts/\d+.skops: .*sklearn.tree._tree.Tree.*trusted="
    ):
        load(folder)
    with pytest.raises(TypeError, match=r"give a list, \['sklearn.tree._tree.Tree'\]"):
        load(folder, trusted=io_cases.FOREST)


def test_an_estimator_that_cannot_be_pickled_is_asked_for(tmp_path):
    class Bound(LogisticRegression):
        def __getstate__(self):
            raise RuntimeError("no pickling")

    model = skb.LatentKNNClassifier(FrozenEstimator(Bound().fit(*iris()))).fit(*iris())
    assert "estimator__estimator" in save(model, tmp_path / "a")


def test_what_is_not_an_estimator_of_the_package_is_refused(tmp_path):
    class Mine(skb.LatentTransformer):
        pass

    for estimator in (LogisticRegression(), Mine(), 3, skb.LatentTransformer):
        with pytest.raises(TypeError, match="cannot be saved; .* LatentKNNClassifier") as info:
            save(estimator, tmp_path / "a")
        assert ", _" not in str(info.value)  # names of private classes
    assert not any(tmp_path.iterdir())


def test_a_state_that_is_not_a_tensor_is_refused(tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass

    with pytest.raises(ValueError, match="_extra_state', which is not a tensor"):
        save(skb.FrozenNetwork(Extra(4, 3)), tmp_path / "a")
    assert not any(tmp_path.iterdir())


# --------------------------------------------------------------------------------- large data


def test_a_bank_is_saved_with_its_estimators(tmp_path):
    X, y = iris()
    net = Net(0).double()
    clf = skb.LatentKNNClassifier(net, bank=tmp_path / "bank").fit(X, y)
    clf_distances = clf.kneighbors(X)[0]
    search = skb.TorchNearestNeighbors(bank=str(tmp_path / "samples")).fit(X)
    for name, estimator in {"clf": clf, "search": search}.items():
        expected = estimator.kneighbors(X)
        given = [net] if name == "clf" else []
        assert save(estimator, tmp_path / name) == ["module"][: len(given)]
        for other in (load(tmp_path / name, *given), pickle.loads(pickle.dumps(estimator))):
            for value, before in zip(other.kneighbors(X), expected, strict=True):
                np.testing.assert_array_equal(value, before)
        loaded = load(tmp_path / name, *given)
        assert loaded.bank == str(tmp_path / name / "bank")
    assert len(pickle.dumps(search)) < X.nbytes
    shutil.rmtree(tmp_path / "bank")
    loaded = load(tmp_path / "clf", net)  # which does not need the original
    np.testing.assert_array_equal(loaded.explain(X).proba, loaded.predict_proba(X))
    other = skb.LatentKNNClassifier.from_bank(tmp_path / "clf" / "bank", net)
    np.testing.assert_array_equal(other.predict_proba(X), loaded.predict_proba(X))
    shutil.move(tmp_path / "clf", tmp_path / "moved")
    moved = load(tmp_path / "moved", net)
    np.testing.assert_array_equal(moved.kneighbors(X)[0], clf_distances)


def test_a_bank_that_has_grown_is_refused(tmp_path):
    X = iris()[0]
    search = skb.TorchNearestNeighbors(bank=tmp_path / "bank").fit(X)
    pickle.loads(pickle.dumps(search)).partial_fit(X)
    with pytest.raises(ValueError, match="holds 300 samples by now, and .* fitted to 150"):
        save(search, tmp_path / "search")


class OnDisk:
    """Samples that can be sliced, and nothing else."""

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, part):
        assert isinstance(part, slice)
        return self._array[part]


def test_training_samples_outside_of_memory_are_saved(tmp_path):
    X, y = iris()
    net = Net(0).double()
    extractor = skb.BoundarySampleExtractor(net, method="segment").fit(OnDisk(X), y)
    assert save(extractor, tmp_path / "a") == ["module"]
    other = load(tmp_path / "a", net)
    assert isinstance(other._classifier.training.X, np.memmap)
    np.testing.assert_array_equal(other.transform(X[::20]), extractor.transform(X[::20]))


# -------------------------------------------------------------------------------- the folder


def test_a_folder_appears_complete_or_not_at_all(tmp_path, estimators, monkeypatch):
    search = estimators["TorchNearestNeighbors"]
    (tmp_path / "empty").mkdir()
    save(search, tmp_path / "empty")
    for name in ("empty", "file"):
        (tmp_path / "file").touch()
        with pytest.raises(ValueError, match="exists and is not an empty folder"):
            save(search, tmp_path / name)
    monkeypatch.setattr(skb.io, "write_npy", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(search, tmp_path / "a" / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "empty", "file"]
    assert not any((tmp_path / "a").iterdir())
    with pytest.raises(ValueError, match="is not a folder"):
        load(tmp_path / "file")


def test_other_versions_cause_a_warning(tmp_path, estimators):
    folder = tmp_path / "a"
    save(estimators["TorchNearestNeighbors"], folder)
    document = json.loads((folder / "estimator.json").read_text())
    document["versions"]["numpy"] = "0.1"
    (folder / "estimator.json").write_text(json.dumps(document))
    write_manifest(folder)
    with pytest.warns(SavedVersionWarning, match=r"saved with numpy 0.1 \(now"):
        load(folder)


def test_a_device_that_is_missing_is_replaced_with_a_warning(tmp_path, estimators):
    name = "LatentKNNClassifier-default"
    clf = pickle.loads(pickle.dumps(estimators[name]))
    expected = results(name, clf)
    save(clf, tmp_path / "a")
    document = tmp_path / "a" / "estimator.json"
    text = document.read_text()
    here = str(clf.device_)
    assert text.count(f'"{here}"') == 4
    document.write_text(text.replace(f'"{here}"', '"cuda:63"'))
    write_manifest(tmp_path / "a")
    clf._network.device = clf.neighbors_.device_ = clf.device_ = torch.device("cuda", 63)
    data = pickle.dumps(clf)
    for read in (lambda: pickle.loads(data), lambda: load(tmp_path / "a")):
        with pytest.warns(DeviceWarning, match="fitted on 'cuda:63', .*; it runs on") as caught:
            other = read()
        assert str(other.device_) == str(other._network.device) == here
        assert all(warning.filename == __file__ for warning in caught)
        for value, before in zip(results(name, other), expected, strict=True):
            np.testing.assert_array_equal(value, before)


def test_an_estimator_on_a_device_is_loaded_there(tmp_path, device):
    X, y = (array.astype(kind) for array, kind in zip(iris(), ("float32", "int64")))
    clf = skb.LatentKNNClassifier(Net(0), device=device).fit(X, y)
    save(clf, tmp_path / "a")
    other = load(tmp_path / "a", Net())
    assert other.device_ == clf.device_ and other.device_.type == device
    np.testing.assert_array_equal(other.predict_proba(X), clf.predict_proba(X))


def test_arrays_keep_their_layout_and_kind(tmp_path):
    X = np.asfortranarray(iris()[0].astype(np.float32))
    search = skb.TorchNearestNeighbors().fit(X)
    search.extra_ = {
        "objects": np.array([(1, 2), "a", None], dtype=object),
        "scalars": [np.float32(0.1), np.int8(3), np.bool_(True), np.str_("x"), float("-inf")],
        "time": np.array(["2020-01-01"], dtype="M8[D]"),
        "empty": np.empty((0, 3)),
        ("a", 1): torch.arange(3),
        "masked": np.ma.MaskedArray([1, 2], [False, True]),
        "bytes": np.array([b"ab"]),
    }
    save(search, tmp_path / "a")
    for other in (load(tmp_path / "a"), pickle.loads(pickle.dumps(search))):
        for key, value in search.extra_.items():
            found = other.extra_[key]
            assert type(found) is type(value)
            assert [*np.asarray(found).ravel()] == [*np.asarray(value).ravel()]
        assert [type(v) for v in other.extra_["scalars"]] == [
            type(v) for v in search.extra_["scalars"]
        ]
        assert other._index.samples.stride() == search._index.samples.stride()


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r"safetensors is needed here: .*skboundary\[io\]"):
        save(skb.FrozenNetwork(Net()), tmp_path / "a")
