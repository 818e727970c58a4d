import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from torch import nn

from skboundary import _runtime as rt


class Host(BaseEstimator):
    pass


# ------------------------------------------------------------------------- device, dtype


def test_device_auto_is_the_best_there_is():
    best = "cuda" if torch.cuda.is_available() else "cpu"
    if torch.backends.mps.is_available():
        best = "mps"
    assert rt.resolve_device("auto").type == best
    assert rt.resolve_device("auto", nn.Linear(2, 2)).type == best
    assert rt.resolve_device(torch.device("cpu")) == torch.device("cpu")


def test_device_auto_keeps_a_module_on_its_accelerator():
    class Elsewhere(nn.Module):
        def parameters(self, recurse=True):
            yield type("T", (), {"device": torch.device("cuda", 3)})

        def buffers(self, recurse=True):
            return iter(())

    assert rt.resolve_device("auto", Elsewhere()) == torch.device("cuda", 3)


@pytest.mark.gpu
def test_an_accelerator_without_a_number_is_the_one_of_the_module():
    assert rt.resolve_device("cuda") == torch.device("cuda", torch.cuda.current_device())
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    assert rt.resolve_device("cuda", nn.Linear(2, 2).to(last)) == last


@pytest.mark.parametrize("device", ["cuda:99", "no such", "meta"])
def test_unknown_device_is_named(device):
    with pytest.raises(ValueError, match=f"device='{device}' is not available.*device='auto'"):
        rt.resolve_device(device)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("f8", "float64"), ("f4", "float32"), ("f2", "float32"), ("u1", "float32"),
     ("i2", "float32"), ("i4", "float64"), ("i8", "float64"), ("u8", "float64"),
     ("?", "float32")],
)  # fmt: skip
def test_dtype_of_computation(dtype, expected):
    X = np.zeros((2, 2), dtype)
    assert rt.resolve_dtype(X, torch.device("cpu")) == getattr(torch, expected)
    assert rt.resolve_dtype(X, torch.device("mps")) == torch.float32


def test_dtype_of_frames():
    cpu = torch.device("cpu")
    small = pd.DataFrame({"a": np.zeros(2, "f4"), "b": np.zeros(2, "u1")})
    assert rt.resolve_dtype(small, cpu) == torch.float32
    assert rt.resolve_dtype(small.assign(c=["x", "y"]), cpu) == torch.float64


# --------------------------------------------------------------------------------- seeds


def test_one_draw_makes_the_seed():
    expected = np.random.RandomState(3).randint(2**31 - 1)
    assert rt.draw_seed(3) == expected
    state = np.random.RandomState(3)
    assert rt.draw_seed(state) == expected and rt.draw_seed(state) != expected


def test_threads_take_turns_with_the_global_generator():
    with rt.forked_rng(0):
        want = torch.rand(50)

    def draw(_):
        with rt.forked_rng(0):
            return torch.cat([torch.rand(10) for _ in range(5)])

    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(got, want) for got in pool.map(draw, range(200)))


def test_spawned_generators_differ_and_repeat():
    draws = [torch.rand(4, generator=g) for g in rt.spawn_generators(5, 3)]
    again = [torch.rand(4, generator=g) for g in rt.spawn_generators(5, 3)]
    assert all(torch.equal(a, b) for a, b in zip(draws, again))
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[1], draws[2])


def test_forked_rng_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), rt.forked_rng(1):
        first = torch.rand(3)
        raise KeyError
    with rt.forked_rng(1):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------------- tensors


ROWS = np.arange(12).reshape(4, 3)


def _read_only():
    X = ROWS.astype(np.float32)
    X.flags.writeable = False
    return X


