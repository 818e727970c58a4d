"""Every check passes for sound estimators and fails for one that is broken in its way."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from skboundary._batching import map_batches, resolve_batch_size
from skboundary._device import resolve_device, resolve_dtype, to_numpy, to_tensor
from skboundary._random import draw_seed
from skboundary._validation import check_input
from skboundary.utils import estimator_checks as checks


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads of torch only wait for each other with thirty rows."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


# ---------------------------------------------------------------------- sound estimators


class TorchEstimator(BaseEstimator):
    """What the reference estimators share: parameters, and batches through `_forward`."""

    def __init__(self, *, device="auto", batch_size="auto", random_state=None):
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state

    def _begin_fit(self, X):
        X = check_input(self, X, reset=True)
        self.device_ = resolve_device(self.device)
        return X, self._tensor(X)

    def _tensor(self, X):
        return to_tensor(X, device=self.device_, dtype=resolve_dtype(X, self.device_))

    def _map(self, forward, X):
        check_is_fitted(self)
        X = check_input(self, X, reset=False)
        size = resolve_batch_size(self.batch_size, X[:1].nbytes, self.device_)
        outputs = map_batches(lambda rows: forward(self._tensor(X[rows])), len(X), size)
        return to_numpy(torch.cat(list(outputs)))


class Centroids(ClassifierMixin, TorchEstimator):
    """Nearest class mean."""

    def fit(self, X, y):
        X, rows = self._begin_fit(X)
        self.classes_, codes = np.unique(y, return_inverse=True)
        draw_seed(self.random_state)
        self._means = torch.stack([rows[codes == c].mean(0) for c in range(len(self.classes_))])
        self._means = self._means.cpu()
        return self

    def _forward(self, rows):
        means = self._means.to(rows)
        distances = (rows[:, None] - means).flatten(2).norm(dim=2)
        return torch.softmax(-distances / (1 + means.abs().max()), dim=1)

    def predict_proba(self, X):
        return self._map(self._forward, X)

    def predict(self, X):
        proba = self.predict_proba(X)
        return self.classes_[proba.argmax(axis=1)]


class Projection(TransformerMixin, TorchEstimator):
    """Random directions."""

    def fit(self, X, y=None):
        X, rows = self._begin_fit(X)
        generator = torch.Generator().manual_seed(draw_seed(self.random_state))
        size = (rows[0].numel(), 2)
        self._directions = torch.randn(size, generator=generator, dtype=torch.float64)
        return self

    def transform(self, X):
        return self._map(lambda rows: rows.flatten(1) @ self._directions.to(rows), X)


class Neighbors(TorchEstimator):
    """Exact neighbors."""

    def __init__(self, n_neighbors=3, *, metric="euclidean", device="auto", batch_size="auto"):
        super().__init__(device=device, batch_size=batch_size)
        self.n_neighbors = n_neighbors
        self.metric = metric

    def fit(self, X, y=None):
        X, rows = self._begin_fit(X)
        if self.n_neighbors > len(X):
            raise ValueError(f"n_neighbors={self.n_neighbors} exceeds the {len(X)} rows.")
        self._rows = rows.cpu()
        return self

    def _distances(self, rows):
        return (rows[:, None] - self._rows.to(rows)).flatten(2).norm(dim=2)

    def kneighbors(self, X):
        distances = self._map(self._distances, X)
        order = distances.argsort(axis=1, kind="stable")[:, : self.n_neighbors]
        return np.take_along_axis(distances, order, axis=1), order


class Sampler(TorchEstimator):
    """Repeats rows with noise until the classes are equally large."""

    def fit(self, X, y):
        self._begin_fit(X)
        return self

    def fit_resample(self, X, y):
        X, rows = self._begin_fit(X)
        generator = torch.Generator().manual_seed(draw_seed(self.random_state))
        classes, counts = np.unique(y, return_counts=True)
        new = [np.resize(np.flatnonzero(y == c), max(counts) - n) for c, n in zip(classes, counts)]
        new = np.concatenate(new)
        noise = torch.randn(rows[new].shape, generator=generator, dtype=torch.float64)
        made = rows[new] + noise.to(rows)
        return to_numpy(torch.cat([rows, made])), np.concatenate([y, y[new]])


class Network(ClassifierMixin, TorchEstimator):
    """Predicts with a trained module, in its dtype."""

    def __init__(self, estimator, *, device="auto", batch_size="auto", random_state=None):
        super().__init__(device=device, batch_size=batch_size, random_state=random_state)
        self.estimator = estimator

    def fit(self, X, y=None):
        X, rows = self._begin_fit(X)
        self.device_ = next(self.estimator.parameters()).device
        self.classes_ = np.arange(self._forward(rows[:1]).shape[1])
        return self

    def _forward(self, rows):
        flags = {part: part.training for part in self.estimator.modules()}
        try:
            self.estimator.eval()
            with torch.no_grad():
                return self._logits(rows)
        finally:
            for part, flag in flags.items():
                part.training = flag

    def _logits(self, rows):
        return self.estimator(rows.to(torch.float32, copy=True))

    def predict_proba(self, X):
        return self._map(lambda rows: torch.softmax(self._forward(rows), dim=1), X)

    def predict(self, X):
        proba = self.predict_proba(X)
        return self.classes_[proba.argmax(axis=1)]


def make_module():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        linear = torch.nn.Linear(4, 5)
        return torch.nn.Sequential(
            linear, torch.nn.BatchNorm1d(5), torch.nn.ReLU(), torch.nn.Linear(5, 3)
        ).eval()


def make_images():
    """Images of two classes, and a convolutional network for them."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat([0, 1], [18, 12]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten()]
        module = torch.nn.Sequential(*layers, torch.nn.Linear(8, 2))
    return (y[:, None, None, None] + rng.normal(size=(30, 1, 4, 4)), y), module


