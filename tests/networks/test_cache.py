"""`memory`: every sample runs once, whatever happens to the files, and no answer is another's."""

import copy
import json
import os
import pickle
import runpy
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from torch import nn

from skboundary import FrozenNetwork, LatentKNNClassifier, LatentTransformer
from skboundary.exceptions import CacheWarning
from skboundary.neighbors import _bank
from skboundary.networks import Network, _sample_store, as_network
from skboundary.networks._cache import CachedNetwork
from skboundary.networks._sample_store import SampleStore, sample_keys
from skboundary.networks._torch_network import TorchNetwork
from tests.conftest import Recording


def files(folder):
    """All files of a cache, networks by networks."""
    return sorted(folder.glob("joblib/skboundary/*/*"))


def networks(folder):
    return {path.parent.name for path in files(folder)}


class Scaled(nn.Module):
    """Latent vectors are the input times a python attribute."""

    def __init__(self, slope):
        super().__init__()
        self.slope, self.head = slope, nn.Linear(4, 3)
        with torch.no_grad():
            self.head.weight.fill_(1.0), self.head.bias.fill_(0.0)

    def forward(self, x):
        return self.head(x * self.slope)


# --------------------------------------------------------------------------- the right network


@pytest.mark.parametrize("as_memory", [False, True])
def test_every_distinct_sample_is_forwarded_once(mlp, iris, tmp_path, as_memory):
    X = iris[0]  # sample 101 equals sample 142
    net = Recording(mlp, tmp_path / "rows")
    memory = joblib.Memory(tmp_path, verbose=0) if as_memory else str(tmp_path)
    model = LatentTransformer(FrozenNetwork(net), memory=memory)
    pipe = make_pipeline(model, LogisticRegression(max_iter=500))
    GridSearchCV(pipe, {"logisticregression__C": [0.1, 1]}, cv=3).fit(*iris)
    assert len(net.rows[2:]) == len(set(net.rows)) == len(np.unique(X, axis=0)) == 149
    np.testing.assert_allclose(
        model.fit_transform(X), LatentTransformer(FrozenNetwork(mlp)).fit_transform(X)
    )
    assert len(net.rows) == 151  # two found the layer


def test_worker_processes_find_what_is_known(mlp, iris, tmp_path):
    net = Recording(mlp, tmp_path / "rows")
    clf = LatentKNNClassifier(FrozenNetwork(net), memory=str(tmp_path)).fit(*iris)
    known = len(net.rows)
    search = GridSearchCV(clf, {"n_neighbors": [1, 3]}, cv=4, n_jobs=2).fit(*iris)
    assert len(net.rows) == known
    plain = GridSearchCV(clf.set_params(memory=None), {"n_neighbors": [1, 3]}, cv=4).fit(*iris)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"]
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda net: LatentTransformer(net, layer="0"),
        lambda net: LatentTransformer(FrozenNetwork(net, preprocess=lambda x: x + 1)),
        lambda net: LatentTransformer(FrozenNetwork(net, preprocess=nn.Softmax(1))),
        lambda net: LatentTransformer(FrozenNetwork(net, preprocess=torch.relu)),
        lambda net: LatentTransformer(net, layer=lambda m, x: m[0](x)),
        lambda net: LatentTransformer(net, layer=lambda m, x: m[0](x) * 2),
    ],
)
def test_networks_and_layers_are_told_apart(mlp, iris, tmp_path, change):
    for first in (LatentTransformer(mlp), LatentTransformer(mlp, layer=lambda m, x: m[0](x) * 3)):
        first.set_params(memory=str(tmp_path)).fit_transform(iris[0])
    model = change(mlp)
    expected = model.fit_transform(iris[0])
    np.testing.assert_allclose(
        model.set_params(memory=str(tmp_path)).fit_transform(iris[0]), expected
    )


def test_attributes_weights_and_globals_are_told_apart(iris, tmp_path):
    space = {"MEAN": 0.0}
    exec("def center(x): return x - MEAN", space)
    nets = [Scaled(1.0), Scaled(5.0), Scaled(1.0)]
    with torch.no_grad():
        nets[2].head.weight.mul_(2)
    for mean in (0.0, 5.0):
        space["MEAN"] = mean
        for net in nets:
            network = FrozenNetwork(net, preprocess=space["center"])
            clf = LatentKNNClassifier(network, memory=str(tmp_path), query_weight=1.0)
            logits = torch.tensor(network.decision_function(iris[0]))
            np.testing.assert_allclose(
                clf.fit(iris[0]).predict_proba(iris[0]), logits.softmax(1), rtol=1e-6
            )
    assert len(networks(tmp_path)) == 6


