import threading

import numpy as np
import pytest
import torch

from skboundary._batching import joined, map_batches, resolve_batch_size


def test_batch_size_auto_is_bounded_by_bytes_and_samples():
    cpu = torch.device("cpu")
    assert resolve_batch_size(7, 1, cpu) == 7
    assert resolve_batch_size("auto", 16, cpu) == 512
    assert resolve_batch_size("auto", 2**20, cpu) == 32
    assert resolve_batch_size("auto", 2**40, cpu) == 1
    assert resolve_batch_size("auto", 16, torch.device("cuda")) == 4096


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
def test_out_of_memory_halves_the_batch(error):
    tried = []

    def step(batch):
        tried.append(batch.stop - batch.start)
        if batch.stop - batch.start > 3:
            raise error
        return list(range(20))[batch]

    assert sum(map_batches(step, 20, 12), []) == list(range(20))
    assert tried == [12, 6, 3, 3, 3, 3, 3, 3, 2]
    tried.clear()
    assert sum(map_batches(step, 4, 1000), []) == list(range(4))
    assert tried == [4, 2, 2]  # half of the batch that failed, not of the batch size


def test_a_sample_that_does_not_fit_and_other_errors_are_raised():
    def too_large(batch):
        raise MemoryError

    def broken(batch):
        raise RuntimeError("shapes differ")

    with pytest.raises(MemoryError):
        list(map_batches(too_large, 4, 2))
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(map_batches(broken, 4, 2))


def test_progress_bar_is_silent_unless_verbose(capsys):
    for _ in map_batches(lambda r: r, 5, 2):
        pass
    assert capsys.readouterr().err == ""
    assert not [t for t in threading.enumerate() if "tqdm" in type(t).__name__.lower()]
    for _ in map_batches(lambda r: r, 5, 2, verbose=1, desc="looking"):
        pass
    assert "looking" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_parts_are_joined_as_by_concatenation(kind):
    whole = [np.arange(12.0).reshape(6, 2), np.arange(6)]
    for ends in ([6], [2, 6], [1, 2, 3, 4, 5, 6]):
        starts = [0, *ends[:-1]]
        parts = [[kind(a[i:j]) for a in whole] for i, j in zip(starts, ends)]
        found = joined(iter(parts), 6)
        for array, expected in zip(found, whole, strict=True):
            np.testing.assert_array_equal(array, expected)
            assert type(array) is type(kind([0])) and array.dtype == kind(expected).dtype
    assert joined(iter([parts[0][:1]]), 1)[0] is parts[0][0]  # one part is not copied


def test_parts_of_several_dtypes_get_a_common_one():
    (found,) = joined(iter([[torch.ones(2)], [torch.full((1,), 0.1).double()]]), 3)
    assert found.dtype == torch.float64 and found.tolist() == [1, 1, float(np.float32(0.1))]
    (names,) = joined(iter([[np.array(["a"])], [np.array(["abc"])]]), 2)
    assert names.tolist() == ["a", "abc"]


def test_parts_of_several_shapes_are_refused():
    for second in (torch.ones(2, 1), torch.ones(2, 3)):
        with pytest.raises(ValueError, match=r"before number 2 .*\(2,\), and those from it on"):
            joined(iter([[torch.ones(2, 2)], [second]]), 4)
