"""Methods "label", "score" and "segment" with a number of queries, and on images."""

# SPDX-License-Identifier: BSD-3-Clause

from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from skboundary import BoundarySampleExtractor, FrozenNetwork
from skboundary.boundary.methods import _query
from skboundary.boundary.methods._registry import METHODS


class CountsQueries(ClassifierMixin, BaseEstimator):
    """Counts the samples that a fitted classifier predicts, in a list that copies share."""

    counts: ClassVar[list[int]] = []

    def __init__(self, model):
        self.model = model

    def fit(self, X, y):
        self.model_ = clone(self.model).fit(X, y)
        self.classes_, self.n_features_in_ = self.model_.classes_, X.shape[1]
        return self

    def predict(self, X):
        self.counts.append(len(X))
        return self.model_.predict(X)


class CountsScores(CountsQueries):
    def predict_proba(self, X):
        self.counts.append(len(X))
        return self.model_.predict_proba(X)


@pytest.mark.parametrize("target", ["nearest", "runner_up"])
@pytest.mark.parametrize(
    "method, budgets",
    [("label", (20, 33, 250)), ("score", (50, 250)), ("segment", (30, 90))],
)
@pytest.mark.parametrize("smooth", [False, True], ids=["labels", "scores"])
def test_a_number_of_queries_per_sample(iris, method, budgets, target, smooth):
    """Sample by sample: never more than asked, all of them reported, and nearer with more."""
    if not smooth and (method == "score" or target == "runner_up"):
        pytest.skip("needs scores")
    X, y = iris
    model = LogisticRegression(max_iter=500) if smooth else DecisionTreeClassifier(random_state=0)
    estimator = (CountsScores if smooth else CountsQueries)(model)
    extractor = BoundarySampleExtractor(estimator, method=method, target=target, random_state=0)
    extractor.fit(X, y)
    assert extractor.response_ == ("score" if smooth else "label")
    means = []
    for budget in budgets:
        extractor.set_params(effort=budget)
        lengths = []
        for i in (5, 60, 110, 133):
            estimator.counts.clear()
            pairs = extractor.extract_pairs(X[i : i + 1])
            assert sum(estimator.counts) == pairs.n_evaluations[0] <= budget
            assert pairs.success[0]
            lengths.append(np.linalg.norm(pairs.outer[0] - X[i]))
        means.append(np.mean(lengths))
    assert means[-1] <= 1.001 * means[0]
    assert method != "label" or means[-1] < 0.95 * means[0]


def test_a_repeated_search_keeps_to_the_queries_that_are_left(iris, monkeypatch):
    """Of each sample alone, and with the result of each sample alone."""
    X, y = iris
    extractor = BoundarySampleExtractor(LogisticRegression(max_iter=500), method="score", effort=90)
    extractor.fit(X, y)
    budgets = []
    search = _query.score_search

    def spy(*arguments, budget, **options):
        budgets.append((len(arguments[1]), budget))
        return search(*arguments, budget=budget, **options)

    monkeypatch.setattr(_query, "score_search", spy)
    whole = METHODS["score"].search

    def with_less(oracle, problem, settings):
        left = torch.where(torch.arange(len(problem.x)) % 2 == 0, 90, 60)
        return whole(oracle, problem._replace(budget=left), settings)

    monkeypatch.setitem(METHODS, "score", METHODS["score"]._replace(search=with_less))
    pairs = extractor.extract_pairs(X[:10])
    assert [n for n, _ in budgets] == [5, 5] and budgets[0][1] + 30 == budgets[1][1]
    assert pairs.success.all() and (pairs.n_evaluations[1::2] <= 60).all()


@pytest.mark.parametrize("method, name", [("label", "label_search"), ("score", "score_search")])
def test_searches_know_the_shape_of_images(cnn, digits, monkeypatch, method, name):
    shapes, search = [], getattr(_query, name)

    def spy(*arguments, **options):
        shapes.append(options["image_shape"])
        return search(*arguments, **options)

    monkeypatch.setattr(_query, name, spy)
    X = digits[0][:60]
    extractor = BoundarySampleExtractor(FrozenNetwork(cnn), method=method, effort=60).fit(X)
    assert extractor.extract_pairs(X[:3]).success.all()
    flat = nn.Sequential(nn.Unflatten(1, X.shape[1:]), cnn)
    vectors = X.reshape(len(X), -1)
    extractor.set_params(estimator=FrozenNetwork(flat)).fit(vectors).extract_pairs(vectors[:3])
    assert shapes == [X.shape[1:], None]