def _memory_map(tmp_path):
    path = tmp_path / "x.dat"
    ROWS.astype("u1").tofile(path)
    return np.memmap(path, dtype="u1", mode="r", shape=ROWS.shape)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "make",
    [
        *[lambda p, t=t: ROWS.astype(t) for t in "? u1 u2 u4 u8 i1 i2 i4 i8".split()],
        *[lambda p, t=t: ROWS.astype(t) for t in "f2 f4 f8 >f4 >i8 O".split()],
        lambda p: _read_only(),
        lambda p: ROWS[::-1][::-1],
        lambda p: np.asfortranarray(ROWS),
        _memory_map,
        lambda p: ROWS.tolist(),
        lambda p: torch.tensor(ROWS, dtype=torch.float32, requires_grad=True),
        lambda p: pd.DataFrame(ROWS),
        lambda p: sparse.csr_matrix(ROWS),
    ],
)  # fmt: skip
def test_any_rows_become_a_tensor(make, dtype, tmp_path):
    rows = make(tmp_path)
    expected = torch.tensor(ROWS.astype(getattr(rows, "dtype", "i8") == bool and bool or "i8"))
    tensor = rt.to_tensor(rows, dtype=dtype)
    assert tensor.dtype == dtype and not tensor.requires_grad
    assert torch.equal(tensor, expected.to(dtype))


@pytest.mark.filterwarnings("error")
def test_negative_strides_become_a_tensor():
    assert torch.equal(rt.to_tensor(ROWS[::-1, ::-1]), torch.tensor(ROWS).flip(0, 1))
    assert torch.equal(rt.to_tensor(ROWS[::-1][-1:]), torch.tensor(ROWS[:1]))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("writeable", [True, False])
def test_big_arrays_are_not_copied(writeable):
    X = np.arange(12, dtype=np.float32).reshape(4, 3)
    X.flags.writeable = writeable
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    tensor = rt.to_tensor(X, dtype=torch.float32)
    torch.set_warn_always(always)
    assert tensor.data_ptr() == X.ctypes.data
    values = X.copy()
    del X  # the tensor keeps the memory alive
    assert np.array_equal(tensor.numpy(), values)


def test_half_precision_becomes_float32():
    assert rt.to_numpy(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32
    assert rt.to_numpy(torch.ones(2, dtype=torch.float64, requires_grad=True)).dtype == np.float64


# ------------------------------------------------------------------------------- batches


def test_batch_size_auto_is_bounded_by_bytes_and_rows():
    cpu = torch.device("cpu")
    assert rt.resolve_batch_size(7, 1, cpu) == 7
    assert rt.resolve_batch_size("auto", 16, cpu) == 512
    assert rt.resolve_batch_size("auto", 2**20, cpu) == 32
    assert rt.resolve_batch_size("auto", 2**40, cpu) == 1
    assert rt.resolve_batch_size("auto", 16, torch.device("cuda")) == 4096


OUT_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 18.11 GB)"),
    RuntimeError("XPU out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED."),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: f"{type(e).__name__}: {e}"[:40])
def test_out_of_memory_halves_the_batch_and_goes_on(error):
    tried = []

    def step(rows):
        tried.append(rows.stop - rows.start)
        if rows.stop - rows.start > 3:
            raise error
        return list(range(20))[rows]

    assert sum(rt.map_batches(step, 20, 12), []) == list(range(20))
    assert tried == [12, 6, 3, 3, 3, 3, 3, 3, 2]
    tried.clear()
    assert sum(rt.map_batches(step, 4, 1000), []) == list(range(4))
    assert tried == [4, 2, 2]  # half of what was tried, not of what was allowed


def test_a_row_that_does_not_fit_and_other_errors_are_raised():
    def too_large(rows):
        raise MemoryError

    def broken(rows):
        raise RuntimeError("shapes differ")

    with pytest.raises(MemoryError):
        list(rt.map_batches(too_large, 4, 2))
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(rt.map_batches(broken, 4, 2))