def test_what_changes_after_fit_counts(iris, tmp_path):
    space, net = {"MEAN": 0.0}, Scaled(1.0)
    exec("def center(x): return x - MEAN", space)
    model = LatentTransformer(
        FrozenNetwork(net, preprocess=space["center"]), layer="head", memory=str(tmp_path)
    ).fit(iris[0])
    total = iris[0].sum(1, keepdims=True) * np.ones(3)
    np.testing.assert_allclose(model.transform(iris[0]), total, rtol=1e-5)
    space["MEAN"] = 1.0
    np.testing.assert_allclose(model.transform(iris[0]), total - 4, rtol=1e-5)
    net.slope = 2.0
    np.testing.assert_allclose(model.transform(iris[0]), 2 * (total - 4), rtol=1e-5)
    net.head.weight.data.mul_(3)
    np.testing.assert_allclose(model.transform(iris[0]), 6 * (total - 4), rtol=1e-5)
    space["MEAN"], net.slope = 0.0, 1.0
    net.head.weight.data.div_(3)
    np.testing.assert_allclose(model.transform(iris[0]), total, rtol=1e-5)
    assert len(networks(tmp_path)) == 4
    with torch.autocast("cpu"):
        coarse = LatentTransformer(net, layer="head").fit_transform(iris[0])
        np.testing.assert_array_equal(model.transform(iris[0]), coarse)


def test_modes_gradients_and_copies_keep_the_key(mlp, iris, tmp_path):
    for net in (mlp, mlp.train(), pickle.loads(pickle.dumps(mlp)), mlp.requires_grad_(False)):
        LatentTransformer(net, memory=str(tmp_path)).fit_transform(iris[0])
    assert len(networks(tmp_path)) == 1


def test_black_boxes_and_their_steps(iris, tmp_path):
    def predict(scale, box=None):
        box = box or make_pipeline(
            FunctionTransformer(lambda x: x * scale),
            HistGradientBoostingClassifier(max_iter=3, random_state=0),
        ).fit(*iris)
        clf = LatentKNNClassifier(FrozenEstimator(box), memory=str(tmp_path), query_weight=1.0)
        np.testing.assert_allclose(
            clf.fit(iris[0]).predict_proba(iris[0]), box.predict_proba(iris[0]), atol=1e-6
        )
        return box

    predict(1.0)
    assert len(networks(tmp_path)) == 1
    predict(1.0)
    assert len(networks(tmp_path)) == 1
    predict(-2.0)
    assert len(networks(tmp_path)) == 2
    box = HistGradientBoostingClassifier(max_iter=3).fit(*iris)
    predict(0, box), predict(0, pickle.loads(pickle.dumps(box)))
    assert len(networks(tmp_path)) == 3


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_frames_count_with_names_and_dtypes(iris, tmp_path, make):
    names = ["a", "b", "c", "d"]
    X = dict(zip(names, iris[0].T))
    box = make_pipeline(
        make_column_transformer(("passthrough", ["a", "b"])), LogisticRegression(max_iter=500)
    ).fit(make(X), iris[1])
    for columns in (names, names[::-1]):
        data = make(dict(zip(columns, iris[0].T)))
        clf = LatentKNNClassifier(FrozenEstimator(box), memory=str(tmp_path), query_weight=1.0)
        np.testing.assert_allclose(
            clf.fit(data).predict_proba(data), box.predict_proba(data), atol=1e-6
        )


def test_frames_with_text(iris, tmp_path):
    X = pd.DataFrame({"a": np.arange(8.0), "b": list("xyxyxyxy"), "c": [True, False] * 4})
    box = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["b"]), remainder="passthrough"),
        HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=1),
    ).fit(X, [0, 1] * 4)
    for data in (X, X.assign(b=list("yxyxyxyx")), X):
        clf = LatentKNNClassifier(FrozenEstimator(box), memory=str(tmp_path), query_weight=1.0)
        np.testing.assert_allclose(
            clf.set_params(n_neighbors=1).fit(data).predict_proba(data),
            box.predict_proba(data),
            atol=1e-6,
        )