IMAGES, CONVOLUTION = make_images()

SOUND = [
    *checks.estimator_checks_generator(Centroids()),
    *checks.estimator_checks_generator(Projection()),
    *checks.estimator_checks_generator(Neighbors()),
    *checks.estimator_checks_generator(Sampler()),
    *checks.estimator_checks_generator(Network(make_module())),
    *checks.estimator_checks_generator(Centroids(), data=IMAGES),
    *checks.estimator_checks_generator(Projection(), data=IMAGES),
    *checks.estimator_checks_generator(Neighbors(), data=IMAGES),
    *checks.estimator_checks_generator(Network(CONVOLUTION), data=IMAGES),
]


@pytest.mark.parametrize(("estimator", "check"), SOUND)
def test_sound_estimators_pass(estimator, check):
    check(estimator)


# --------------------------------------------------------------------- broken estimators


class SeedsTorch(Centroids):
    def fit(self, X, y):
        torch.manual_seed(0)
        return super().fit(X, y)


class DrawsFromNumpyInPredict(Centroids):
    def predict(self, X):
        np.random.permutation(3)
        return super().predict(X)


class StandardizesBatches(Centroids):
    def _forward(self, rows):
        return super()._forward(rows - rows.mean(0))


class WritesDeviceBack(Centroids):
    def fit(self, X, y):
        self.device = resolve_device(self.device)
        return super().fit(X, y)


class ForgetsDevice(Sampler):
    def fit_resample(self, X, y):
        resampled = super().fit_resample(X, y)
        self.device_ = str(self.device_)
        return resampled


class KeepsIntegers(Centroids):
    def _tensor(self, X):  # torch takes no mean of integers
        return to_tensor(X, device=self.device_)


class OverflowsBytes(Projection):
    def _tensor(self, X):
        return super()._tensor(X + X)


class DividesByNorm(Projection):
    def transform(self, X):
        return self._map(lambda rows: rows.flatten(1) / rows.flatten(1).norm(dim=1)[:, None], X)


class RefusesDuplicates(Neighbors):
    def fit(self, X, y=None):
        super().fit(X)
        if len(self._rows.unique(dim=0)) < len(self._rows):
            raise ValueError("Give no row twice.")
        return self


class ReturnsFloat64(Neighbors):
    def kneighbors(self, X):
        distances, indices = super().kneighbors(X)
        return distances.astype(np.float64), indices


class SwapsColumnsOfStrings(Centroids):
    def predict_proba(self, X):
        proba = super().predict_proba(X)
        return proba if self.classes_.dtype.kind in "ib" else proba[:, ::-1]

    def predict(self, X):
        proba = Centroids.predict_proba(self, X)
        return self.classes_[proba.argmax(axis=1)]