def test_progress_bar_is_silent_unless_verbose(capsys):
    for _ in rt.map_batches(lambda r: r, 5, 2):
        pass
    assert capsys.readouterr().err == ""
    assert not [t for t in threading.enumerate() if "tqdm" in type(t).__name__.lower()]
    for _ in rt.map_batches(lambda r: r, 5, 2, verbose=1, desc="looking"):
        pass
    assert "looking" in capsys.readouterr().err


# --------------------------------------------------------------------------------- input


def test_input_shape_is_kept_and_checked():
    host = Host()
    X = np.zeros((5, 1, 4, 4), np.uint8)
    assert rt.check_input(host, X, reset=True).dtype == np.uint8
    assert host.input_shape_ == (1, 4, 4) and host.n_features_in_ == 1
    with pytest.raises(ValueError, match=r"rows of shape \(1, 4, 5\), but Host.*\(1, 4, 4\)"):
        rt.check_input(host, np.zeros((5, 1, 4, 5)), reset=False)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["array", "images", "sparse", "frame", "tensor", "long"])
def test_the_row_that_is_not_finite_is_named(bad, kind, monkeypatch):
    X = np.ones((9, 4, 2) if kind == "images" else (9, 4))
    X[6, 2] = bad
    if kind == "long":  # several blocks
        monkeypatch.setattr(rt, "_BATCH_BYTES", 64)
    X = {"sparse": sparse.csr_matrix, "frame": pd.DataFrame, "tensor": torch.tensor}.get(
        kind, np.asarray
    )(X)
    what = "NaN" if np.isnan(bad) else "infinity"
    with pytest.raises(ValueError, match=f"Input X contains {what} in row 6"):
        rt.check_input(Host(), X, reset=True)


def test_frames_are_kept_for_estimators_that_select_columns():
    host = Host()
    X = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    assert rt.check_input(host, X, reset=True, keep_frame=True) is X
    assert list(host.feature_names_in_) == ["a", "b"] and host.input_shape_ == (2,)
    with pytest.raises(ValueError, match="feature names"):
        rt.check_input(host, X[["b", "a"]], reset=False, keep_frame=True)
    with pytest.raises(ValueError, match="could not convert"):
        rt.check_input(host, X, reset=True)


MEMORY = """
import numpy as np, os, sys, threading, time, torch
from skboundary import LatentKNNClassifier
torch.set_num_threads(1)
rows, path = 3_000, sys.argv[1]
X = np.memmap(path, dtype=np.uint8, mode="w+", shape=(rows, 1, 1024, 1024))  # a sparse file
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
model = LatentKNNClassifier(net).fit(X, np.arange(rows) % 2)
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
        (pd.DataFrame(np.zeros((3, 3)), columns=list("aba")), r"columns of one name: \['a'\]"),
    ],
)
def test_what_holds_no_numbers_is_refused(X, message):
    for keep_frame in (False, True):
        with pytest.raises(ValueError, match=message):
            rt.check_input(Host(), X, reset=True, keep_frame=keep_frame)


def test_labels_of_one_type():
    X = np.zeros((3, 2))
    strings = np.array(["a", np.str_("b"), "a"], dtype=object)
    assert rt.check_targets(Host(), X, strings) is not None
    for y in (["a", 1, "b"], ["a", None, "b"], ["a", np.nan, "b"]):
        with pytest.raises(ValueError, match="y holds labels of several types: .*, str"):
            rt.check_targets(Host(), X, np.array(y, dtype=object))


def test_check_targets():
    X = np.zeros((3, 2))
    host = Host()
    assert rt.check_targets(host, X, None) is None
    assert rt.check_targets(host, X, torch.tensor([1, 0, 1])).tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="inconsistent"):
        rt.check_targets(host, X, [0, 1])
    with pytest.raises(ValueError, match="NaN in row 1"):
        rt.check_targets(host, X, [0, np.nan, 1])
    with pytest.raises(ValueError, match="Unknown label type"):
        rt.check_targets(host, X, [0.5, 1.5, 2.25])