def test_the_order_of_classes_does_not_matter(mlp, iris, tmp_path):
    for classes in (["a", "b", "c"], ["c", "a", "b"]):
        net = FrozenNetwork(mlp, classes=classes)
        clf = LatentKNNClassifier(net, memory=str(tmp_path), query_weight=1.0).fit(iris[0])
        np.testing.assert_allclose(clf.predict_proba(iris[0]), net.predict_proba(iris[0]))
    assert len(networks(tmp_path)) == 1


def test_a_prediction_makes_one_digest_and_the_next_another(mlp, iris, tmp_path, monkeypatch):
    digests, digest = [], TorchNetwork.digest
    monkeypatch.setattr(_bank, "BLOCK", 20)
    monkeypatch.setattr(
        TorchNetwork, "digest", lambda *args: digests.append(digest(*args)) or digests[-1]
    )
    X = iris[0]
    clf = LatentKNNClassifier(
        FrozenNetwork(mlp), memory=str(tmp_path), query_transforms=[lambda x: -x]
    )
    p = clf.fit(X).predict_proba(X)
    digests.clear()
    np.testing.assert_array_equal(clf.predict_proba(X), p)
    assert len(digests) == 1
    with torch.no_grad():
        mlp[0].weight.mul_(2)
    assert (clf.predict_proba(X) != p).any()
    assert len(digests) == len(set(digests)) == 2


def test_a_cached_network_is_the_network_but_for_its_outputs(mlp, iris, tmp_path):
    X, y = iris
    _, network = as_network(FrozenNetwork(mlp), X, y, memory=tmp_path, verbose=1)
    _, plain = as_network(FrozenNetwork(mlp), X, y)
    for other in (network, pickle.loads(pickle.dumps(network)), copy.copy(network)):
        assert isinstance(other, CachedNetwork)
        members = [name for name in Network.__annotations__ if name != "verbose"]
        members += [name for name, value in vars(Network).items() if isinstance(value, property)]
        for name in members:
            assert np.all(getattr(other, name) == getattr(plain, name)), name
        other.batch_size, other.verbose = 7, 0
        assert (other.network.batch_size, other.network.verbose) == (7, 0)
        torch.testing.assert_close(other.logits(X), plain.logits(X))
        assert torch.equal(other.labels(X), plain.labels(X))
        other.batch_size, other.verbose = "auto", 1
        with pytest.raises(AttributeError, match="no_such_member"):
            other.no_such_member


def test_what_is_trained_here_is_not_kept(iris, tmp_path):
    LatentTransformer(random_state=0, memory=str(tmp_path), memory_key="any").fit(*iris)
    assert not list(tmp_path.iterdir())


class Locked(Scaled):
    def __init__(self, slope):
        super().__init__(slope)
        self.lock = threading.Lock()


def test_a_key_of_the_users_own(iris, tmp_path):
    def latent(net, key=None, memory=str(tmp_path)):
        return LatentTransformer(net, memory=memory, memory_key=key).fit_transform(iris[0])

    with pytest.raises(ValueError, match="module.lock.*lock.*memory_key"):
        latent(Locked(1.0))
    np.testing.assert_allclose(latent(Locked(1.0), "v1"), iris[0], rtol=1e-6)
    np.testing.assert_allclose(latent(Locked(2.0), "v1"), iris[0], rtol=1e-6)  # as promised
    np.testing.assert_allclose(latent(Locked(2.0), "v2"), 2 * iris[0], rtol=1e-6)
    assert len(networks(tmp_path)) == 2
    heavier = Locked(3.0)
    with torch.no_grad():
        heavier.head.weight.mul_(2)
    np.testing.assert_allclose(latent(heavier, "v1"), 3 * iris[0], rtol=1e-6)
    with pytest.raises(ValueError, match="'memory_key' parameter of LatentTransformer"):
        latent(Scaled(1.0), 3)


def test_a_key_of_the_users_own_for_a_black_box(iris, tmp_path):
    box = HistGradientBoostingClassifier(max_iter=2).fit(*iris)
    box.later = (i for i in "ab")
    clf = LatentKNNClassifier(FrozenEstimator(box), memory=str(tmp_path))
    with pytest.raises(ValueError, match="head.later.*generator.*memory_key"):
        clf.fit(iris[0])
    clf.set_params(memory_key="box").fit(iris[0])
    assert len(networks(tmp_path)) == 1


