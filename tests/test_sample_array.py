"""Containers outside of memory: read by slices, with the results of an array."""

import pickle

import numpy as np
import pytest
import torch
from joblib._memmapping_reducer import _get_backing_memmap
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

import skboundary.io
from skboundary import (
    BiasedExtrapolationClassifier,
    BiasedExtrapolationSampler,
    BoundaryCharacterizer,
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
    LatentTransformer,
    SubspaceMargins,
    TorchNearestNeighbors,
    _sample_array,
)
from skboundary._part_array import PartArray
from skboundary._sample_array import SampleArray
from skboundary._validation import check_input
from skboundary.boundary import _boundary_search
from skboundary.boundary._subspaces import _principal_components
from skboundary.exceptions import BoundaryNotFoundWarning, SeenSamplesWarning
from skboundary.functional.subspaces import pca_components
from skboundary.networks._sample_store import sample_keys


class Slices:
    """The least that a container has: shape, dtype and slices of samples."""

    def __init__(self, array, chunks=None):
        self.array, self.shape, self.dtype, self.reads = array, array.shape, array.dtype, []
        if chunks is not None:
            self.chunks = chunks

    def __getitem__(self, key):
        assert isinstance(key, slice) and key.step is None
        assert 0 <= key.start < key.stop <= len(self.array)
        self.reads.append((key.start, key.stop))
        return self.array[key]


class Host(BaseEstimator):
    pass


class Mapped(np.memmap):
    pass


def h5(array, folder):
    file = pytest.importorskip("h5py").File(folder / "X.h5", "w")
    return file.create_dataset("X", data=array, chunks=(7, *array.shape[1:]))


def h5_contiguous(array, folder):
    return pytest.importorskip("h5py").File(folder / "X.h5", "w").create_dataset("X", data=array)


def zarr(array, folder):
    zarr = pytest.importorskip("zarr")
    chunks = (11, *array.shape[1:])
    stored = zarr.create_array(folder / "X", shape=array.shape, dtype=array.dtype, chunks=chunks)
    stored[:] = array
    return stored


def dask(array, folder):
    return pytest.importorskip("dask.array").from_array(array, chunks=(13, *array.shape[1:]))


def mapped(array, folder):
    np.save(folder / "X.npy", array)
    return np.load(folder / "X.npy", mmap_mode="r").view(Mapped)


def parts(array, folder):
    files = [folder / f"{i}.npy" for i in range(3)]
    ends = [20, 31, len(array)]
    for file, start, end in zip(files, [0, 20, 31], ends, strict=True):
        np.save(file, array[start:end])
    return PartArray(files, ends, array.dtype, array.shape[1:])


KINDS = {
    "slices": lambda array, folder: Slices(array),
    "chunks": lambda array, folder: Slices(array, (9, *array.shape[1:])),
    "memory map": mapped,
    "h5py": h5,
    "h5py without chunks": h5_contiguous,
    "zarr": zarr,
    "dask": dask,
    "parts of a bank": parts,
}


@pytest.fixture(params=KINDS)
def kind(request, tmp_path):
    return lambda array: KINDS[request.param](array, tmp_path)


@pytest.mark.parametrize("dtype", ["f4", "f8", "u1", ">f4"])
@pytest.mark.parametrize("shape", [(50, 3), (50, 1, 4, 4)])
def test_every_selection_equals_that_of_the_array(kind, shape, dtype):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 200, shape).astype(dtype)
    X = check_input(Host(), kind(array), reset=True)
    assert X.shape == shape and X.dtype == array.dtype and len(X) == 50 and X.ndim == len(shape)
    slices = [
        slice(a, b) for a in (None, 0, 9, 20, 49, -3) for b in (None, 0, 9, 21, 27, 50, 60, -1)
    ]
    index = rng.integers(0, 50, 70)
    keys = [*slices, slice(None, None, 3), slice(None, None, -1), index, np.sort(index), index[:0]]
    for key in [*keys, index - 50, np.arange(50) % 3 == 0]:
        np.testing.assert_array_equal(X[key], array[key])
        np.testing.assert_array_equal(X[key, ...], array[key])
    np.testing.assert_array_equal(np.asarray(X), array)
    assert np.asarray(X, np.float64).dtype == np.float64
    assert sample_keys(X) == sample_keys(array)
    part = X[3:9]
    assert part.dtype == array.dtype and isinstance(part, np.ndarray)


def test_reads_overlap_no_more_than_they_must(monkeypatch):
    array = np.arange(3000.0).reshape(1000, 3)
    chunked = Slices(array, (100, 3))
    X = SampleArray(chunked)
    for start in range(0, 1000, 30):
        X[start : start + 30]
    assert chunked.reads == [(start, start + 100) for start in range(0, 1000, 100)]
    X[50:950]
    assert chunked.reads[10:] == [(0, 100), (100, 900), (900, 1000)]
    near = Slices(array)
    monkeypatch.setattr(_sample_array, "_TOGETHER", 24 * 10)
    SampleArray(near)[np.array([5, 999, 3, 3, 500])]
    assert near.reads == [(3, 6), (500, 501), (999, 1000)]


