from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from torch import nn

from skboundary._device import move, resolve_device, resolve_dtype, to_numpy, to_tensor
from tests.standin_device import count


def test_device_auto_is_the_best_available():
    best = "cuda" if torch.cuda.is_available() else "cpu"
    if torch.backends.mps.is_available():
        best = "mps"
    assert resolve_device("auto").type == best
    assert resolve_device("auto", nn.Linear(2, 2)).type == best
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


def test_device_auto_keeps_a_module_on_its_accelerator():
    class Elsewhere(nn.Module):
        def parameters(self, recurse=True):
            yield type("T", (), {"device": torch.device("cuda", 3)})

        def buffers(self, recurse=True):
            return iter(())

    assert resolve_device("auto", Elsewhere()) == torch.device("cuda", 3)


def test_an_accelerator_without_an_index_is_that_of_the_module(device):
    assert resolve_device(device) == torch.device(device, getattr(torch, device).current_device())
    last = torch.device(device, getattr(torch, device).device_count() - 1)
    assert resolve_device(device, nn.Linear(2, 2).to(last)) == last


def test_a_tensor_is_brought_to_a_device_and_back(device):
    samples = np.arange(6.0).reshape(2, 3)
    tensor = to_tensor(samples, device=device, dtype=torch.float32)
    assert tensor.device.type == device and tensor.dtype == torch.float32
    np.testing.assert_array_equal(to_numpy(tensor), samples.astype(np.float32), strict=True)


class Pair(NamedTuple):
    first: Any
    second: Any


def test_many_tensors_are_moved_in_one_transfer(device):
    given = Pair(
        (torch.tensor([True, False, True]), torch.arange(3), torch.empty(0, 2)),
        [None, torch.tensor(0.1, dtype=torch.float64), torch.rand(2, 3).half().T],
    )
    with count() as traffic:
        there = move(given, torch.empty(0, device=device).device)
        back = move(there, torch.device("cpu"))
    if device == "standin":
        assert (traffic.transfers_in, traffic.transfers_out) == (1, 1)
        assert not traffic.synchronizations
    assert type(back) is Pair and type(back.second) is list and back.second[0] is None
    storages = set()
    for before, moved, after in zip(*map(tensors_of, (given, there, back)), strict=True):
        assert moved.device.type == device and after.device.type == "cpu"
        assert after.dtype == before.dtype and torch.equal(after, before)
        storages.add(after.untyped_storage()._cdata)
    assert len(storages) == 5
    assert all(a is b for a, b in zip(*map(tensors_of, (given, move(given, torch.device("cpu"))))))


def tensors_of(pair):
    return [*pair.first, *pair.second[1:]]


@pytest.mark.parametrize("unknown", ["cuda:99", "no such", "meta"])
def test_unknown_device_is_refused(unknown):
    with pytest.raises(ValueError, match=f"device='{unknown}' is not available.*device='auto'"):
        resolve_device(unknown)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("f8", "float64"),
        ("f4", "float32"),
        ("f2", "float32"),
        ("u1", "float32"),
        ("i2", "float32"),
        ("i4", "float64"),
        ("i8", "float64"),
        ("u8", "float64"),
        ("?", "float32"),
    ],
)
def test_dtype_of_computation(dtype, expected):
    X = np.zeros((2, 2), dtype)
    assert resolve_dtype(X, torch.device("cpu")) == getattr(torch, expected)
    assert resolve_dtype(X, torch.device("mps")) == torch.float32


def test_dtype_of_dataframes():
    cpu = torch.device("cpu")
    small = pd.DataFrame({"a": np.zeros(2, "f4"), "b": np.zeros(2, "u1")})
    assert resolve_dtype(small, cpu) == torch.float32
    assert resolve_dtype(small.assign(c=["x", "y"]), cpu) == torch.float64


SAMPLES = np.arange(12).reshape(4, 3)


def _read_only():
    X = SAMPLES.astype(np.float32)
    X.flags.writeable = False
    return X


def _memory_map(tmp_path):
    path = tmp_path / "x.dat"
    SAMPLES.astype("u1").tofile(path)
    return np.memmap(path, dtype="u1", mode="r", shape=SAMPLES.shape)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "make",
    [
        *[lambda p, t=t: SAMPLES.astype(t) for t in ["?", "u1", "u2", "u4", "u8"]],
        *[lambda p, t=t: SAMPLES.astype(t) for t in ["i1", "i2", "i4", "i8"]],
        *[lambda p, t=t: SAMPLES.astype(t) for t in ["f2", "f4", "f8", ">f4", ">i8", "O"]],
        lambda p: _read_only(),
        lambda p: SAMPLES[::-1][::-1],
        lambda p: np.asfortranarray(SAMPLES),
        _memory_map,
        lambda p: SAMPLES.tolist(),
        lambda p: torch.tensor(SAMPLES, dtype=torch.float32, requires_grad=True),
        lambda p: pd.DataFrame(SAMPLES),
        lambda p: sparse.csr_matrix(SAMPLES),
    ],
)
def test_samples_in_any_container_become_a_tensor(make, dtype, tmp_path):
    samples = make(tmp_path)
    kind = getattr(samples, "dtype", None)
    whole = SAMPLES.astype(bool if kind == np.dtype(bool) else "i8")
    expected = torch.tensor(whole)
    tensor = to_tensor(samples, dtype=dtype)
    assert tensor.dtype == dtype and not tensor.requires_grad
    assert torch.equal(tensor, expected.to(dtype))


@pytest.mark.filterwarnings("error")
def test_negative_strides_become_a_tensor():
    assert torch.equal(to_tensor(SAMPLES[::-1, ::-1]), torch.tensor(SAMPLES).flip(0, 1))
    assert torch.equal(to_tensor(SAMPLES[::-1][-1:]), torch.tensor(SAMPLES[:1]))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("writeable", [True, False])
def test_arrays_of_the_right_dtype_are_not_copied(writeable):
    X = np.arange(12, dtype=np.float32).reshape(4, 3)
    X.flags.writeable = writeable
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    tensor = to_tensor(X, dtype=torch.float32)
    torch.set_warn_always(always)
    assert tensor.data_ptr() == X.ctypes.data
    values = X.copy()
    del X  # the tensor keeps the memory alive
    assert np.array_equal(tensor.numpy(), values)


def test_half_precision_becomes_float32():
    assert to_numpy(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32
    assert to_numpy(torch.ones(2, dtype=torch.float64, requires_grad=True)).dtype == np.float64
