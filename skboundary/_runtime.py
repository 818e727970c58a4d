"""Device, dtype, batches, seeds, tensors, input checks and progress: the one place for each."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import wraps
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d, validate_data
from torch.utils.data import DataLoader, Dataset

# A batch holds at most so many bytes of input, and so many rows. Activations of a
# convolutional network are some tens of times its input, hence the modest figures.
_BATCH_BYTES = 2**25
_BATCH_ROWS = {"cpu": 512}
_BATCH_ROWS_ACCELERATOR = 4096
_MAX_SEED = 2**31 - 1

# What torch's allocators and libraries say when memory runs out, where it is no OutOfMemoryError.
_OUT_OF_MEMORY = (
    "can't allocate memory",  # torch's CPU allocator
    "out of memory",  # "MPS backend out of memory", "XPU out of memory", CUDA before torch 1.13
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_SUPPORTED",
)

# torch's global generators belong to the process: one training at a time.
_TRAINING = threading.RLock()

# What torch reads from numpy without a cast; anything else is cast by numpy first.
_TORCH_READS = {np.dtype(t) for t in ("?", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8")}


# ---------------------------------------------------------------------- device and dtype


def resolve_device(device: Any, module: torch.nn.Module | None = None) -> torch.device:
    """Turn the parameter `device` into a device that exists.

    Parameters
    ----------
    device : {"auto"}, str or torch.device
        "auto" keeps `module` on the accelerator where it already sits, and otherwise
        takes CUDA, then MPS, then the CPU. An accelerator without a number ("cuda") is the one
        where `module` sits, and otherwise the current one.
    module : torch.nn.Module, default=None
        The network that will run.

    Returns
    -------
    device : torch.device
        With its number, but for the CPU.

    Raises
    ------
    ValueError
        When the device is unknown or not on this machine.
    """
    tensors = [] if module is None else [*module.parameters(), *module.buffers()]
    home = tensors[0].device if tensors else torch.device("cpu")
    if isinstance(device, str) and device == "auto":
        if home.type not in ("cpu", "meta"):
            return home
        best = "mps" if torch.backends.mps.is_available() else "cpu"
        device = "cuda" if torch.cuda.is_available() else best
    try:
        resolved = torch.device(device)
        if resolved.index is None and resolved.type == home.type:
            resolved = home
        value = torch.zeros(1, device=resolved)
        value.item()  # "meta" exists, but computes nothing
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"device={device!r} is not available on this machine "
            f"({str(error).splitlines()[0]}). Use device='auto' or device='cpu'."
        ) from None
    return value.device


def resolve_dtype(X: Any, device: torch.device) -> torch.dtype:
    """Dtype in which rows of X are computed.

    Float64 for float64 and for integers of 32 bits or more where the device has it, float32
    for everything else. Columns of a DataFrame that are not numbers count as float64.
    """
    dtypes = [X.dtype] if hasattr(X, "dtype") else list(X.dtypes)
    wide = [not _is_number(d) or d.itemsize >= 8 or (d.kind in "iu" and d.itemsize == 4)
            for d in dtypes]  # fmt: skip
    return torch.float64 if any(wide) and device.type != "mps" else torch.float32


def holds_integers(X: Any) -> bool:
    """Whether all columns of X, an array or a DataFrame, are integers."""
    dtypes = [X.dtype] if hasattr(X, "dtype") else list(X.dtypes)
    return all(getattr(dtype, "kind", "O") in "iu" for dtype in dtypes)


def module_dtype(module: torch.nn.Module) -> torch.dtype:
    """Dtype of the first floating parameter or buffer (float32 when there is none)."""
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.float32


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Dtype in which values of `dtype` are computed with: float32 for half precisions."""
    return torch.promote_types(torch.float32, dtype)


def coarsest_eps(module: torch.nn.Module, dtype: torch.dtype) -> float:
    """Largest machine epsilon among `dtype` and the parameters and buffers of a module."""
    tensors = [*module.parameters(), *module.buffers()]
    floating = {dtype, *(t.dtype for t in tensors if t.is_floating_point())}
    return max(torch.finfo(d).eps for d in floating)


