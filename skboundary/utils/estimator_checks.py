"""Common checks for estimators with a network inside, beside scikit-learn's own.

Every check takes the name of the estimator, the estimator and optionally data: a pair of
float rows X (8 or more of any shape, because a trained network prescribes it) and labels y.
It works on a clone and raises an AssertionError that says what is wrong.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import io
import pickle
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV

__all__ = [
    "check_batch_size_invariance",
    "check_clone_and_grid_search",
    "check_duplicates_and_zero_rows",
    "check_float32_preserved",
    "check_input_untouched",
    "check_integer_input",
    "check_module_untouched",
    "check_n_neighbors_too_large",
    "check_no_global_rng_use",
    "check_nonfinite_row_named",
    "check_parameters_not_written_back",
    "check_pickle_holds_cpu_tensors",
    "check_read_only_and_strided_input",
    "check_string_labels",
    "check_unknown_device",
    "estimator_checks_generator",
    "yield_checks",
]

Data = tuple[Any, Any]
Arrays = dict[str, NDArray[Any]]

_METHODS = (
    "predict",
    "predict_proba",
    "decision_function",
    "transform",
    "score_samples",
    "kneighbors",
)
_PRESERVING = ("predict_proba", "transform", "kneighbors[0]", "fit_resample[0]")
_BAD_ROW = 7


# ----------------------------------------------------------------------------- generators


def estimator_checks_generator(
    estimator: Any, *, data: Data | None = None, fixed_classes: bool | None = None
) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    """Yield the estimator with each check that applies to it.

    Parameters
    ----------
    estimator : estimator
        A classifier, transformer, sampler or neighbor index. It is never changed.
    data : tuple (X, y), default=None
        Rows and labels to check with; None = three blobs in four columns.
    fixed_classes : bool, default=None
        True when the estimator holds a trained model, which cannot learn other labels. None
        finds out from its parameters.

    Yields
    ------
    estimator : estimator
    check : callable
        To be called with the estimator. Its name serves as pytest's id.

    Examples
    --------
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from skboundary.utils.estimator_checks import estimator_checks_generator
    >>> estimator, check = next(estimator_checks_generator(KNeighborsClassifier()))
    >>> check.__name__
    'check_no_global_rng_use'
    >>> check(estimator)
    """
    name = type(estimator).__name__
    for check in yield_checks(estimator, fixed_classes=fixed_classes):
        yield estimator, update_wrapper(partial(check, name, data=data), check)


def yield_checks(
    estimator: Any, *, fixed_classes: bool | None = None
) -> Iterator[Callable[..., None]]:
    """Yield the checks that apply to an estimator, judged by its methods and parameters.

    Parameters
    ----------
    estimator : estimator
    fixed_classes : bool, default=None
        As in `estimator_checks_generator`.

    Yields
    ------
    check : callable
        ``check(name, estimator, data=None)``.
    """
    params = estimator.get_params(deep=False)
    if fixed_classes is None:
        fixed_classes = any(
            isinstance(held, (torch.nn.Module, FrozenEstimator)) for held in _walk(estimator)
        )
    yield check_no_global_rng_use
    yield check_parameters_not_written_back
    yield check_integer_input
    yield check_duplicates_and_zero_rows
    yield check_float32_preserved
    yield check_pickle_holds_cpu_tensors
    yield check_clone_and_grid_search
    yield check_nonfinite_row_named
    yield check_read_only_and_strided_input
    yield check_input_untouched
    if "batch_size" in params:
        yield check_batch_size_invariance
    if "device" in params:
        yield check_unknown_device
    if "n_neighbors" in params and not hasattr(estimator, "fit_resample"):
        yield check_n_neighbors_too_large
    if is_classifier(estimator) and not fixed_classes:
        yield check_string_labels
    if _modules(estimator):
        yield check_module_untouched


# ------------------------------------------------------------------- state and parameters


def check_no_global_rng_use(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that the global generators of numpy and torch are left as they were."""
    X, y = _get_data(data)
    estimator = _fresh(estimator_orig)
    with _restored_rng():
        for method in _fit_then_methods(estimator):
            # so that a call which seeds twice with the same number is noticed as well
            np.random.random_sample()
            torch.rand(1)
            before = _rng_state()
            with _must_work(name, f"in {method}"):
                _call(estimator, method, X, y)
            after = _rng_state()
            changed = [library for library in before if after[library] != before[library]]
            if changed:
                raise AssertionError(
                    f"{method} of {name} changes the global random state of "
                    f"{' and '.join(changed)}. Use a generator of its own."
                )