def test_an_index_beyond_the_end_is_refused():
    X = SampleArray(Slices(np.zeros((5, 2))))
    for bad in ([5], [-6]):
        with pytest.raises(IndexError, match="of 5 do not exist"):
            X[np.array(bad)]


def test_input_is_validated_block_by_block(monkeypatch):
    monkeypatch.setattr(_sample_array, "BATCH_BYTES", 64)
    array = np.ones((9, 4))
    array[6, 2] = np.nan
    X = Slices(array)
    with pytest.raises(ValueError, match="NaN in sample 6"):
        check_input(Host(), X, reset=True)
    assert max(stop - start for start, stop in X.reads) == 2
    host = Host()
    check_input(host, Slices(np.ones((9, 4))), reset=True)
    assert host.n_features_in_ == 4 and host.input_shape_ == (4,)
    with pytest.raises(ValueError, match="3 features, but Host is expecting 4"):
        check_input(host, Slices(np.ones((9, 3))), reset=False)
    with pytest.raises(ValueError, match="hold no values"):
        check_input(Host(), Slices(np.ones((9, 3, 0))), reset=True)
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        check_input(Host(), dask(np.ones((0, 3)), None), reset=True)


def test_a_container_whose_blocks_contradict_it_is_refused():
    X = Slices(np.ones((9, 4)))
    X.shape = (9, 5)
    with pytest.raises(ValueError, match=r"X\[0:9\] of a Slices of shape \(9, 5\).*\(9, 4\)"):
        check_input(Host(), X, reset=True)
    X = Slices(np.ones((9, 4)))
    X.dtype = np.dtype("f4")
    with pytest.raises(ValueError, match="dtype float32 has the shape .* dtype float64"):
        check_input(Host(), X, reset=True)


def test_unknown_lengths_are_refused():
    da = pytest.importorskip("dask.array")
    x = da.from_array(np.arange(20.0).reshape(10, 2), chunks=(5, 2))
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        check_input(Host(), x[x[:, 0] > 4], reset=True)


def outputs(model, X, y, n_chunk=None):
    """All that an estimator returns for X, as arrays; predictions for so many samples at a time."""
    if isinstance(model, TorchNearestNeighbors):
        return [*model.fit(X).kneighbors(X), *model.kneighbors()]
    if isinstance(model, BiasedExtrapolationSampler):
        return [*model.fit_resample(X, y)]
    if isinstance(model, BoundaryCharacterizer):
        return [*model.fit(X, y, X_test=X, y_test=y).report_.values()]
    model.fit(X, y)
    methods = "transform", "predict_proba", "predict", "score_samples"
    chunks = [X] if n_chunk is None else [X[i : i + n_chunk] for i in range(0, len(y), n_chunk)]
    found = [
        np.concatenate([getattr(model, name)(chunk) for chunk in chunks])
        for name in methods
        if hasattr(model, name)
    ]
    if isinstance(model, BoundarySampleExtractor):
        found += [model.extract_pairs(X, y).outer, model.extract(4).midpoint]
    if isinstance(model, LatentKNNClassifier):
        found += [model.diagnose().purity, model.explain(X).proba]
        with pytest.warns(SeenSamplesWarning):
            found += [model.sweep(X, y)["mean_test_score"]]
    return found


FOREST = RandomForestClassifier(5, random_state=0)
LINEAR = LogisticRegression(max_iter=500)
MODELS = {
    "frozen": lambda net: FrozenNetwork(net),
    "default network": lambda net: LatentTransformer(random_state=0),
    "a classifier to fit": lambda net: LatentTransformer(LINEAR),
    "latent neighbors": lambda net: LatentKNNClassifier(net),
    "a black box": lambda net: LatentKNNClassifier(FOREST),
    "neighbors": lambda net: TorchNearestNeighbors(),
    "minimal": lambda net: BoundarySampleExtractor(net, effort="fast", random_state=0),
    "segment": lambda net: BoundarySampleExtractor(
        FOREST, method="segment", returns="distance", random_state=0
    ),
    "label": lambda net: BoundarySampleExtractor(FOREST, effort=30, bounds=(0, 9), random_state=0),
    "class distances": lambda net: BoundarySampleExtractor(
        net, effort="fast", returns="class_distances", random_state=0
    ),
    "principal components": lambda net: SubspaceMargins(net),
    "margins by labels": lambda net: SubspaceMargins(
        net, method="label", max_iter=2, random_state=0
    ),
    "characterizer": lambda net: BoundaryCharacterizer(
        net, n_samples=5, n_partners=2, warm_start=True, random_state=0
    ),
    "sampler": lambda net: BiasedExtrapolationSampler(random_state=0),
    "iterating": lambda net: BiasedExtrapolationClassifier(net, n_iter=1, random_state=0),
}


