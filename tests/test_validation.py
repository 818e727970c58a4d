import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import BaseEstimator

from skboundary._validation import check_input, check_targets


class Host(BaseEstimator):
    pass


def test_input_shape_is_stored_and_checked():
    host = Host()
    X = np.zeros((5, 1, 4, 4), np.uint8)
    assert check_input(host, X, reset=True).dtype == np.uint8
    assert host.input_shape_ == (1, 4, 4) and host.n_features_in_ == 1
    with pytest.raises(ValueError, match=r"samples of shape \(1, 4, 5\), but Host.*\(1, 4, 4\)"):
        check_input(host, np.zeros((5, 1, 4, 5)), reset=False)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["array", "images", "sparse", "frame", "tensor", "long"])
def test_first_sample_that_is_not_finite_is_named(bad, kind, monkeypatch):
    X = np.ones((9, 4, 2) if kind == "images" else (9, 4))
    X[6, 2] = bad
    if kind == "long":  # several blocks
        monkeypatch.setattr("skboundary._sample_array.BATCH_BYTES", 64)
    X = {"sparse": sparse.csr_matrix, "frame": pd.DataFrame, "tensor": torch.tensor}.get(
        kind, np.asarray
    )(X)
    what = "NaN" if np.isnan(bad) else "infinity"
    with pytest.raises(ValueError, match=f"Input X contains {what} in sample 6"):
        check_input(Host(), X, reset=True)


def test_dataframes_are_kept_for_estimators_that_select_columns():
    host = Host()
    X = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    assert check_input(host, X, reset=True, keep_frame=True) is X
    assert list(host.feature_names_in_) == ["a", "b"] and host.input_shape_ == (2,)
    with pytest.raises(ValueError, match="feature names"):
        check_input(host, X[["b", "a"]], reset=False, keep_frame=True)
    with pytest.raises(ValueError, match="could not convert"):
        check_input(host, X, reset=True)


MEMORY = """
import numpy as np, os, sys, threading, time, torch
from skboundary import LatentKNNClassifier
torch.set_num_threads(1)
n_samples, path = 3_000, sys.argv[1]
X = np.memmap(path, dtype=np.uint8, mode="w+", shape=(n_samples, 1, 1024, 1024))  # a sparse file
X[::7, 0, :3] = 1
X.flush()
X = np.memmap(path, dtype=np.uint8, mode="r", shape=X.shape)

def anonymous():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) / 1024 for line in f if line.startswith("RssAnon"))

net = torch.nn.Sequential(
    torch.nn.AvgPool2d(256), torch.nn.Flatten(), torch.nn.Linear(16, 4), torch.nn.Linear(4, 2))
LatentKNNClassifier(net).fit(X[:40], np.arange(40) % 2).predict(X[:40])
start, peak, stop = anonymous(), [0.0], threading.Event()

def watch():
    while not stop.is_set():
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.002)

thread = threading.Thread(target=watch)
thread.start()
model = LatentKNNClassifier(net).fit(X, np.arange(n_samples) % 2)
model.predict(X[:1000])
stop.set(); thread.join()
print(peak[0] - start)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_mapped_integers_cost_a_few_batches(tmp_path):
    """3 GB of bytes: a float32 copy would be 12 GB, a batch of floats is 32 MB."""
    code = [sys.executable, "-c", textwrap.dedent(MEMORY), str(tmp_path / "x.dat")]
    out = subprocess.run(code, capture_output=True, text=True, check=True).stdout
    assert float(out) < 300, out


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.arange(6).reshape(3, 2).astype("M8[s]"), r"X holds datetime64\[s\], dates or durat"),
        (np.arange(6).reshape(3, 2).astype("m8[s]"), r"X holds timedelta64\[s\]"),
        (np.zeros((3, 0, 2)), r"X has samples of shape \(0, 2\), which hold no value"),
        (pd.DataFrame(np.zeros((3, 3)), columns=list("aba")), r"duplicate column names: \['a'\]"),
    ],
)
def test_input_without_numbers_is_refused(X, message):
    for keep_frame in (False, True):
        with pytest.raises(ValueError, match=message):
            check_input(Host(), X, reset=True, keep_frame=keep_frame)


def test_labels_of_several_types_are_refused():
    X = np.zeros((3, 2))
    strings = np.array(["a", np.str_("b"), "a"], dtype=object)
    assert check_targets(Host(), X, strings) is not None
    for y in (["a", 1, "b"], ["a", None, "b"], ["a", np.nan, "b"]):
        with pytest.raises(ValueError, match="y holds labels of several types: .*, str"):
            check_targets(Host(), X, np.array(y, dtype=object))


def test_targets_are_validated():
    X = np.zeros((3, 2))
    host = Host()
    assert check_targets(host, X, None) is None
    assert check_targets(host, X, torch.tensor([1, 0, 1])).tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="inconsistent"):
        check_targets(host, X, [0, 1])
    with pytest.raises(ValueError, match="NaN in sample 1"):
        check_targets(host, X, [0, np.nan, 1])
    with pytest.raises(ValueError, match="Unknown label type"):
        check_targets(host, X, [0.5, 1.5, 2.25])
