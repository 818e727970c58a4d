"""QueryWeightDisplay: every score of a sweep is in its cell."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skboundary import FrozenNetwork, LatentKNNClassifier, QueryWeightDisplay


@pytest.fixture
def results(cnn, digits):
    X, y = digits
    clf = LatentKNNClassifier(cnn).fit(X[:300], y[:300])
    return clf.sweep(X[300:], y[300:], n_neighbors=(1, 3, 8), average=("logits", "proba"))


def test_scores_are_in_their_cells(results):
    display = QueryWeightDisplay.from_sweep(results)
    assert display.axes_.shape == (1, 2) and display.averages == ["logits", "proba"]
    for setting, score in zip(results["params"], results["mean_test_score"]):
        a = display.averages.index(setting["average"])
        i = display.n_neighbors.tolist().index(setting["n_neighbors"])
        j = display.query_weight.tolist().index(setting["query_weight"])
        assert display.images_[a].get_array()[i, j] == score
        assert display.texts_[a][i * 7 + j].get_text() == f"{score:.3f}"
        assert display.texts_[a][i * 7 + j].get_position() == (j, i)
    assert [t.get_text() for t in display.axes_[0, 0].get_yticklabels()] == ["1", "3", "8"]
    for mark in display.paper_:
        np.testing.assert_allclose(mark.get_xydata(), [[3, 1]])  # .88 is the 4th weight
    assert display.images_[0].get_clim() == display.images_[1].get_clim()
    assert display.images_[0].cmap.name == "viridis"
    best = np.argmax(display.scores)
    x, y = display.best_.get_xydata()[0]
    assert (
        display.scores[display.axes_[0].tolist().index(display.best_.axes), round(y), round(x)]
        == display.scores.ravel()[best]
    )


def test_without_the_papers_setting_and_many_cells(results, cnn, digits):
    X, y = digits
    clf = LatentKNNClassifier(cnn).fit(X[:300], y[:300])
    weights = np.linspace(0, 1, 51)
    display = QueryWeightDisplay.from_sweep(
        clf.sweep(X[300:], y[300:], n_neighbors=(1, 2, 4), query_weight=weights)
    )
    assert display.paper_ == [None] and display.texts_ == [[]]
    assert len(display.axes_[0, 0].get_xticklabels()) <= 25


def test_results_of_a_search(iris, mlp):
    X, y = iris
    pipeline = make_pipeline(StandardScaler(), LatentKNNClassifier(FrozenNetwork(mlp)))
    grid = {
        "latentknnclassifier__n_neighbors": [3, 1],
        "latentknnclassifier__query_weight": [0.88, 0.0],
    }
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    _, ax = plt.subplots()
    display = QueryWeightDisplay.from_sweep(
        search.cv_results_, ax=ax, name="iris", curve_kwargs=[{"markersize": 9}, {}]
    )
    assert display.axes_[0, 0] is ax and ax.get_title("left") == "iris"
    assert display.paper_[0].get_markersize() == 9
    np.testing.assert_allclose(
        display.scores[0, ::-1, ::-1].ravel(), search.cv_results_["mean_test_score"]
    )
    twice = {**search.cv_results_, "param_other__n_neighbors": [1]}
    with pytest.raises(ValueError, match="of several steps"):
        QueryWeightDisplay.from_sweep(twice)


def test_errors(results):
    with pytest.raises(ValueError, match="no param_query_weight"):
        QueryWeightDisplay.from_sweep({k: v for k, v in results.items() if "weight" not in k})
    without = {k: v for k, v in results.items() if k != "param_average"}
    with pytest.raises(ValueError, match="several scores of one setting"):
        QueryWeightDisplay.from_sweep(without)