SCRIPT = """
import sys
import numpy as np
import torch
from torch import nn
from skboundary import LatentTransformer

class Net(nn.Module):
    def __init__(self, path):
        super().__init__()
        self.head, self.path = nn.Linear(4, 3), path
        with torch.no_grad():
            self.head.weight.fill_(1.0), self.head.bias.fill_(0.0)

    def forward(self, x):
        with open(self.path, "a") as file:
            file.write(f"{len(x)} ")
        return self.head(self.scale(x))

    def scale(self, x):
        return x * FACTOR

if __name__ == "__main__":
    FACTOR = float(sys.argv[2])
    X = np.arange(40.0, dtype="f4").reshape(10, 4)
    model = LatentTransformer(Net("rows"), memory=sys.argv[1])
    assert np.array_equal(model.fit_transform(X), X * FACTOR)
    if len(sys.argv) > 3:
        from joblib import Parallel, delayed
        made = Parallel(n_jobs=2)(delayed(model.fit_transform)(X[i:]) for i in range(3))
        assert all(np.array_equal(made[i], X[i:] * FACTOR) for i in range(3))
"""


def run_script(folder, *args):
    (folder / "script.py").write_text(SCRIPT)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    env = {**os.environ, "PYTHONPATH": root}
    subprocess.run(
        [sys.executable, "script.py", "cache", *args], cwd=folder, env=env, check=True, timeout=120
    )
    return sum(map(int, (folder / "rows").read_text().split()))


def test_a_class_of_main_hits_in_a_second_process(tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["script.py", "cache", "2"])
    runpy.run_path("script.py", run_name="__main__")  # the first process is this one
    first = sum(map(int, (tmp_path / "rows").read_text().split()))
    assert run_script(tmp_path, "2") == first < 15


@pytest.mark.slow
def test_a_class_of_main_hits_in_workers(tmp_path):
    assert run_script(tmp_path, "2", "workers") == run_script(tmp_path, "2") < 15