class PredictsCodes(Centroids):
    def predict(self, X):
        return self.predict_proba(X).argmax(axis=1)


class PredictsIntegersForBooleans(Centroids):
    def predict(self, X):
        predictions = super().predict(X)
        return predictions.astype(int) if predictions.dtype == bool else predictions


class ClassesAsTheyAppear(Centroids):
    def fit(self, X, y):
        super().fit(X, y)
        seen = [np.flatnonzero(y == c)[0] for c in self.classes_]
        order = np.argsort(seen) if y.dtype.kind != "i" else np.arange(len(seen))
        self.classes_, self._means = self.classes_[order], self._means[order]
        return self


class PicklesAnotherDevice(Projection):
    def fit(self, X, y=None):
        super().fit(X)
        self._state = {"cache": [torch.empty(2, device="meta")]}
        return self


class ForgetsWhenPickled(Projection):
    def __setstate__(self, state):
        super().__setstate__(state)
        if hasattr(self, "_directions"):
            self._directions = -self._directions


class CannotBePickled(Projection):
    def fit(self, X, y=None):
        super().fit(X)
        self._activation = lambda x: x
        return self


class ClonesToDefaults(Projection):
    def __sklearn_clone__(self):
        return type(self)()


class ScoresFail(Centroids):
    def score(self, X, y):
        raise NotImplementedError("no score")


class RefusesWithoutRow(Centroids):
    def fit(self, X, y):
        with refused_as(ValueError("X is not finite."), only="in row"):
            return super().fit(X, y)


class PredictsNaN(Projection):
    def transform(self, X):
        rows = X.detach().numpy() if isinstance(X, torch.Tensor) else X
        return super().transform(np.nan_to_num(rows))


class ClampsNeighbors(Neighbors):
    def fit(self, X, y=None):
        asked, self.n_neighbors = self.n_neighbors, min(self.n_neighbors, len(X))
        super().fit(X)
        self.n_neighbors = asked
        return self


class FailsInTopK(Neighbors):
    def fit(self, X, y=None):
        if self.n_neighbors > len(X):
            raise RuntimeError("selected index k out of range")
        return super().fit(X)


class WarnsAboutReadOnly(Projection):
    def _tensor(self, X):
        torch.from_numpy(np.ascontiguousarray(X))
        return super()._tensor(X)


class WarnsAboutOrder(Projection):
    def fit(self, X, y=None):
        if isinstance(X, np.ndarray) and not X.flags.c_contiguous:
            warnings.warn("X is copied", stacklevel=2)
        return super().fit(X)


class IgnoresStrides(Projection):
    def _tensor(self, X):
        return super()._tensor(X if X.flags.c_contiguous else np.ravel(X, "K").reshape(X.shape))


class SharesMemory(Network):
    def _logits(self, rows):
        return self.estimator(rows.float())


class RoundsUp(Projection):
    def transform(self, X):
        result = super().transform(X)
        if isinstance(X, np.ndarray) and X.flags.writeable and X.dtype.kind == "f":
            np.nextafter(X, np.inf, out=X)
        return result


class UsesAnotherDevice(Centroids):
    def _begin_fit(self, X):
        asked, self.device = self.device, "cpu"
        result = super()._begin_fit(X)
        self.device = asked
        return result


class HidesDevice(Centroids):
    def _begin_fit(self, X):
        with refused_as(ValueError("There is no such accelerator."), only="not available"):
            return super()._begin_fit(X)


class LeavesEval(Network):
    def _forward(self, rows):
        self.estimator.eval()
        with torch.no_grad():
            return self._logits(rows)


class LeavesEvalAfterAnError(Network):
    def _forward(self, rows):
        if len(rows) == 1:  # in fit all is well
            return super()._forward(rows)
        flags = {part: part.training for part in self.estimator.modules()}
        self.estimator.eval()
        with torch.no_grad():
            logits = self._logits(rows)
        for part, flag in flags.items():
            part.training = flag
        return logits


class LeavesEvalAfterWrongRows(Network):
    def predict(self, X):
        flags = {part: part.training for part in self.estimator.modules()}
        self.estimator.eval()
        predictions = super().predict(X)
        for part, flag in flags.items():
            part.training = flag
        return predictions


class Freezes(Network):
    def _logits(self, rows):
        self.estimator.requires_grad_(False)
        return super()._logits(rows)