# --------------------------------------------------------------------------------- seeds


def draw_seed(random_state: Any) -> int:
    """One draw of `check_random_state`: the only randomness a fit takes from its caller."""
    return int(check_random_state(random_state).randint(_MAX_SEED))


def spawn_generators(seed: int, n: int) -> list[torch.Generator]:
    """Make `n` independent CPU generators, one for each purpose or class."""
    parent = torch.Generator().manual_seed(seed)
    seeds = torch.randint(_MAX_SEED, (n,), generator=parent).tolist()
    return [torch.Generator().manual_seed(s) for s in seeds]


@contextmanager
def forked_rng(seed: int) -> Iterator[None]:
    """Seed torch's global generators inside the block and put them back after it.

    They belong to the process, so that blocks in several threads run one after the other.
    """
    with _TRAINING, ExitStack() as stack:
        fork = torch.random.fork_rng
        stack.enter_context(fork(devices=range(torch.cuda.device_count())))
        if torch.xpu.is_available():
            xpus = range(torch.xpu.device_count())
            stack.enter_context(fork(devices=xpus, device_type="xpu"))
        if torch.backends.mps.is_available():
            stack.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
        torch.manual_seed(seed)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Have torch compute in one thread inside the block; blocks run one after the other.

    `torch.set_num_threads` sets the count of the calling thread, and that of threads to come. A
    thread that was born during such a block begins with 1, so it is a fresh one that is asked
    for the count to put back.
    """
    with _TRAINING:
        count: list[int] = []
        fresh = threading.Thread(target=lambda: count.append(torch.get_num_threads()))
        fresh.start()
        fresh.join()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(count[0])


# --------------------------------------------------------------------- tensors and arrays


def to_tensor(array: Any, *, device: Any = "cpu", dtype: torch.dtype | None = None) -> torch.Tensor:
    """Turn rows of any kind (array, tensor, sparse, DataFrame) into a tensor.

    The result shares memory with an array of the right dtype on the CPU, also with a read-only
    one, so it is not to be written to.

    Parameters
    ----------
    array : array-like, sparse matrix, DataFrame or torch.Tensor
    device : str or torch.device, default="cpu"
    dtype : torch.dtype, default=None
        None keeps the dtype.

    Returns
    -------
    tensor : torch.Tensor
    """
    if isinstance(array, torch.Tensor):
        return array.detach().to(device=device, dtype=dtype)
    if sparse.issparse(array):
        array = array.toarray()
    array = np.asarray(array)
    if array.dtype not in _TORCH_READS:  # unsigned 16 to 64 bits, foreign byte order, objects
        array = array.astype(np.float64)
    array = np.ascontiguousarray(array)
    # torch refuses negative strides, which an axis of length 1 keeps in a contiguous array
    array = array.copy() if min(array.strides, default=0) < 0 else array
    # torch warns about read-only memory even when it only reads it
    tensor = torch.from_numpy(array if array.flags.writeable else np.asarray(_Writable(array)))
    # two steps: bytes travel to the device as they are and become floats there
    if dtype == torch.float32 and tensor.dtype == torch.float64:
        return tensor.to(dtype).to(device)
    return tensor.to(device).to(dtype or tensor.dtype)


class _Writable:
    """The memory of a read-only array, under the name of a writable one."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array  # keeps the memory alive
        self.__array_interface__ = {
            **array.__array_interface__,
            "data": (array.__array_interface__["data"][0], False),
        }