def test_an_edited_module_file_misses(iris, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for factor in (2, 3):
        (tmp_path / "sb_edited.py").write_text(
            textwrap.dedent(f"""
            from torch import nn
            class Net(nn.Sequential):
                def forward(self, x):
                    return super().forward(x * {factor})
        """)
        )
        monkeypatch.delitem(sys.modules, "sb_edited", raising=False)
        net = __import__("sb_edited").Net(nn.Linear(4, 2))
        with torch.no_grad():
            net[0].weight.fill_(1.0), net[0].bias.fill_(0.0)
        latent = LatentTransformer(net, memory=str(tmp_path)).fit_transform(iris[0])
        np.testing.assert_allclose(latent, factor * iris[0], rtol=1e-6)


# ------------------------------------------------------------------------------------- samples


def test_sample_keys_tell_dtype_shape_and_container_apart():
    X = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert len(set(sample_keys(X))) == 3
    assert sample_keys(X[::-1]) == sample_keys(X)[::-1] == sample_keys(np.asfortranarray(X))[::-1]
    assert not set(sample_keys(X)) & set(sample_keys(X.astype(np.float64)))
    assert not set(sample_keys(X)) & set(sample_keys(X[:, :, None]))
    assert sample_keys(np.zeros((1, 2), "f4")) != sample_keys(np.zeros((1, 2), "i4"))  # same bytes
    assert sample_keys(sparse.csr_matrix(X)) == sample_keys(sparse.csc_matrix(X)) == sample_keys(X)
    assert sample_keys(sparse.csr_matrix(X)) != sample_keys(sparse.csr_matrix(X + 1))


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_sample_keys_of_frames(make):
    def keys(**columns):
        return sample_keys(make(columns))

    data = {"a": [1, 2, 1], "b": ["x", "x", "x"]}
    assert keys(**data)[0] == keys(**data)[2] != keys(**data)[1]
    others = [
        {"b": data["b"], "a": data["a"]},
        {"a": data["a"], "c": data["b"]},
        {"a": np.array(data["a"], dtype=np.int32), "b": data["b"]},
        {"a": data["a"], "b": ["1", "1", "y"]},
        {"a": [1.0, 2.0, 1.0], "b": data["b"]},
    ]
    for other in others:
        assert not set(keys(**data)) & set(keys(**other))
    large = 2**53
    assert keys(a=[large], b=[0.5]) != keys(a=[large + 1], b=[0.5])  # floats cannot tell them


def test_sample_keys_of_frames_with_missing_values():
    frame = pd.DataFrame({"a": pd.array([1, None, 1], dtype="Int64"), "b": list("xyx")})
    keys = sample_keys(frame.assign(b=frame.b.astype("category"), d=pd.Timestamp("2020-01-01")))
    assert keys[0] == keys[2] != keys[1]


# --------------------------------------------------------------------------------------- files


def compute_from(X, asked=None):
    def compute(rows):
        if asked is not None:
            asked.append(list(rows))
        return [[X[rows] * 2, X[rows, :1]]]

    return compute


NAMES = ["latent", "logits"]


def test_the_store_keeps_order_and_holds_no_pickles(tmp_path):
    store = SampleStore(tmp_path / "net")
    X = np.random.default_rng(0).normal(size=(20, 3))
    asked = []
    first = store.through(X[:8], NAMES, compute_from(X[:8], asked))
    mixed = np.array([5, 19, 0, 5, 12])
    doubled, column = store.through(X[mixed], NAMES, compute_from(X[mixed], asked))
    np.testing.assert_array_equal(first[0], X[:8] * 2)
    np.testing.assert_array_equal(doubled, X[mixed] * 2)
    np.testing.assert_array_equal(column, X[mixed, :1])
    assert asked == [list(range(8)), [1, 4]]
    for path in (tmp_path / "net").iterdir():
        head = path.read_bytes()[40:].partition(b"\n")[0]
        assert json.loads(head)[1] == "<f8"


def test_latent_vectors_are_stored_once(mlp, iris, tmp_path):
    net = Recording(mlp, tmp_path / "rows")
    LatentKNNClassifier(FrozenNetwork(net), memory=str(tmp_path)).fit(*iris)
    LatentTransformer(FrozenNetwork(net), memory=str(tmp_path)).fit_transform(iris[0])
    assert len(set(net.rows)) == len(net.rows[2:]) == 149
    assert [path.name.partition("-")[0] for path in files(tmp_path)] == NAMES


def test_small_calls_leave_few_files_and_read_none_twice(tmp_path):
    X = np.random.default_rng(0).normal(size=(300, 3))
    for i in range(300):
        SampleStore(tmp_path).through(X[i : i + 1], NAMES, compute_from(X[i : i + 1]))
    assert len(list(tmp_path.iterdir())) < 2 * 10  # 300 has nine digits in binary
    for _ in range(2):
        missed = _sample_store._read_table.cache_info().misses
        out = SampleStore(tmp_path).through(X, NAMES, None)
    np.testing.assert_array_equal(out[0], X * 2)
    assert _sample_store._read_table.cache_info().misses == missed


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def truncate(path, size):
    path.write_bytes(path.read_bytes()[:size])


def zero(path, start):
    data = path.read_bytes()
    path.write_bytes(data[:start] + bytes(len(data) - start))


def other_dtype(path):
    path.write_bytes(path.read_bytes().replace(b"<f8", b"<i8", 1))


DAMAGE = {
    "a bit of a value": lambda path: flip(path, -5),
    "a bit of a key": lambda path: flip(path, 70),
    "a bit of the head": lambda path: flip(path, 45),
    "a bit of the first checksum": lambda path: flip(path, 3),
    "a bit of the length": lambda path: flip(path, 38),
    "a value of its end": lambda path: truncate(path, -8),
    "all but the beginning": lambda path: truncate(path, 20),
    "everything": lambda path: truncate(path, 0),
    "zeros": lambda path: zero(path, 0),
    "zeros behind the head": lambda path: zero(path, -100),
    "another dtype": other_dtype,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found_and_computed_anew(tmp_path, what, name):
    X = np.random.default_rng(0).normal(size=(20, 3))
    SampleStore(tmp_path).through(X, NAMES, compute_from(X))
    (path,) = tmp_path.glob(f"{name}-*")
    DAMAGE[what](path)
    store, asked = SampleStore(tmp_path), []
    with pytest.warns(CacheWarning, match="stored results in .* cannot be used") as caught:
        out = [store.through(X, NAMES, compute_from(X, asked)) for _ in range(2)]
    assert len(caught) == 1
    for latent, logits in out:
        np.testing.assert_array_equal(latent, X * 2)
        np.testing.assert_array_equal(logits, X[:, :1])
    assert asked == [list(range(20))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SampleStore(tmp_path).through(X, NAMES, None)


def test_a_lost_file_is_computed_anew(mlp, iris, tmp_path):
    X = iris[0]
    net = FrozenNetwork(mlp)
    clf = LatentKNNClassifier(net, memory=str(tmp_path), query_weight=1.0)
    clf.fit(X[:100]).predict_proba(X[100:120])
    for path in files(tmp_path):
        if path.name.startswith("logits"):
            path.unlink()
    np.testing.assert_allclose(clf.fit(X[:50]).predict_proba(X), net.predict_proba(X))


def test_entries_of_another_form_are_out_of_date(tmp_path):
    X = np.random.default_rng(0).normal(size=(6, 3))
    SampleStore(tmp_path).through(X[:3], NAMES, compute_from(X[:3]))
    asked = []
    out = SampleStore(tmp_path).through(
        X, NAMES, lambda rows: [[a.astype("f4") for a in compute_from(X, asked)(rows)[0]]]
    )
    assert out[0].dtype == np.float32
    np.testing.assert_array_equal(out[0], (X * 2).astype("f4"))


def test_a_full_disk_computes_on_and_warns_once(mlp, iris, tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    clf = LatentKNNClassifier(FrozenNetwork(mlp), memory=str(tmp_path), query_weight=1.0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            p = clf.fit(iris[0][:100]).predict_proba(iris[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    np.testing.assert_allclose(p, FrozenNetwork(mlp).predict_proba(iris[0]))
    (one,) = [w for w in caught if issubclass(w.category, CacheWarning)]
    assert str(tmp_path) in str(one.message) and "set memory to another folder" in str(one.message)
    assert not [path for path in files(tmp_path) if path.name.endswith(".unfinished")]


def test_a_folder_that_cannot_be_made_computes_on(mlp, iris, tmp_path):
    (tmp_path / "joblib").touch()
    with pytest.warns(CacheWarning, match="cannot be stored"):
        latent = LatentTransformer(mlp, memory=str(tmp_path)).fit_transform(iris[0])
    np.testing.assert_allclose(latent, LatentTransformer(mlp).fit_transform(iris[0]))


def test_joblib_clears_the_store(mlp, iris, tmp_path):
    memory = joblib.Memory(tmp_path / "cache", verbose=0)
    net = Recording(mlp, tmp_path / "rows")
    model = LatentTransformer(FrozenNetwork(net), memory=memory)
    expected = model.fit_transform(iris[0])
    memory.reduce_size(bytes_limit="1G")
    assert files(tmp_path / "cache")
    memory.clear(warn=False)
    assert not files(tmp_path / "cache")
    np.testing.assert_allclose(model.transform(iris[0]), expected)
    assert len(net.rows[2:]) == 2 * 149


def test_a_cache_that_is_cleared_meanwhile(tmp_path):
    X = np.random.default_rng(0).normal(size=(20, 3))
    memory = joblib.Memory(tmp_path, verbose=0)
    folder = tmp_path / "joblib" / "skboundary" / "net"
    SampleStore(folder).through(X[:10], NAMES, compute_from(X[:10]))

    def compute(rows):
        memory.clear(warn=False)
        return compute_from(X)(rows)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = SampleStore(folder).through(X, NAMES, compute)
    np.testing.assert_array_equal(out[0], X * 2)


def test_a_file_that_goes_between_listing_and_reading(tmp_path, monkeypatch):
    X = np.random.default_rng(0).normal(size=(20, 3))
    SampleStore(tmp_path).through(X, NAMES, compute_from(X))
    listed = SampleStore._files

    def gone(self, name):
        found = listed(self, name)
        for path in found:
            path.unlink()
        return found

    monkeypatch.setattr(SampleStore, "_files", gone)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = SampleStore(tmp_path).through(X, NAMES, compute_from(X))
    np.testing.assert_array_equal(out[0], X * 2)


def test_what_a_killed_writer_left_is_removed(tmp_path):
    X = np.ones((1, 3))
    old, young = tmp_path / "latent-1.unfinished", tmp_path / "latent-2.unfinished"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    SampleStore(tmp_path).through(X, NAMES, compute_from(X))
    assert young.exists() and not old.exists()


@pytest.mark.skipif(os.name == "nt", reason="files have no modes there")
def test_other_users_may_read_what_the_umask_allows(tmp_path):
    X = np.ones((1, 3))
    mask = os.umask(0o002)
    try:
        SampleStore(tmp_path / "net").through(X, NAMES, compute_from(X))
    finally:
        os.umask(mask)
    assert (tmp_path / "net").stat().st_mode & 0o777 == 0o775
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "net").iterdir()} == {0o664}


def test_writers_side_by_side(tmp_path):
    X = np.random.default_rng(0).normal(size=(200, 3))

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(10):
            rows = rng.integers(0, 200, size=rng.integers(1, 30))
            out = SampleStore(tmp_path).through(X[rows], NAMES, compute_from(X[rows]))
            np.testing.assert_array_equal(out[0], X[rows] * 2)
            np.testing.assert_array_equal(out[1], X[rows, :1])

    with warnings.catch_warnings(), ThreadPoolExecutor(4) as pool:
        warnings.simplefilter("error")
        list(pool.map(work, range(4)))


# --------------------------------------------------------------------------------- interruptions


class Interrupting(nn.Module):
    """Count the samples that pass, and raise at a call if a file says so."""

    def __init__(self, body, path):
        super().__init__()
        self.body, self.path = body, str(path)

    def forward(self, x):
        state = json.loads(Path(self.path).read_text())
        state["calls"] += 1
        if state["calls"] == state["stop"]:
            raise KeyboardInterrupt
        state["samples"] += len(x)
        Path(self.path).write_text(json.dumps(state))
        return self.body(x)


@pytest.mark.parametrize("together", [4096, 60])
def test_an_interrupted_call_keeps_what_is_finished(mlp, iris, tmp_path, monkeypatch, together):
    monkeypatch.setattr(_sample_store, "_TOGETHER", together)
    path, X = tmp_path / "state", np.unique(iris[0], axis=0)
    net = Interrupting(mlp, path)
    model = LatentKNNClassifier(net, memory=str(tmp_path / "cache"), batch_size=20)
    path.write_text(json.dumps({"calls": 0, "samples": 0, "stop": -1}))
    model.fit(X[:64])  # all are the probes of fit
    path.write_text(json.dumps({"calls": 0, "samples": 0, "stop": 3}))
    with pytest.raises(KeyboardInterrupt):
        model.predict(X)
    assert json.loads(path.read_text())["samples"] == 40
    path.write_text(json.dumps({"calls": 0, "samples": 0, "stop": -1}))
    np.testing.assert_array_equal(model.predict(X), LatentKNNClassifier(mlp).fit(X[:64]).predict(X))
    assert json.loads(path.read_text())["samples"] == len(X) - 64 - 40


def test_results_of_several_blocks_are_stored_and_found(tmp_path, monkeypatch):
    monkeypatch.setattr(_sample_store, "_TOGETHER", 7)
    X = np.random.default_rng(0).normal(size=(100, 3))
    X[50] = X[3]

    def compute(rows):
        return (compute_from(X)(rows[i : i + 5])[0] for i in range(0, len(rows), 5))

    for rows in (np.arange(40), np.arange(20, 100), np.arange(100)[::-1]):
        out = SampleStore(tmp_path).through(X[rows], NAMES, lambda new: compute(rows[new]))
        np.testing.assert_array_equal(out[0], X[rows] * 2)
        np.testing.assert_array_equal(out[1], X[rows, :1])
    out = SampleStore(tmp_path).through(X, NAMES, None)
    np.testing.assert_array_equal(out[0], X * 2)
    assert len(list(tmp_path.iterdir())) < 2 * 7


def test_results_that_change_their_form_are_refused(tmp_path):
    X = np.random.default_rng(0).normal(size=(10, 3))

    def compute(rows):
        yield [X[rows[:5]] * 2]
        yield [X[rows[5:], :2] * 2]

    with pytest.raises(ValueError, match="differ in dtype and shape"):
        SampleStore(tmp_path).through(X, ["latent"], compute)
    out = SampleStore(tmp_path).through(X[:5], ["latent"], None)  # the first part was stored
    np.testing.assert_array_equal(out[0], X[:5] * 2)