@pytest.mark.parametrize("name", MODELS)
def test_estimators_give_the_results_of_an_array(name, iris, mlp):
    X, y = iris[0][:120:2], iris[1][:120:2]
    expected = outputs(MODELS[name](mlp), X, y)
    found = outputs(MODELS[name](mlp), Slices(X, (9, 4)), y)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_integer_images_give_the_results_of_an_array(kind, digits, cnn):
    X, y = (digits[0][:60] * 16).astype(np.uint8), digits[1][:60]
    stored = kind(X)
    scaled = FrozenNetwork(cnn, preprocess=lambda x: x / 16)
    n_chunk = 13 if hasattr(stored, "dask") else None  # its chunks are batches of the network
    for model in LatentKNNClassifier(scaled), SubspaceMargins(scaled, window=8, max_iter=2):
        expected = outputs(model, X, y, n_chunk)
        for a, b in zip(outputs(model, stored, y), expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_networks_and_black_boxes_read_batch_by_batch(cnn, digits):
    flat = digits[0].reshape(600, -1)
    forest = FrozenEstimator(clone(FOREST).fit(flat, digits[1]))
    for model, X in (LatentTransformer(cnn), digits[0]), (LatentTransformer(forest), flat):
        stored = Slices(X)
        model.set_params(batch_size=50).fit(stored).transform(stored)
        batches = [read for read in stored.reads if read != (0, 600)]  # whole: checks of values
        assert max(stop - start for start, stop in batches) == 50
        assert len(stored.reads) - len(batches) == 2


@pytest.mark.parametrize("returns", ["boundary", "perturbation", "distance", "class_distances"])
def test_the_extractor_searches_block_by_block(returns, iris, mlp, monkeypatch, recwarn):
    X = iris[0][:144]  # batches of 16, in blocks of 32 or all at once
    extractor = BoundarySampleExtractor(mlp, effort="fast", returns=returns, batch_size=16).fit(X)
    expected, pairs = extractor.transform(X), extractor.extract_pairs(X)
    usual = [str(warning.message) for warning in recwarn.list]
    recwarn.clear()
    monkeypatch.setattr(_boundary_search, "_BLOCK_BYTES", 32 * 48)
    np.testing.assert_allclose(extractor.transform(X), expected, rtol=1e-9)
    found = extractor.extract_pairs(X)
    for name, values in vars(pairs).items():
        if values is None:  # names of columns
            assert getattr(found, name) is None
        else:
            np.testing.assert_array_equal(getattr(found, name), values)
    assert [str(warning.message) for warning in recwarn.list] == usual


def test_a_failure_in_several_blocks_is_one_warning(iris, mlp, monkeypatch):
    monkeypatch.setattr(_boundary_search, "_BLOCK_BYTES", 32 * 48)
    extractor = BoundarySampleExtractor(mlp, effort="fast", target=0, batch_size=16).fit(iris[0])
    with pytest.warns(BoundaryNotFoundWarning, match=r"for 50 of 150 .*already_target: 50") as seen:
        extractor.transform(Slices(iris[0]))
    assert len(seen) == 1


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_principal_components_by_blocks(dtype, scale, monkeypatch):
    rng = np.random.default_rng(0)
    X = ((rng.normal(size=(200, 6)) * [9, 5, 3, 2, 1, 0.5] + 4) * scale).astype(dtype)
    expected = pca_components(torch.from_numpy(X)).double()
    monkeypatch.setattr(_sample_array, "BATCH_BYTES", 7 * X[0].nbytes)
    found = _principal_components(X, None, torch.float64)
    np.testing.assert_allclose((found @ expected.T).abs(), np.eye(6), atol=1e-6)


def test_pickles_and_folders_contain_the_samples_that_an_extractor_keeps(iris, mlp, tmp_path):
    stored = h5(iris[0], tmp_path)
    model = BoundarySampleExtractor(mlp, method="segment", returns="distance", random_state=0)
    expected = model.fit(stored, iris[1]).transform(iris[0])
    skboundary.io.save(model, tmp_path / "saved")
    copies = pickle.loads(pickle.dumps(model)), skboundary.io.load(tmp_path / "saved", module=mlp)
    stored.file.close()
    for copy in copies:
        np.testing.assert_array_equal(copy.transform(iris[0]), expected)


def test_other_processes_get_the_path_of_a_memory_map_or_nothing(iris, mlp, tmp_path):
    X = mapped(iris[0], tmp_path)
    model = BoundarySampleExtractor(mlp, effort="fast").fit(X)
    assert not len(model._searched().training.X)
    model.set_params(method="segment").fit(X)
    assert _get_backing_memmap(model._searched().training.X).filename == tmp_path / "X.npy"