class ClearsGradients(Network):
    def _logits(self, rows):
        self.estimator.zero_grad()
        return super()._logits(rows)


class AddsGradients(Network):
    def _logits(self, rows):
        with torch.enable_grad():
            super()._logits(rows).sum().backward()
        return super()._logits(rows)


class ChangesWeights(Network):
    def _logits(self, rows):
        self.estimator[0].weight += 1e-6
        return super()._logits(rows)


class ChangesBuffers(Network):
    def _logits(self, rows):
        self.estimator[1].num_batches_tracked += 1
        return super()._logits(rows)


class LeavesHooks(Network):
    def _logits(self, rows):
        self.estimator[0].register_forward_hook(do_nothing)
        return super()._logits(rows)


class ChangesDtype(Network):
    def _logits(self, rows):
        return self.estimator.double()(rows.to(torch.float64, copy=True)).float()


def do_nothing(module, args, output):
    return None


class refused_as:
    """Replace a ValueError by another one."""

    def __init__(self, error, only):
        self.error, self.only = error, only

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if kind is not None and issubclass(kind, ValueError) and self.only in str(value):
            raise self.error


BROKEN = [
    (checks.check_no_global_rng_use, SeedsTorch(), "fit of .* random state of torch"),
    (checks.check_no_global_rng_use, DrawsFromNumpyInPredict(), "predict of .* state of numpy"),
    (checks.check_batch_size_invariance, StandardizesBatches(), "other results with batch_size=1"),
    (checks.check_parameters_not_written_back, WritesDeviceBack(), "its parameters device"),
    (checks.check_parameters_not_written_back, ForgetsDevice(), "no `device_`"),
    (checks.check_integer_input, KeepsIntegers(), "fails with uint8 rows: RuntimeError"),
    (checks.check_integer_input, OverflowsBytes(), "other results for uint8 rows"),
    (checks.check_duplicates_and_zero_rows, DividesByNorm(), "transform .* is not finite"),
    (checks.check_duplicates_and_zero_rows, RefusesDuplicates(), "no row twice"),
    (checks.check_float32_preserved, ReturnsFloat64(), r"kneighbors\[0\] .* gives float64"),
    (checks.check_string_labels, PredictsCodes(), "predicts int64, not classes_"),
    (checks.check_string_labels, PredictsIntegersForBooleans(), "predicts int64, not classes_"),
    (checks.check_string_labels, ClassesAsTheyAppear(), "classes_ .*, not sorted"),
    (checks.check_string_labels, SwapsColumnsOfStrings(), "predict_proba differs"),
    (checks.check_pickle_holds_cpu_tensors, PicklesAnotherDevice(), "holds tensors on meta"),
    (checks.check_pickle_holds_cpu_tensors, ForgetsWhenPickled(), "after being pickled"),
    (checks.check_pickle_holds_cpu_tensors, CannotBePickled(), "fails to be pickled"),
    (checks.check_clone_and_grid_search, ClonesToDefaults(), "random_state=None, not 0"),
    (checks.check_clone_and_grid_search, ScoresFail(), "in a grid search .*: no score"),
    (checks.check_nonfinite_row_named, RefusesWithoutRow(), r"does not say \['sample 7'\]"),
    (checks.check_nonfinite_row_named, PredictsNaN(), "accepts transform with nan in sample 7"),
    (checks.check_n_neighbors_too_large, ClampsNeighbors(), "accepts n_neighbors=31"),
    (checks.check_n_neighbors_too_large, FailsInTopK(), "RuntimeError, not ValueError"),
    (checks.check_read_only_and_strided_input, WarnsAboutReadOnly(), "warns with a read-only"),
    (checks.check_read_only_and_strided_input, WarnsAboutOrder(), "warns with negative strides"),
    (checks.check_read_only_and_strided_input, IgnoresStrides(), "results with Fortran order"),
    (checks.check_input_untouched, SharesMemory(make_module()), "fit of .* the values of X"),
    (checks.check_input_untouched, RoundsUp(), "transform of RoundsUp changes the values of X"),
    (checks.check_unknown_device, UsesAnotherDevice(), "accepts device='cuda:99'"),
    (checks.check_unknown_device, HidesDevice(), "does not say .*cuda:99"),
    (checks.check_module_untouched, LeavesEval(make_module()), "predict changes the training"),
    (checks.check_module_untouched, LeavesEvalAfterAnError(make_module()), "half-way .* training"),
    (checks.check_module_untouched, LeavesEvalAfterWrongRows(make_module()), "wrong rows changes"),
    (checks.check_module_untouched, Freezes(make_module()), "requires_grad of"),
    (checks.check_module_untouched, ClearsGradients(make_module()), "gradient of"),
    (checks.check_module_untouched, AddsGradients(make_module()), "gradient of"),
    (checks.check_module_untouched, ChangesWeights(make_module()), "values of 0.weight"),
    (checks.check_module_untouched, ChangesBuffers(make_module()), "values of 1.num_batches"),
    (checks.check_module_untouched, LeavesHooks(make_module()), "number of hooks of Linear '0'"),
    (checks.check_module_untouched, ChangesDtype(make_module()), "device or dtype of"),
]