def check_parameters_not_written_back(
    name: str, estimator_orig: Any, data: Data | None = None
) -> None:
    """Check that parameters stay the objects they were, and the device is in `device_`."""
    X, y = _get_data(data)
    estimator = _fresh(estimator_orig)
    before = estimator.get_params(deep=False)
    with _must_work(name, "in fit or predict"):
        _results(estimator, X, y)
    after = estimator.get_params(deep=False)
    changed = [param for param in before if after[param] is not before[param]]
    if changed:
        raise AssertionError(f"{name} writes to its parameters {', '.join(changed)}.")
    if "device" in before and not isinstance(getattr(estimator, "device_", None), torch.device):
        raise AssertionError(f"{name} has no `device_` that is a torch.device after fit.")


def check_clone_and_grid_search(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that a clone has equal parameters and fits, and that a grid search runs."""
    X, y = _get_data(data)
    estimator = _fresh(estimator_orig)
    with _must_work(name, "to be cloned and fitted"):
        fitted = _results(estimator, X, y)
        cloned = clone(estimator)
        refitted = _results(cloned, X, y)
    for each in (estimator_orig, estimator):
        _assert_equal_params(name, each.get_params(), clone(each).get_params())
    _assert_same(name, cloned, refitted, fitted, "after being cloned")
    if is_classifier(estimator):
        params = estimator.get_params(deep=False)
        grids: dict[str, list[int]] = {"batch_size": [8, 16], "n_neighbors": [1, 2]}
        grid = next(({param: grids[param]} for param in grids if param in params), {})
        with _must_work(name, "in a grid search with two processes"):
            GridSearchCV(cloned, grid, cv=2, n_jobs=2, error_score="raise").fit(X, y)


def check_pickle_holds_cpu_tensors(
    name: str, estimator_orig: Any, data: Data | None = None
) -> None:
    """Check that a pickle opens without an accelerator and predicts the same."""
    X, y = _get_data(data)
    estimator = _fresh(estimator_orig)
    file = io.BytesIO()
    pickler = _DevicePickler(file)
    with _must_work(name, "to be pickled"):
        expected = _results(estimator, X, y)
        pickler.dump(estimator)
    elsewhere = sorted(pickler.devices - {"cpu"})
    if elsewhere:
        raise AssertionError(
            f"A pickle of {name} holds tensors on {', '.join(elsewhere)}. "
            "Move them to the CPU in __getstate__."
        )
    with _must_work(name, "from a pickle"):
        results = _outputs(pickle.loads(file.getvalue()), X, y)
    _assert_same(name, estimator, results, expected, "after being pickled")


def check_module_untouched(
    name: str,
    estimator_orig: Any,
    module: torch.nn.Module | None = None,
    data: Data | None = None,
) -> None:
    """Check that the user's network is left as it was, also by calls that fail.

    Training and gradient flags, gradients, devices, dtypes, weights, buffers and the number
    of hooks count.

    Parameters
    ----------
    name : str
    estimator_orig : estimator
    module : torch.nn.Module, default=None
        The network inside the estimator, which is then not cloned but fitted itself (a clone
        may hold a copy of the network). None = all those found in a clone's parameters.
    data : tuple (X, y), default=None
    """
    X, y = _get_data(data)
    estimator = _fresh(estimator_orig) if module is None else estimator_orig
    modules = _modules(estimator) if module is None else [module]
    with _unusual_flags(modules):
        before = _module_state(modules)
        with _must_work(name, "in fit or predict"):
            _results(estimator, X, y)
        _assert_untouched(name, modules, before, "fit or predict")
        for wrong in (_with_bad_row(X, np.nan), X[..., :-1]):
            _call_and_ignore_errors(estimator, wrong, y)
            _assert_untouched(name, modules, before, "a call with wrong rows")
        for each in modules:
            with _must_work(name, "in fit"):
                estimator.fit(X, y)
            with _interrupted(each):
                before = _module_state(modules)
                _call_and_ignore_errors(estimator, X, y)
                _assert_untouched(name, modules, before, "an error half-way")


# ---------------------------------------------------------------------------------- input


def check_integer_input(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that integers give what the same values give as float64 (bytes: or as float32)."""
    X, y = _get_data(data)
    X = np.rint((X - X.min()) * (255 / np.ptp(X)))
    double = _results(_fresh(estimator_orig), X, y)
    single = _results(_fresh(estimator_orig), X.astype(np.float32), y)
    for dtype, references in (("uint8", [double, single]), ("int64", [double])):
        estimator = _fresh(estimator_orig)
        with _must_work(name, f"with {dtype} rows"):
            results = _results(estimator, X.astype(dtype), y)
        differences = [_difference(estimator, results, reference) for reference in references]
        if all(differences):
            raise AssertionError(
                f"{name} gives other results for {dtype} rows than for the same values as "
                f"floats: {differences[0]}."
            )


def check_duplicates_and_zero_rows(
    name: str, estimator_orig: Any, data: Data | None = None
) -> None:
    """Check that repeated rows and rows of zeros work and give finite results."""
    X, y = _get_data(data)
    X = np.concatenate([X, X[:3], np.zeros_like(X[:2])])
    y = np.concatenate([y, y[:3], y[:2]])
    with _must_work(name, "with repeated rows and rows of zeros"):
        results = _results(_fresh(estimator_orig), X, y)
    for method, result in results.items():
        if result.dtype.kind == "f" and not np.isfinite(result).all():
            raise AssertionError(
                f"{method} of {name} is not finite with repeated rows and rows of zeros."
            )


def check_float32_preserved(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that float32 rows give float32 probabilities, features, distances and rows."""
    X, y = _get_data(data)
    with _must_work(name, "with float32 rows"):
        results = _results(_fresh(estimator_orig), X.astype(np.float32), y)
    for method in _PRESERVING:
        if method in results and results[method].dtype != np.float32:
            raise AssertionError(
                f"{method} of {name} gives {results[method].dtype} for float32 rows."
            )


def check_string_labels(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that strings, booleans, negative and gapped integers serve as labels."""
    X, y = _get_data(data)
    codes = np.unique(y, return_inverse=True)[1]
    numbers = np.arange(codes.max() + 1)
    strings = np.array([f"class {number:03d}" for number in numbers])
    for y, kinds in (
        (codes, [strings, strings.astype(object), numbers - 1, 10 * numbers + 3]),
        ((codes > 0).astype(int), [np.array([False, True])]),
    ):
        expected = _results(_fresh(estimator_orig), X, y)
        for labels in kinds:
            _assert_labels(name, estimator_orig, X, y, labels, expected)


def check_read_only_and_strided_input(
    name: str, estimator_orig: Any, data: Data | None = None
) -> None:
    """Check that the memory behind X makes no difference and brings no warning."""
    X, y = _get_data(data)
    expected, usual = _results_and_warnings(_fresh(estimator_orig), X, y)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for what, rows in _memory_layouts(X, Path(folder)):
            estimator = _fresh(estimator_orig)
            with _must_work(name, f"with {what}"):
                results, messages = _results_and_warnings(estimator, rows, y)
            _assert_same(name, estimator, results, expected, f"with {what}")
            new = [message for message in messages if message not in usual]
            if new:
                raise AssertionError(f"{name} warns with {what}: {new[0]}")


def check_input_untouched(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that X keeps its values, also where a network inside writes to its input."""
    X, y = _get_data(data)
    for dtype in (np.float32, np.float64):  # a network of one of the two might share memory
        estimator, rows = _fresh(estimator_orig), X.astype(dtype)
        with ExitStack() as hooks, _must_work(name, "with a network that writes to its input"):
            for method in _fit_then_methods(estimator):
                for module in _modules(estimator):  # some are there after fit only
                    hooks.callback(module.register_forward_pre_hook(_write_to_input).remove)
                _call(estimator, method, rows, y)
                if not np.array_equal(rows, X.astype(dtype)):
                    raise AssertionError(f"{method} of {name} changes the values of X.")


def check_batch_size_invariance(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that results do not depend on `batch_size`."""
    X, y = _get_data(data)
    for dtype in (np.float64, np.float32):
        expected = None
        for batch_size in ("auto", 1, 7):
            estimator = _fresh(estimator_orig, {"batch_size": batch_size})
            with _must_work(name, f"with batch_size={batch_size!r}"):
                results = _results(estimator, X.astype(dtype), y)
            expected = results if expected is None else expected
            what = f"with batch_size={batch_size!r} instead of 'auto'"
            _assert_same(name, estimator, results, expected, what)


# --------------------------------------------------------------------------------- errors


def check_nonfinite_row_named(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that NaN and infinity are refused by an error that names the row."""
    X, y = _get_data(data)
    for value in (np.nan, np.inf):
        estimator = _fresh(estimator_orig)
        wrong = _with_bad_row(X, value)
        fit = partial(estimator.fit, wrong, y)
        _assert_refused(name, fit, [f"sample {_BAD_ROW}"], f"fit with {value} in sample {_BAD_ROW}")
        with _must_work(name, "in fit"):
            estimator.fit(X, y)
        for method in _methods(estimator):
            call = partial(_call, estimator, method, wrong, y)
            what = f"{method} with {value} in sample {_BAD_ROW}"
            _assert_refused(name, call, [f"sample {_BAD_ROW}"], what)


def check_n_neighbors_too_large(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that more neighbors than rows are refused by an error with the limit."""
    X, y = _get_data(data)
    estimator = _fresh(estimator_orig, {"n_neighbors": len(X) + 1})
    words = ["n_neighbors", str(len(X) + 1), str(len(X))]
    what = f"n_neighbors={len(X) + 1} with {len(X)} training rows"
    _assert_refused(name, partial(_results, estimator, X, y), words, what)


def check_unknown_device(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that a device which does not exist is refused by an error that names it."""
    X, y = _get_data(data)
    for device in ("cuda:99", "no-such-device"):
        estimator = _fresh(estimator_orig, {"device": device})
        call = partial(_results, estimator, X, y)
        _assert_refused(name, call, ["device", device], f"device={device!r}")


# ------------------------------------------------------------------- running an estimator


def _get_data(data: Data | None) -> tuple[NDArray[Any], NDArray[Any]]:
    if data is None:
        rng = np.random.default_rng(0)
        y = rng.permutation(np.repeat([0, 1, 2], [13, 10, 7]))
        return 3 * np.eye(3, 4)[y] + rng.normal(size=(len(y), 4)), y
    return np.array(data[0], dtype=np.float64, order="C"), np.asarray(data[1])


def _fresh(estimator_orig: Any, params: dict[str, Any] | None = None) -> Any:
    """Clone, set parameters, and seed the clone and the estimators inside it."""
    estimator = clone(estimator_orig)
    seeds = [p for p in estimator.get_params() if re.search("(^|__)random_state$", p)]
    return estimator.set_params(**dict.fromkeys(seeds, 0), **(params or {}))


def _methods(estimator: Any) -> list[str]:
    """Name what gives results: asked after fit, because some methods appear with it."""
    names = ("fit_resample",) if hasattr(estimator, "fit_resample") else _METHODS
    return [name for name in names if hasattr(estimator, name)]


def _fit_then_methods(estimator: Any) -> Iterator[str]:
    yield "fit"
    yield from _methods(estimator)


def _call(estimator: Any, method: str, X: Any, y: Any) -> Any:
    arguments = (X, y) if method in ("fit", "fit_resample") else (X,)
    return getattr(estimator, method)(*arguments)


def _outputs(estimator: Any, X: Any, y: Any) -> Arrays:
    """Call every method of a fitted estimator; an item of a tuple counts by itself."""
    arrays = {}
    for method in _methods(estimator):
        result = _call(estimator, method, X, y)
        if isinstance(result, tuple):
            arrays.update({f"{method}[{i}]": _to_array(item) for i, item in enumerate(result)})
        else:
            arrays[method] = _to_array(result)
    return arrays


def _results(estimator: Any, X: Any, y: Any) -> Arrays:
    estimator.fit(X, y)
    return _outputs(estimator, X, y)


def _results_and_warnings(estimator: Any, X: Any, y: Any) -> tuple[Arrays, list[str]]:
    always = torch.is_warn_always_enabled()  # else torch says a thing once in a process
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results = _results(estimator, X, y)
    finally:
        torch.set_warn_always(always)
    return results, [str(warning.message) for warning in caught]


def _call_and_ignore_errors(estimator: Any, X: Any, y: Any) -> None:
    for method in (*_methods(estimator), "fit"):  # fit last: it may leave nothing to call
        with suppress(Exception):
            _call(estimator, method, X, y)


def _to_array(result: Any) -> NDArray[Any]:
    if isinstance(result, torch.Tensor):
        result = result.detach().cpu()
    return np.asarray(result.toarray() if sparse.issparse(result) else result)


# -------------------------------------------------------------------- looking into things


def _walk(value: Any) -> Iterator[Any]:
    """Yield an estimator, its parameters, and the fitted models inside it, at any depth."""
    yield value
    inside: Iterable[Any] = ()
    if isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, (list, tuple)):
        inside = value
    elif hasattr(value, "get_params") and not isinstance(value, type):
        fitted = [getattr(value, name, None) for name in ("module_", "estimator_")]
        inside = [*value.get_params(deep=False).values(), *fitted]
    for item in inside:
        yield from _walk(item)


def _modules(estimator: Any) -> list[torch.nn.Module]:
    found = (held for held in _walk(estimator) if isinstance(held, torch.nn.Module))
    return list({id(module): module for module in found}.values())


class _DevicePickler(pickle.Pickler):
    """Pickles as usual, and notes the devices of all that the pickle holds."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.devices: set[str] = set()

    def persistent_id(self, obj: Any) -> None:
        if isinstance(obj, (torch.Tensor, torch.UntypedStorage, torch.Generator)):
            self.devices.add(obj.device.type)


def _rng_state() -> dict[str, bytes]:
    state = {
        "numpy": pickle.dumps(np.random.get_state()),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
    for i in range(torch.cuda.device_count()):
        state[f"torch on cuda:{i}"] = torch.cuda.get_rng_state(i).numpy().tobytes()
    return state


@contextmanager
def _restored_rng() -> Iterator[None]:
    state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        np.random.set_state(state)


def _module_state(modules: list[torch.nn.Module]) -> dict[str, Any]:
    """Say all that a user may have set in networks, by what it is."""
    state: dict[str, Any] = {}
    for module in modules:
        for path, part in module.named_modules():
            where = f"{type(part).__name__} {path!r}"
            state[f"training flag of {where}"] = part.training
            hooks = [v for k, v in vars(part).items() if "hooks" in k and isinstance(v, dict)]
            state[f"number of hooks of {where}"] = [len(hook) for hook in hooks]
        for path, tensor in [*module.named_parameters(), *module.named_buffers()]:
            state[f"requires_grad of {path}"] = tensor.requires_grad
            state[f"device or dtype of {path}"] = (tensor.device, tensor.dtype)
            state[f"values of {path}"] = _to_bytes(tensor)
            state[f"gradient of {path}"] = None if tensor.grad is None else _to_bytes(tensor.grad)
    return state


def _to_bytes(tensor: torch.Tensor) -> bytes:
    if tensor.is_meta:
        return b""
    return tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()


@contextmanager
def _unusual_flags(modules: list[torch.nn.Module]) -> Iterator[None]:
    """Mix the flags of networks, so that one which is not put back shows."""
    parts = [part for module in modules for part in module.modules()]
    weights = [w for module in modules for w in module.parameters() if w.is_floating_point()]
    training = [part.training for part in parts]
    gradients = [(weight.requires_grad, weight.grad) for weight in weights]
    try:
        for i, part in enumerate(parts):
            part.training = i % 2 == 0
        for i, weight in enumerate(weights):
            weight.requires_grad_(i % 2 == 0)
            weight.grad = torch.ones_like(weight)
        yield
    finally:
        for part, flag in zip(parts, training, strict=True):
            part.training = flag
        for weight, (flag, gradient) in zip(weights, gradients, strict=True):
            weight.requires_grad_(flag)
            weight.grad = gradient


@contextmanager
def _interrupted(module: torch.nn.Module) -> Iterator[None]:
    """Make a network fail after its first layer."""
    layer = next(part for part in module.modules() if not list(part.children()))
    hook = layer.register_forward_hook(_interrupt)
    try:
        yield
    finally:
        hook.remove()


def _interrupt(module: torch.nn.Module, args: Any, output: Any) -> None:
    raise RuntimeError("interrupted by check_module_untouched")


def _write_to_input(module: torch.nn.Module, args: Any) -> None:
    args[0].add_(1)


# -------------------------------------------------------------------------------- inputs


def _with_bad_row(X: NDArray[Any], value: float) -> NDArray[Any]:
    X = X.copy()
    X.reshape(len(X), -1)[_BAD_ROW, 0] = value
    return X


def _memory_layouts(X: NDArray[Any], folder: Path) -> Iterator[tuple[str, Any]]:
    read_only = X.copy()
    read_only.flags.writeable = False
    np.save(folder / "X.npy", X)
    yield "a read-only array", read_only
    yield "a memory map", np.load(folder / "X.npy", mmap_mode="r")
    yield "negative strides", X[::-1, ::-1].copy()[::-1, ::-1]
    yield "every other row of an array", np.repeat(X, 2, axis=0)[::2]
    yield "Fortran order", np.asfortranarray(X)
    yield "a tensor", torch.tensor(X)
    yield "a tensor that requires gradients", torch.tensor(X, requires_grad=True)


# ----------------------------------------------------------------------------- assertions


@contextmanager
def _must_work(name: str, what: str) -> Iterator[None]:
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{name} fails {what}: {type(error).__name__}: {error}") from error


def _assert_refused(name: str, call: Callable[[], Any], words: list[str], what: str) -> None:
    try:
        call()
    except ValueError as error:
        missing = [w for w in words if not re.search(rf"(?<!\w){re.escape(w)}(?!\w)", str(error))]
        if missing:
            raise AssertionError(
                f"{name} refuses {what}, but its message does not say {missing}: {error}"
            ) from error
    except Exception as error:
        raise AssertionError(
            f"{name} answers {what} with {type(error).__name__}, not ValueError: {error}"
        ) from error
    else:
        raise AssertionError(f"{name} accepts {what}; it must raise a ValueError.")


def _tolerance(estimator: Any, array: NDArray[Any]) -> float:
    """Half the digits of the least precise arithmetic that takes part."""
    weights = [w for module in _modules(estimator) for w in module.parameters()]
    eps = [torch.finfo(w.dtype).eps for w in weights if w.is_floating_point()]
    return float(np.sqrt(max(eps + [float(np.finfo(array.dtype).eps)])))


def _difference(estimator: Any, results: Arrays, expected: Arrays) -> str:
    """Say where two results differ by more than rounding ("" for nowhere)."""
    if results.keys() != expected.keys():
        return f"methods {sorted(results)} instead of {sorted(expected)}"
    for method, want in expected.items():
        got = results[method]
        if got.shape != want.shape:
            return f"{method} has shape {got.shape} instead of {want.shape}"
        if want.dtype.kind == "f":
            tolerance = _tolerance(estimator, want)
            scale = np.abs(want[np.isfinite(want)]).max(initial=0)
            same = np.isclose(got, want, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
        else:
            same = np.asarray(got == want)
        if not same.all():
            return f"{method} differs in {np.sum(~same)} of {same.size} values"
    return ""


def _assert_same(name: str, estimator: Any, results: Arrays, expected: Arrays, what: str) -> None:
    difference = _difference(estimator, results, expected)
    if difference:
        raise AssertionError(f"{name} gives other results {what}: {difference}.")


def _assert_equal_params(name: str, params: dict[str, Any], cloned: dict[str, Any]) -> None:
    if params.keys() != cloned.keys():
        raise AssertionError(f"A clone of {name} has other parameters: {sorted(cloned)}.")
    for key, value in params.items():
        plain = isinstance(value, (str, bool, int, float, type(None)))
        if type(cloned[key]) is not type(value) or (plain and repr(cloned[key]) != repr(value)):
            raise AssertionError(f"A clone of {name} has {key}={cloned[key]!r}, not {value!r}.")


def _assert_labels(
    name: str,
    estimator_orig: Any,
    X: NDArray[Any],
    codes: NDArray[Any],
    labels: NDArray[Any],
    expected: Arrays,
) -> None:
    """Sorted labels must give what their codes give."""
    expected = {**expected, "predict": labels[expected["predict"]]}
    estimator = _fresh(estimator_orig)
    what = f"with labels {labels.tolist()}"
    with _must_work(name, what):
        results = _results(estimator, X, labels[codes])
    if not np.array_equal(estimator.classes_, labels):
        raise AssertionError(f"{name} {what} has classes_ {estimator.classes_}, not sorted.")
    if results["predict"].dtype.kind != np.asarray(estimator.classes_).dtype.kind:
        raise AssertionError(f"{name} {what} predicts {results['predict'].dtype}, not classes_.")
    _assert_same(name, estimator, results, expected, f"{what} than with their codes")


def _assert_untouched(
    name: str, modules: list[torch.nn.Module], before: dict[str, Any], what: str
) -> None:
    after = _module_state(modules)
    changed = [k for k in before.keys() | after.keys() if before.get(k) != after.get(k)]
    if changed:
        raise AssertionError(f"In {name} {what} changes the {min(changed)} of the network.")
