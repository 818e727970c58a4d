"""Wrong labels by a vote of the neighbors."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch import nn

from skboundary import FrozenNetwork, LatentKNNClassifier
from skboundary.exceptions import DisagreeingNeighborsWarning
from skboundary.neighbors import _bank
from skboundary.neighbors._label_issues import label_issues, label_shares, vote_weights


@pytest.fixture(scope="module")
def noisy(digits):
    """300 images, their true and given labels: 60 are wrong."""
    X, y = digits
    given = y[:300].copy()
    wrong = np.random.default_rng(0).permutation(300)[:60]
    given[wrong] = (given[wrong] + 1 + wrong % 9) % 10
    return X[:300], y[:300], given


def reference(latent, labels, k, method):
    """Loops over votes, samples and neighbors; each sample is left out of its own."""
    neighbors = []
    for i in range(len(latent)):
        d = [np.linalg.norm(latent[i] - z) for z in latent]
        neighbors.append([j for j in np.argsort(d, kind="stable") if j != i][:k])
    weights = [1.0] * len(latent)
    for _ in range(5):
        shares = []
        for near in neighbors:
            total = sum(weights[j] for j in near)
            of = [sum(weights[j] for j in near if labels[j] == c) for c in range(10)]
            shares.append([part / total for part in of])
        weights = [share[label] for share, label in zip(shares, labels)]
    scores, suggested = [], []
    for share, label in zip(shares, labels):
        size = 1 if method == "vote" else np.sqrt(sum(p * p for p in share))
        scores.append(1 - share[label] / size)
        ties = [c for c in range(10) if share[c] > max(share) - 1e-9]
        suggested.append(label if label in ties else ties[0])
    return np.array(scores), np.array(suggested)


@pytest.mark.parametrize("method", ["vote", "rank"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_against_a_loop(cnn, noisy, method, dtype):
    X, y, given = noisy
    clf = LatentKNNClassifier(cnn.to(dtype)).fit(X, given)
    issues = clf.label_issues(method=method, n_neighbors=12)
    latent = clf._network.latent(X).double().numpy()
    score, suggested = reference(latent, given, 12, method)
    np.testing.assert_allclose(issues.score, score, atol=1e-12)
    np.testing.assert_array_equal(issues.suggested_label, suggested)
    np.testing.assert_array_equal(issues.is_issue, score > 0.5)
    np.testing.assert_array_equal(issues.given_label, given)
    assert sorted(issues.rank) == list(range(300))
    assert (np.diff(score[issues.rank.argsort()]) <= 1e-12).all()
    assert roc_auc_score(given != y, issues.score) > 0.95


@pytest.mark.parametrize("block", [4096, 70])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_training_samples_that_are_passed_are_left_out_of_their_neighbors(
    cnn, noisy, metric, block, monkeypatch
):
    X, _, given = noisy
    monkeypatch.setattr(_bank, "BLOCK", block)
    # duplicates, some of them with another label
    X, given = np.concatenate([X, X[:40]]), np.concatenate([given, (given[:40] + 1) % 10])
    clf = LatentKNNClassifier(cnn, metric=metric, batch_size=64).fit(X, given)
    own = clf.label_issues(n_neighbors=10)
    order = np.random.default_rng(0).permutation(len(X))
    passed = clf.label_issues(X[order], given[order], n_neighbors=10)
    np.testing.assert_allclose(passed.score, own.score[order])


@pytest.mark.parametrize("transforms", [None, [lambda X: X[..., ::-1]]])
def test_other_samples_keep_all_neighbors(cnn, noisy, digits, transforms):
    X, _, given = noisy
    clf = LatentKNNClassifier(cnn, query_transforms=transforms).fit(X, given)
    others, y = digits[0][300:400], digits[1][300:400]
    near = clf.kneighbors(others, 15)[1]
    weights = vote_weights(given, clf.kneighbors(n_neighbors=15)[1])[near]
    issues = clf.label_issues(others, y, n_neighbors=15)
    differ = (weights * (given[near] != y[:, None])).sum(1)
    np.testing.assert_allclose(issues.score, differ / weights.sum(1), atol=1e-12)


def test_neighbors_without_weight_count_alike():
    """Two samples with two labels, each the only neighbor of the other."""
    codes, near = np.array([0, 1]), np.array([[1], [0]])
    weights = vote_weights(codes, near)
    np.testing.assert_array_equal(weights, 0)
    shares = label_shares(codes[near], weights[near], 2)
    np.testing.assert_array_equal(shares, [[0, 1], [1, 0]])


def test_repeated_votes_find_more_flipped_labels_than_one(digits):
    X, y = digits[0].reshape(len(digits[1]), -1), digits[1]
    given = np.where(np.random.default_rng(2).random(len(y)) < 0.35, (y + 1) % 10, y)
    near = NearestNeighbors(n_neighbors=15).fit(X).kneighbors(return_distance=False)
    once = (given[near] != given[:, None]).mean(1)
    shares = label_shares(given[near], vote_weights(given, near)[near], 10)
    often = label_issues(given, shares, np.arange(10), "vote").score
    assert roc_auc_score(given != y, often) > roc_auc_score(given != y, once) + 0.05


def test_the_given_label_wins_a_tie_and_half_of_the_votes_is_no_issue():
    near = np.array([[0, 0, 1, 1], [2, 2, 1, 1], [0, 0, 0, 1], [1, 1, 2, 0]])
    shares = label_shares(near, np.ones(near.shape), 3)
    issues = label_issues(np.array([1, 0, 1, 2]), shares, np.array(["a", "b", "c"]), "vote")
    np.testing.assert_array_equal(issues.suggested_label, ["b", "b", "a", "b"])
    np.testing.assert_array_equal(issues.score, [0.5, 1.0, 0.75, 0.75])
    np.testing.assert_array_equal(issues.is_issue, [False, True, True, True])
    np.testing.assert_array_equal(issues.rank, [3, 0, 1, 2])
    # 4 votes of 10 against one other label, and against six others
    for others, score in ((6 * [1], 1 - 4 / 52**0.5), ([1, 2, 3, 4, 5, 6], 1 - 4 / 22**0.5)):
        shares = label_shares(np.array([4 * [0] + others]), np.ones((1, 10)), 7)
        given = label_issues(np.zeros(1, int), shares, np.arange(7), "rank")
        assert given.score[0] == pytest.approx(score)


@pytest.mark.parametrize("method", ["vote", "rank"])
def test_rounded_shares_do_not_lead_to_negative_scores(method):
    weights = np.random.default_rng(0).random((1000, 7))
    shares = label_shares(np.zeros((1000, 7), int), weights, 2)
    assert shares.max() > 1
    score = label_issues(np.zeros(1000, int), shares, np.arange(2), method).score
    assert score.min() >= 0 and score.max() < 1e-12


@pytest.mark.parametrize("k", [28, 44, 52])
def test_half_of_the_weights_is_no_issue_whatever_their_rounding(k):
    angle = 2 * np.pi * np.arange(120) / 120
    X = np.column_stack([np.cos(angle), np.sin(angle)])  # each has k / 4 of either label per side
    net = FrozenNetwork(nn.Linear(2, 2).double())  # whose latent space is X
    clf = LatentKNNClassifier(net).fit(X, np.arange(120) % 2)
    issues = clf.label_issues(n_neighbors=k)
    np.testing.assert_allclose(issues.score, 0.5)
    assert not issues.is_issue.any()
    np.testing.assert_array_equal(issues.suggested_label, issues.given_label)


def test_a_latent_space_without_classes_is_noticed(recwarn):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 2)), np.arange(300) % 3
    net = FrozenNetwork(nn.Linear(2, 3).double())
    clf = LatentKNNClassifier(net).fit(X, y)
    for given in ((), (X[:5], y[:5])):
        with pytest.warns(DisagreeingNeighborsWarning, match="% of the training samples.*layer"):
            clf.label_issues(*given)
    labels = np.where(rng.random(300) < 0.4, (y + 1) % 3, y)
    recwarn.clear()
    apart = LatentKNNClassifier(net).fit(X * 0.1 + 9 * np.c_[y == 1, y == 2], labels)
    assert apart.label_issues().is_issue.mean() == pytest.approx((labels != y).mean(), abs=0.02)
    assert not recwarn


def test_frame_has_the_columns_and_the_direction_of_cleanlab(cnn, noisy):
    X, _, given = noisy
    clf = LatentKNNClassifier(cnn, neighbors=NearestNeighbors()).fit(X, given)
    issues = clf.label_issues(method="rank")
    frame = issues.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert [*frame] == ["is_label_issue", "label_score", "given_label", "predicted_label"]
    np.testing.assert_array_equal(frame.label_score, 1 - issues.score)
    np.testing.assert_array_equal(frame.predicted_label, issues.suggested_label)
    np.testing.assert_array_equal(frame.given_label, given)
    assert frame.is_label_issue.dtype == bool


def test_labels_of_any_kind(iris):
    X, codes = iris
    y = np.array(["a", "b", "c"])[codes]
    y[:5] = "c"
    issues = LatentKNNClassifier(LogisticRegression(max_iter=500)).fit(X, y).label_issues()
    assert (issues.suggested_label[:5] == "a").all() and issues.is_issue[:5].all()
    assert issues.score[:5].min() > 0.8


def test_what_is_missing_is_named(cnn, noisy):
    X, _, given = noisy
    clf = LatentKNNClassifier(cnn)
    with pytest.raises(ValueError, match="label_issues needs .* pass y to fit"):
        clf.fit(X).label_issues()
    clf.fit(X, given)
    for arguments in ((X, None), (None, given)):
        with pytest.raises(ValueError, match="pass both, or neither"):
            clf.label_issues(*arguments)
    with pytest.raises(ValueError, match="method='mean' .*neither 'vote' nor 'rank'"):
        clf.label_issues(method="mean")
    with pytest.raises(ValueError, match="n_neighbors=300 .* needs 301 .* there are 300. Lower"):
        clf.label_issues(n_neighbors=300)
    with pytest.raises(ValueError, match="not one of the 10 classes"):
        clf.label_issues(X, given + 50)
    with pytest.raises(ValueError, match="'n_neighbors' parameter of LatentKNN.* Got 0"):
        clf.label_issues(n_neighbors=0)
    assert len(clf.label_issues(n_neighbors=299).score) == 300