BROKEN_IDS = [f"{check.__name__}-{type(estimator).__name__}" for check, estimator, _ in BROKEN]


@pytest.mark.parametrize(("check", "estimator", "message"), BROKEN, ids=BROKEN_IDS)
def test_check_fails_for_a_broken_estimator(check, estimator, message):
    with pytest.raises(AssertionError, match=message):
        check(type(estimator).__name__, estimator)


@pytest.mark.parametrize(("broken", "estimator", "message"), BROKEN, ids=BROKEN_IDS)
def test_the_other_checks_pass_for_a_broken_estimator(broken, estimator, message):
    for _, check in checks.estimator_checks_generator(estimator):
        if check.__name__ != broken.__name__:
            check(estimator)


def test_every_check_has_a_broken_estimator():
    defined = {name for name in checks.__all__ if name.startswith("check_")}
    assert defined == {name for name in vars(checks) if name.startswith("check_")}
    assert defined == {check.__name__ for check, _, _ in BROKEN}
    assert defined == {check.__name__ for _, check in SOUND}


# -------------------------------------------------------------------------- the generator


@pytest.mark.parametrize(
    ("estimator", "check", "applies"),
    [
        (LogisticRegression(), checks.check_batch_size_invariance, False),
        (LogisticRegression(), checks.check_unknown_device, False),
        (LogisticRegression(), checks.check_n_neighbors_too_large, False),
        (LogisticRegression(), checks.check_module_untouched, False),
        (LogisticRegression(), checks.check_string_labels, True),
        (FrozenEstimator(LogisticRegression()), checks.check_string_labels, False),
        (Network(make_module()), checks.check_string_labels, False),
        (Network(make_module()), checks.check_module_untouched, True),
        (Network(Network(make_module())), checks.check_module_untouched, True),
        (Projection(), checks.check_string_labels, False),
        (Neighbors(), checks.check_n_neighbors_too_large, True),
    ],
)
def test_only_checks_that_apply_are_yielded(estimator, check, applies):
    assert (check in checks.yield_checks(estimator)) is applies


def test_fixed_classes_can_be_told():
    assert checks.check_string_labels not in checks.yield_checks(Centroids(), fixed_classes=True)
    told = checks.yield_checks(Network(make_module()), fixed_classes=False)
    assert checks.check_string_labels in told


def test_generator_gives_ids_and_leaves_the_estimator_alone():
    estimator = Centroids()
    pairs = list(checks.estimator_checks_generator(estimator))
    assert all(same is estimator for same, _ in pairs)
    assert [check.__name__ for _, check in pairs] == [
        check.__name__ for check in checks.yield_checks(estimator)
    ]
    assert not hasattr(estimator, "classes_")


def test_module_can_be_given():
    module = make_module()
    checks.check_module_untouched("Network", Network(module), module)
    broken = ChangesWeights(module)
    with pytest.raises(AssertionError, match="values of 0.weight"):
        checks.check_module_untouched("ChangesWeights", broken, module)


def test_module_check_puts_its_own_changes_back():
    module = make_module()
    checks.check_module_untouched("Network", Network(module), module)
    assert not any(part.training for part in module.modules())
    assert all(weight.requires_grad and weight.grad is None for weight in module.parameters())
    assert not module[0]._forward_hooks


def test_rng_check_leaves_no_trace_itself():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1]
    checks.check_no_global_rng_use("Centroids", Centroids())
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