def to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """Detach, bring to the CPU, hand over as an array (half precisions become float32)."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()


# ------------------------------------------------------------------------------- batches


def resolve_batch_size(batch_size: Any, row_bytes: int, device: torch.device) -> int:
    """Rows in a batch: as asked, or for "auto" what stays within a modest memory."""
    if batch_size != "auto":
        return int(batch_size)
    rows = _BATCH_ROWS.get(device.type, _BATCH_ROWS_ACCELERATOR)
    return max(1, min(rows, _BATCH_BYTES // max(row_bytes, 1)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, so that a smaller batch may do."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)
    )


def map_batches(
    step: Callable[[slice], Any],
    n_rows: int,
    batch_size: int,
    *,
    verbose: int = 0,
    desc: str = "rows",
    bar: Any = None,
) -> Iterator[Any]:
    """Yield ``step(rows)`` for consecutive slices of rows.

    A batch that runs out of memory is halved and tried again, and the smaller size is kept.

    Parameters
    ----------
    step : callable
        Takes a slice.
    n_rows : int
    batch_size : int
    verbose : int, default=0
        A progress bar when positive.
    desc : str, default="rows"
        Its label.
    bar : object, default=None
        What `progress` gave for a whole call that consists of several such passes; None opens
        one for this pass.

    Yields
    ------
    result : object
        What `step` returned.

    Raises
    ------
    MemoryError, RuntimeError
        The out-of-memory error itself, when a single row does not fit.
    """
    with progress(n_rows, desc, verbose) if bar is None else nullcontext(bar) as bar:
        start = 0
        while start < n_rows:
            stop = min(start + batch_size, n_rows)
            too_large = False
            try:
                result = step(slice(start, stop))
            except (MemoryError, RuntimeError) as error:
                if stop - start == 1 or not is_out_of_memory(error):
                    raise
                too_large = True
            if too_large:  # outside the handler, whose traceback holds the tensors
                batch_size = (stop - start) // 2
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            yield result
            bar.update(stop - start)
            start = stop


def progress(total: int, desc: str, verbose: int) -> Any:
    """Open a tqdm bar, or a silent stand-in unless `verbose` is positive."""
    if verbose <= 0:  # a tqdm that is disabled still starts a thread that stays
        return _Silent()
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=desc, leave=False)


class _Silent:
    """A progress bar that shows nothing."""

    n = 0

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def update(self, n: int = 1) -> None:
        """Take note of nothing."""


# ----------------------------------------------------------------------------------- fit


def all_or_nothing(*keep: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a `fit` that leaves its estimator as it was unless it comes to its end.

    After an error or an interruption an estimator that was fitted answers as before, and one
    that was not is still unfitted.

    Parameters
    ----------
    *keep : str
        Attributes that stay all the same, for a later `fit` to continue from.

    Returns
    -------
    decorator : callable
    """

    def decorate(fit: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(fit)
        def fit_or_restore(self: Any, *args: Any, **kwargs: Any) -> Any:
            before = vars(self).copy()
            try:
                return fit(self, *args, **kwargs)
            except BaseException:
                kept = {name: value for name, value in vars(self).items() if name in keep}
                self.__dict__ = before | kept
                raise

        return fit_or_restore

    return decorate


# --------------------------------------------------------------------------------- input


def row_shape(X: Any) -> tuple[int, ...]:
    """Shape of one row."""
    return tuple(X.shape[1:])


def check_input(estimator: Any, X: Any, *, reset: bool, keep_frame: bool = False) -> Any:
    """Validate rows of any shape without copying or casting them.

    Sets or checks `n_features_in_`, `feature_names_in_` and `input_shape_` (scikit-learn's
    `n_features_in_` counts the second axis only).

    Parameters
    ----------
    estimator : estimator
        The object whose method was called.
    X : array-like of shape (n_samples, ...), torch.Tensor, DataFrame or sparse matrix
        Integers stay integers; a memory map is not read.
    reset : bool
        True in fit, False afterwards.
    keep_frame : bool, default=False
        Hand a DataFrame back as it is, for a classifier that selects columns by name. Only
        its columns are checked when they are not all numbers.

    Returns
    -------
    X : ndarray, CSR matrix or DataFrame

    Raises
    ------
    ValueError
        For NaN or infinity (with the row), for rows of another shape than in fit, and for what
        has no numbers: dates, samples without a value.
    TypeError
        For what is no array: a mapping, a Dataset, a DataLoader.
    """
    _check_container(X)
    if isinstance(X, torch.Tensor):
        X = to_numpy(X)
    frame = X if keep_frame and hasattr(X, "columns") else None
    if frame is not None and not all(_is_number(dtype) for dtype in frame.dtypes):
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        array = frame
    else:
        array = validate_data(
            estimator, X, reset=reset, accept_sparse="csr", allow_nd=True, ensure_all_finite=False
        )
        if array.dtype.kind in "mM":
            raise ValueError(
                f"X holds {array.dtype}, dates or durations. Turn them into numbers first."
            )
        check_finite(array)
    if 0 in row_shape(array):
        raise ValueError(
            f"X has samples of shape {row_shape(array)}, which hold no value. Drop the axis of "
            "length 0."
        )
    if reset:
        estimator.input_shape_ = row_shape(array)
    elif row_shape(array) != estimator.input_shape_:
        raise ValueError(
            f"X has rows of shape {row_shape(array)}, but {type(estimator).__name__} was fitted "
            f"with rows of shape {estimator.input_shape_}. Reshape X."
        )
    return array if frame is None else frame


def _check_container(X: Any) -> None:
    kind = type(X).__name__
    if isinstance(X, (Dataset, DataLoader)):
        raise TypeError(
            f"X is a {kind}; give samples in one array or tensor, for instance "
            "torch.stack([x for x, _ in dataset])."
        )
    if isinstance(X, Mapping) and not sparse.issparse(X):  # a DOK matrix is a dict
        raise TypeError(
            f"X is a mapping ({kind}) with keys {[*X][:5]}; a network gets its samples in one "
            "array or tensor. Wrap a network of several inputs in a module that takes one tensor "
            "and splits it."
        )
    names = [*getattr(X, "columns", ())]
    if len(set(names)) < len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise ValueError(f"X has several columns of one name: {twice[:5]}. Rename or drop them.")


def check_targets(estimator: Any, X: Any, y: Any) -> NDArray[Any] | None:
    """Validate class labels; None passes where the estimator's tags do not require them.

    Parameters
    ----------
    estimator : estimator
    X : array-like of shape (n_samples, ...)
    y : array-like of shape (n_samples,) or None

    Returns
    -------
    y : ndarray of shape (n_samples,) or None

    Raises
    ------
    ValueError
        For missing or non-finite labels, another number of rows, or a regression target.
    """
    if y is None:
        if get_tags(estimator).target_tags.required:
            raise ValueError(
                f"{type(estimator).__name__} requires y to be passed, but the target y is None."
            )
        return None
    y = column_or_1d(to_numpy(y) if isinstance(y, torch.Tensor) else y, warn=True)
    check_finite(y, "y")
    labels = y if y.dtype == object else ()
    kinds = sorted({"str" if isinstance(v, str) else type(v).__name__ for v in labels})
    if len(kinds) > 1:
        raise ValueError(
            f"y holds labels of several types: {', '.join(kinds)}. Use one type, and drop samples "
            "without a label."
        )
    check_classification_targets(y)
    check_consistent_length(X, y)
    return y


def _is_number(dtype: Any) -> bool:
    return getattr(dtype, "kind", "O") in "biuf"


def check_finite(X: Any, name: str = "X") -> None:
    """Refuse NaN and infinity, and say in which row the first one is."""
    values = X.data if sparse.issparse(X) else X
    if values.dtype.kind != "f":
        return
    rows = max(1, _BATCH_BYTES // max(1, values[:1].nbytes))
    for start in range(0, len(values), rows):
        finite = np.isfinite(values[start : start + rows])
        if not finite.all():
            first = start + int(np.argwhere(~finite)[0, 0])
            value = values[first].ravel()
            what = "NaN" if np.isnan(value[~np.isfinite(value)][0]) else "infinity"
            if sparse.issparse(X):
                first = int(np.searchsorted(X.indptr, first, side="right")) - 1
            raise ValueError(
                f"Input {name} contains {what} in row {first}. Impute or drop such rows first."
            )
