"""Progress bars of long calls: a total, and the time left."""

import re
from functools import partial

import numpy as np
import pytest
import tqdm.auto

from skboundary import (
    BiasedExtrapolationSampler,
    BoundaryCharacterizer,
    BoundarySampleExtractor,
    LatentKNNClassifier,
    LatentTransformer,
    SubspaceMargins,
    TorchKNeighborsTransformer,
    TorchNearestNeighbors,
)
from skboundary.boundary import _boundary_search
from skboundary.neighbors import _streamed_search


@pytest.fixture
def bars(monkeypatch, capsys):
    """Bars that are drawn at every step: the last count, total and time left, by their names."""
    monkeypatch.setattr(
        tqdm.auto, "tqdm", partial(tqdm.auto.tqdm, mininterval=0, miniters=1, ncols=100)
    )

    def drawn():
        err = capsys.readouterr().err
        found = re.findall(r"(\w[\w ]*): +\d+%\|[^|]*\| (\d+)/(\d+) \[\d\d:\d\d<(\S+),", err)
        return {name: (int(n), int(total), left) for name, n, total, left in found}

    return drawn


def test_networks_count_samples(bars, iris, mlp, tmp_path):
    X, y = iris
    LatentTransformer(mlp, batch_size=20, verbose=1).fit(X).transform(X)
    assert bars() == {"network": (150, 150, "00:00")}
    model = LatentKNNClassifier(mlp, batch_size=20, verbose=1).fit(X, y)
    assert bars() == {"network": (150, 150, "00:00")}
    model.predict(X[:90])
    assert bars() == {"network": (90, 90, "00:00")}
    model.set_params(bank=tmp_path / "bank").fit(X, y)
    assert bars()["bank"] == (150, 150, "00:00")


def test_searches_count_samples(bars, iris, mlp, monkeypatch):
    X, y = iris
    extractor = BoundarySampleExtractor(mlp, effort="fast", batch_size=20, verbose=1).fit(X, y)
    assert bars() == {"network": (150, 150, "00:00")}
    extractor.transform(X)
    assert bars() == {"boundary": (150, 150, "00:00")}
    monkeypatch.setattr(_boundary_search, "_BLOCK_BYTES", 60 * 32)
    extractor.transform(X)
    found = bars()
    assert found["samples"] == (150, 150, "00:00") and found["boundary"] == (30, 30, "00:00")
    margins = SubspaceMargins(mlp, verbose=1).fit(X)
    bars()
    margins.transform(X)
    assert bars() == {"margins": (150 * margins.n_subspaces_,) * 2 + ("00:00",)}
    BoundaryCharacterizer(mlp, n_samples=3, n_partners=2, verbose=1).fit(X, y)
    assert bars()["class pairs"] == (6, 6, "00:00")


def test_neighbors_count_queries(bars, iris, tmp_path, monkeypatch):
    X, _ = iris
    search = TorchNearestNeighbors(batch_size=2, verbose=1).fit(X)
    for call in (search.kneighbors, search.radius_neighbors, search.kneighbors_graph):
        call(X[:90])
        assert bars() == {"neighbors": (90, 90, "00:00")}
    TorchKNeighborsTransformer(verbose=1).fit_transform(X)
    assert bars() == {"neighbors": (150, 150, "00:00")}
    monkeypatch.setattr(_streamed_search, "_RANGE_BYTES", 4 * 4 * 50)
    search.set_params(bank=tmp_path / "bank").fit(X)
    for call in (search.kneighbors, search.radius_neighbors):
        call(X[:90])
        assert bars()["neighbors"] == (270, 270, "00:00")  # in each of three ranges
    search.set_params(verbose=0).kneighbors(X)
    assert not bars()


def test_over_sampling_counts_samples(bars, iris, mlp):
    X, y = iris[0][:120], iris[1][:120]
    BiasedExtrapolationSampler(mlp, verbose=1).fit_resample(X, y)
    found = bars()
    assert found["network"] == (120, 120, "00:00") and found["new samples"] == (30, 30, "00:00")


def test_time_left_is_shown_while_there_is_some(monkeypatch, capsys, iris, mlp):
    shown = partial(tqdm.auto.tqdm, mininterval=0, miniters=1, ncols=100)
    monkeypatch.setattr(tqdm.auto, "tqdm", shown)
    LatentTransformer(mlp, batch_size=1, verbose=1).fit(iris[0]).transform(iris[0])
    counts = re.findall(r"(\d+)/150 \[\d\d:\d\d<(\d\d:\d\d)", capsys.readouterr().err)
    assert len(counts) > 100 and np.all([int(n) <= 150 for n, _ in counts])
