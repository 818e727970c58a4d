"""BiasedExtrapolationSampler: where its samples lie, what it keeps, and what it refuses."""

import warnings

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn import config_context
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import DataConversionWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits
from torch import nn

from skboundary import BiasedExtrapolationSampler, BiasSettings, FrozenNetwork
from skboundary.exceptions import EncodedLabelsWarning, FewParentsWarning, NoCrossingWarning
from skboundary.over_sampling import _fitting
from skboundary.over_sampling._class_pairs import find_class_pairs

pytestmark = pytest.mark.filterwarnings("ignore::skboundary.exceptions.FewParentsWarning")


@pytest.fixture(scope="module")
def two():
    """Two classes that overlap, 340 to 60."""
    return make_classification(
        400, 6, n_informative=4, weights=[0.85], class_sep=0.7, flip_y=0, random_state=0
    )


@pytest.fixture(scope="module")
def three():
    return make_classification(
        400, 6, n_informative=4, n_redundant=0, n_classes=3, weights=[0.65, 0.25], random_state=0
    )


@pytest.fixture(scope="module")
def logistic(two):
    return FrozenEstimator(LogisticRegression().fit(*two))


class Curved(nn.Module):
    """Two logits of two columns with a curved boundary."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 2).double()
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, -0.25]]))
            self.head.bias.zero_()

    def forward(self, x):
        x = torch.stack([x[:, 0] ** 3 + x[:, 0], x[:, 1] ** 2], 1)
        return self.head(x)


def curved(n=300, dtype=np.float64):
    """Give the network, points and labels: a sixth of them minority, most on their own side."""
    with torch.random.fork_rng():
        net = FrozenNetwork(Curved().to(torch.from_numpy(np.empty(0, dtype)).dtype))
    X = np.random.RandomState(0).normal(size=(n, 2)).astype(dtype)
    X = X[np.argsort(X[:, 0])]
    return net, X, (np.arange(n) >= n - n // 6).astype(int)


# what the tests of single parts go by; the defaults have tests of their own
PAPER = {"placement": "boundary", "within_class": 0.0}


def resample(X, y, **params):
    """Resample with the parameters of the sampler and those of its settings."""
    names = BiasSettings().get_params()
    settings = BiasSettings(**{name: params.pop(name) for name in names if name in params})
    sampler = BiasedExtrapolationSampler(
        **{"random_state": 0, **PAPER, "settings": settings, **params}
    )
    X_new, y_new = sampler.fit_resample(X, y)
    assert np.array_equal(X_new[: len(X)], X) and np.array_equal(y_new[: len(y)], y)
    return sampler, X_new[len(X) :], y_new[len(y) :]


def no_two_equal(points):
    return len(np.unique(points, axis=0)) == len(points)


# ------------------------------------------------------------------------------ the truth


@pytest.mark.parametrize("bias", ["asymmetric", "bottom", "top", "random"])
@pytest.mark.parametrize("pairing", ["one-to-one", "nearest", "nearest-majority"])
def test_samples_lie_on_their_segments_at_their_probability(two, logistic, bias, pairing):
    X, y = two
    sampler, points, labels = resample(
        X, y, estimator=logistic, bias=bias, instance_pairing=pairing
    )
    assert (labels == 1).all() and len(labels) == 2 * (y == 0).sum() - len(y)
    minority, majority = sampler.parents_.T
    assert (y[minority] == 1).all() and (y[majority] == 0).all()
    assert (logistic.predict(X[minority]) == 1).all() and (logistic.predict(X[majority]) == 0).all()
    t = sampler.positions_[:, None]
    np.testing.assert_allclose(points, X[minority] + t * (X[majority] - X[minority]), atol=1e-12)
    proba = logistic.predict_proba(points)[:, 1]
    np.testing.assert_allclose(proba, sampler.probabilities_, atol=1e-9)
    np.testing.assert_allclose(proba, sampler.targets_, atol=1e-3)
    assert no_two_equal(points) and sampler.n_fallback_ == 0


@pytest.mark.parametrize("ratio", ["centroid", "segment", "margin"])
def test_the_target_is_equation_1_clipped(two, logistic, ratio):
    X, y = two
    gamma, p_min = -0.27, 0.1
    sampler, _, _ = resample(
        X,
        y,
        estimator=logistic,
        distance_ratio=ratio,
        gamma=gamma,
        p_min=p_min,
        sampling_strategy=0.4,
    )
    g = logistic.decision_function(X)
    own = np.where(y == 1, g, -g)
    p = 1 / (1 + np.exp(-g))
    for (a, b), target in zip(sampler.parents_, sampler.targets_):
        t = g[a] / (g[a] - g[b])
        z = X[a] + t * (X[b] - X[a])
        if ratio == "centroid":
            d = [np.linalg.norm(z - X[y == c].mean(0)) for c in (0, 1)]
        elif ratio == "segment":
            d = [1 - t, t]
        else:
            d = []
            for c in (0, 1):
                unsure = np.sort(own[(y == c) & (own > 0)])
                d.append(unsure[: round(0.3 * len(unsure))].mean())
        wanted = 0.5 + gamma * (max(1, d[0] / d[1]) - 1)
        wanted = min(max(wanted, p_min), 1 - p_min)
        gap = p[a] - p[b]
        assert target == pytest.approx(np.clip(wanted, p[b] + gap / 10, p[a] - gap / 10))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_root_finding_on_a_curved_network(dtype):
    net, X, y = curved(dtype=dtype)
    sampler, points, _ = resample(X, y, estimator=net, bias="random", fraction=0.8)
    assert points.dtype == dtype and no_two_equal(points)
    np.testing.assert_allclose(net.predict_proba(points)[:, 1], sampler.probabilities_, atol=1e-5)
    np.testing.assert_allclose(sampler.probabilities_, sampler.targets_, atol=1e-3)
    first, last = X[sampler.parents_[:, 0]], X[sampler.parents_[:, 1]]
    t = sampler.positions_[:, None].astype(dtype)
    np.testing.assert_allclose(points, first + t * (last - first), rtol=1e-5, atol=1e-5)


def test_closed_form_equals_root_finding(two):
    """A linear network, known as such, and hidden behind a preprocessing function."""
    X, y = two
    model = LogisticRegression().fit(X, y)
    net = nn.Linear(6, 2).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor(np.stack([0 * model.coef_[0], model.coef_[0]])))
        net.bias.copy_(torch.tensor([0.0, model.intercept_[0]]))
    closed, points, _ = resample(X, y, estimator=net)
    found, others, _ = resample(X, y, estimator=FrozenNetwork(net, preprocess=lambda x: x))
    np.testing.assert_array_equal(closed.parents_, found.parents_)
    np.testing.assert_allclose(closed.positions_, found.positions_, atol=1e-3)
    np.testing.assert_allclose(points, others, atol=1e-2)


def test_gamma_0_is_bottom(two):
    _, points, _ = resample(*two, gamma=0.0)
    _, others, _ = resample(*two, bias="bottom")
    np.testing.assert_array_equal(points, others)
    _, others, _ = resample(*two)
    assert not np.array_equal(points, others)


@pytest.mark.parametrize("pairing", ["one-to-one", "nearest", "nearest-majority"])
@pytest.mark.parametrize("estimator", ["logistic", "curved"])
def test_parents_repeat_only_when_all_pairs_are_used(logistic, two, pairing, estimator):
    if estimator == "logistic":
        (X, y), model = two, logistic
    else:
        model, X, y = curved(90)
    right = model.predict(X) == y
    n_majority = round(0.02 * (right & (y == 0)).sum())
    usable = n_majority * (right & (y == 1)).sum()
    assert n_majority > 0 and usable > 5
    for n_new, n_different in ((usable, usable), (2 * usable + 3, usable)):
        wanted = int((y == 1).sum() + n_new)
        sampler, points, _ = resample(
            X,
            y,
            estimator=model,
            bias="bottom",
            fraction=0.02,
            instance_pairing=pairing,
            neighbors=2,
            sampling_strategy={1: wanted},
        )
        assert len(np.unique(sampler.parents_, axis=0)) == n_different
        assert len(np.unique(sampler.parents_[:usable], axis=0)) == min(n_new, usable)
        assert no_two_equal(points) and len(points) == n_new
        np.testing.assert_allclose(sampler.probabilities_, sampler.targets_, atol=1e-3)
        again = sampler.targets_[usable:]
        own = model.predict_proba(X[sampler.parents_[:, 0]])[usable:, 1]
        assert (again >= np.resize(sampler.targets_[:usable], len(again))).all()
        assert (again <= own).all()


def test_majority_samples_are_used_once_in_a_round(two, logistic):
    X, y = two
    sampler, _, _ = resample(X, y, estimator=logistic, fraction=0.9)
    n = (logistic.predict(X)[y == 1] == 1).sum()
    for part in np.split(sampler.parents_, range(n, len(sampler.parents_), n)):
        assert len(np.unique(part[:, 1])) == len(part) == len(np.unique(part[:, 0]))


@pytest.mark.parametrize("class_specific", ["threshold", "proportional"])
def test_algorithms_1_and_2(three, class_specific):
    X, y = three
    sampler, points, labels = resample(
        X, y, class_specific=class_specific, tau=0.73, class_pairs={1: 0, 2: 0}
    )
    assert np.bincount(labels).tolist() == [0, *((y == 0).sum() - np.bincount(y)[1:])]
    assert sampler.pairs_ == [(1, 0), (2, 0)]
    assert [*sampler.pair_accuracy_] == sampler.pairs_
    assert min(sampler.pair_accuracy_.values()) < 0.73 < max(sampler.pair_accuracy_.values())
    logits = np.empty((len(y), 3))
    seed = np.random.RandomState(0).randint(2**31 - 1)
    for train, test in StratifiedKFold(3, shuffle=True, random_state=seed).split(X, y):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        logits[test] = model.fit(X[train], y[train]).decision_function(X[test])
    for (a, b), accuracy in sampler.pair_accuracy_.items():
        of_two = np.isin(y, [a, b])
        predicted = np.where(logits[:, a] > logits[:, b], a, b)[of_two]
        assert accuracy == pytest.approx(balanced_accuracy_score(y[of_two], predicted))
        scores = sampler.estimator_.decision_function(X)
        g = scores[:, a] - scores[:, b]
        own = np.flatnonzero((y == b) & (g < 0))
        bottom = own[np.argsort(-g[own])][: round(0.3 * len(own))]
        n_biased = np.isin(sampler.parents_[labels == a, 1], bottom).sum()
        n = (labels == a).sum()
        if class_specific == "proportional":
            assert n_biased == round((1 - accuracy) / 0.5 * n)
        elif accuracy <= 0.73:
            assert n_biased == n
        else:
            assert n_biased < 0.6 * n
    assert no_two_equal(points)


def test_threshold_is_random_above_tau_and_the_bias_below(two):
    X, y = two
    _, biased, _ = resample(X, y, class_specific="threshold", tau=1.0)
    _, plain, _ = resample(X, y)
    np.testing.assert_array_equal(biased, plain)
    _, at_random, _ = resample(X, y, class_specific="threshold", tau=0.0)
    _, plain, _ = resample(X, y, bias="random")
    np.testing.assert_array_equal(at_random, plain)


def test_pair_accuracy_of_a_trained_estimator_is_that_on_X(two, logistic):
    X, y = two
    sampler, _, _ = resample(X, y, estimator=logistic, class_specific="proportional")
    expected = balanced_accuracy_score(y, logistic.predict(X))
    assert sampler.pair_accuracy_ == {(1, 0): pytest.approx(expected)}
    assert resample(X, y, estimator=logistic)[0].pair_accuracy_ is None


# ------------------------------------------------------------- decision-boundary re-sampling


def dbr(X, y, g, percent):
    """ALGORITHMS: refine, pair, sort, thin, skip, place; in plain float64 loops."""
    p2 = 1 / (1 + np.exp(-g))
    refined = [b for b in range(len(y)) if y[b] == 0 and 1 - p2[b] > 0.9]
    used, pairs = set(), []
    for a in np.flatnonzero(y == 1):
        if len(used) == len(refined):
            used = set()
        b = min((b for b in refined if b not in used), key=lambda b: np.linalg.norm(X[a] - X[b]))
        used.add(b)
        pairs.append((np.linalg.norm(X[a] - X[b]), a, b))
    pairs.sort()
    n = len(pairs)
    kept = []
    for q in range(round(n * percent / 100)):
        _, a, b = pairs[round(q * 100 / percent)]
        if 1 - p2[a] > 0.3:
            continue
        grid = np.arange(100) / 100
        off = [abs(1 / (1 + np.exp(-(r * g[a] + (1 - r) * g[b]))) - 0.5) for r in grid]
        if min(off) < 0.1:
            r = grid[int(np.argmin(off))]
            kept.append((a, b, r * X[a] + (1 - r) * X[b]))
    return kept


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("percent", [10, 50])
def test_dbr_is_the_literal_procedure(seed, percent):
    rng = np.random.RandomState(seed)
    y = (np.arange(260) >= 200).astype(int)
    X = rng.normal(size=(260, 3)) + 1.5 * y[:, None]
    model = FrozenEstimator(LogisticRegression(class_weight="balanced").fit(X, y))
    expected = dbr(X, y, model.decision_function(X), percent)
    sampler, points, _ = resample(
        X, y, estimator=model, bias="dbr", sampling_strategy={1: 60 + 60 * percent // 100}
    )
    assert 0 < len(expected) <= len(points) == 60 * percent // 100
    for (a, b, z), parents, row in zip(expected, sampler.parents_, points):
        assert (a, b) == tuple(parents)
        np.testing.assert_allclose(row, z, atol=1e-9)
    assert (np.abs(sampler.probabilities_ - 0.5) < 0.1).all() and no_two_equal(points)


def test_dbr_goes_on_when_all_that_it_thinned_out_is_skipped():
    model, X, y = curved()
    right = np.flatnonzero((y == 1) | (model.predict_proba(X)[:, 0] > 0.9))
    X, y = X[right], y[right]
    minority, majority = X[y == 1], X[y == 0]
    nearest = np.linalg.norm(minority[:, None] - majority, axis=2).min(1).argmin()
    assert model.predict_proba(minority[[nearest]])[0, 1] < 0.7  # the first rank is skipped
    sampler, points, _ = resample(X, y, estimator=model, bias="dbr", sampling_strategy={1: 51})
    assert len(points) == 1 and sampler.n_fallback_ == 0
    assert model.predict_proba(X[sampler.parents_[:, 0]])[0, 1] >= 0.7


def test_dbr_goes_on_until_the_count_is_reached():
    model, X, y = curved()
    sampler, points, _ = resample(X, y, estimator=model, bias="dbr", sampling_strategy={1: 1550})
    assert len(points) == 1500 and no_two_equal(points) and sampler.n_fallback_ == 0
    p = model.predict_proba(X)[:, 1]
    assert (p[sampler.parents_[:, 0]] >= 0.7).all() and (p[sampler.parents_[:, 1]] < 0.1).all()


@pytest.mark.parametrize("scale", [1e2, 1e3, 1e5])
def test_dbr_where_the_probability_rises_between_two_positions_of_its_grid(scale):
    net, X, y = curved()
    with torch.no_grad():
        net.module.head.weight.mul_(scale)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoCrossingWarning)
        sampler, points, _ = resample(X, y, estimator=net, bias="dbr")
    assert sampler.n_fallback_ == 0 and no_two_equal(points)
    minority = np.flatnonzero((y == 1) & (net.predict_proba(X)[:, 1] >= 0.7))
    assert np.isin(minority, sampler.parents_[:, 0]).mean() > 0.9
    at_half = np.abs(sampler.probabilities_ - 0.5) < 0.1
    assert at_half.mean() > 0.9 and (sampler.probabilities_ >= 0.4).all()


# ------------------------------------------------------------- scales, units and precisions


class InUnits(Curved):
    """Curved, for X in other units and with steeper logits."""

    def __init__(self, unit, scale):
        super().__init__()
        self.unit, self.scale = unit, scale

    def forward(self, x):
        return super().forward(x / self.unit) * self.scale


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [1, 1e3, 1e5])
@pytest.mark.parametrize("unit", [1e-5, 1, 1e5])
def test_placement_at_any_scale(dtype, scale, unit):
    """Next to where the closed form of the margin meets the target, in every unit."""
    _, X, y = curved()
    X = X.astype(dtype)
    torch_dtype = torch.from_numpy(X).dtype
    net = InUnits(unit, scale).to(torch_dtype)
    sampler, points, _ = resample(
        X * dtype(unit), y, estimator=net, fraction=0.9, sampling_strategy={1: 90}
    )
    first, last = X[sampler.parents_.T].astype(float)

    def margin(t):
        x = first + t[:, None] * (last - first)
        return scale * (x[:, 0] ** 3 + x[:, 0] - 0.25 * x[:, 1] ** 2)

    wanted = np.log(sampler.targets_) - np.log1p(-sampler.targets_)
    eps, t = np.finfo(dtype).eps, sampler.positions_
    near = 1e-3 + 8 * eps * scale  # the tolerance of the search, and rounding of the logits
    assert np.isfinite(wanted).all() and sampler.n_fallback_ == 0 and len(points) == 40
    assert (margin(t - 64 * eps) >= wanted - near).all()
    assert (margin(t + 64 * eps) <= wanted + near).all()
    expected = InUnits(1, scale).to(torch_dtype)
    expected, others, _ = resample(
        X, y, estimator=expected, fraction=0.9, sampling_strategy={1: 90}
    )
    np.testing.assert_array_equal(sampler.parents_, expected.parents_)
    np.testing.assert_allclose(t, expected.positions_, atol=1e-3)
    np.testing.assert_allclose(points / unit, others, atol=5e-3)


@pytest.mark.parametrize("bias", ["asymmetric", "dbr"])
@pytest.mark.parametrize("black_box", [False, True])
def test_results_do_not_depend_on_the_batch_size(bias, black_box):
    net, X, y = curved(dtype=np.float32)
    estimator = GaussianNB() if black_box else net
    found = [
        resample(
            X,
            y,
            estimator=estimator,
            bias=bias,
            batch_size=size,
            placement="spread",
            within_class=0.5,
            instance_pairing="nearest-majority",
            sampling_strategy={1: 70},
        )
        for size in ("auto", 5)
    ]
    np.testing.assert_array_equal(*(sampler.parents_ for sampler, *_ in found))
    np.testing.assert_allclose(*(points for _, points, _ in found), atol=1e-5)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_may_be_off(mode):
    net, X, y = curved()
    expected = resample(X, y, estimator=net)[1]
    with mode():
        np.testing.assert_array_equal(resample(X, y, estimator=net)[1], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_in_half_precision(dtype):
    _, X, y = curved()
    net = Curved().to(dtype)
    sampler, points, _ = resample(X, y, estimator=net, bias="random", fraction=0.8)
    assert points.dtype == np.float64 and sampler.n_fallback_ == 0
    x, eps = points.T, torch.finfo(dtype).eps
    margin = x[0] ** 3 + x[0] - 0.25 * x[1] ** 2
    off = margin - np.log(sampler.targets_) + np.log1p(-sampler.targets_)
    assert (np.abs(off) <= 1e-3 + 8 * eps * (np.abs(x[0] ** 3) + np.abs(x[0]) + x[1] ** 2)).all()


# ------------------------------------------------------------------------ beyond the paper


def test_spread_lies_between_the_minority_sample_and_the_boundary(two, logistic):
    X, y = two
    at, _, _ = resample(X, y, estimator=logistic)
    spread, points, _ = resample(X, y, estimator=logistic, placement="spread")
    np.testing.assert_array_equal(at.parents_, spread.parents_)
    assert (spread.positions_ < at.positions_).all() and no_two_equal(points)
    assert np.quantile(spread.positions_ / at.positions_, [0.25, 0.75]) == pytest.approx(
        [0.25, 0.75], abs=0.1
    )
    np.testing.assert_allclose(logistic.predict_proba(points)[:, 1], spread.probabilities_)
    assert (spread.probabilities_ >= spread.targets_ - 1e-9).all()


def test_within_class_interpolates_between_neighbors(two, logistic):
    X, y = two
    sampler, points, _ = resample(X, y, estimator=logistic, within_class=0.25, neighbors=3)
    within = np.isnan(sampler.targets_)
    assert within.sum() == round(0.25 * len(points)) and within[-within.sum() :].all()
    minority = np.flatnonzero(y == 1)
    near = NearestNeighbors(n_neighbors=3).fit(X[minority]).kneighbors(return_distance=False)
    for a, b in sampler.parents_[within]:
        assert b in minority[near[np.searchsorted(minority, a)]]
    first, second = X[sampler.parents_[within].T]
    t = sampler.positions_[within, None]
    np.testing.assert_allclose(points[within], first + t * (second - first))
    np.testing.assert_allclose(logistic.predict_proba(points)[:, 1], sampler.probabilities_)
    everything, _, _ = resample(X, y, within_class=1.0)
    assert (y[everything.parents_] == 1).all()


def test_within_class_takes_as_many_bases_as_smote():
    """53 draws among 53 samples take 34 of them, 26 draws take 21."""
    X, y = np.random.RandomState(0).normal(size=(253, 4)), np.repeat([0, 1], [200, 53])
    for n, expected in ((53, 33.7), (26, 20.7)):
        bases = [
            len(np.unique(sampler.parents_[:, 0]))
            for seed in range(15)
            for sampler, *_ in [
                resample(X, y, within_class=1.0, sampling_strategy={1: 53 + n}, random_state=seed)
            ]
        ]
        assert np.mean(bases) == pytest.approx(expected, abs=2) and min(bases) > expected - 8


@pytest.mark.parametrize(
    ("n_right", "n_new", "warns"), [(19, 60, True), (20, 60, False), (19, 59, False)]
)
@pytest.mark.parametrize("pairing", ["one-to-one", "nearest-majority"])
def test_few_parents_are_told(n_right, n_new, warns, pairing):
    """Of 60 minority samples so many are on their own side; only those can be parents."""
    rng = np.random.RandomState(0)
    y, right = np.repeat([0, 1], [200, 60]), np.arange(260) >= 260 - n_right
    X = rng.uniform(0.1, 1, size=(260, 3)) * np.where(right, 1, -1)[:, None]
    half = LogisticRegression().fit(np.eye(3)[[0, 1]], [0, 1])
    half.coef_, half.intercept_ = np.ones((1, 3)), np.zeros(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sampler, *_ = resample(
            X,
            y,
            estimator=FrozenEstimator(half),
            within_class=0.5,
            instance_pairing=pairing,
            sampling_strategy={1: 60 + 2 * n_new},
        )
    across = sampler.parents_[y[sampler.parents_[:, 1]] == 0]
    assert sampler.n_parents_ == {1: n_right} == {1: len(np.unique(across[:, 0]))}
    few = [w for w in caught if w.category is FewParentsWarning]
    assert len(few) == warns
    for warning in few:
        assert f"{n_right} of the 60 samples of class 1" in str(warning.message)
        assert f"{n_new} new samples" in str(warning.message)
        assert warning.filename == __file__


def test_parents_are_counted_for_each_class(three):
    X, y = three
    sampler, _, labels = resample(X, y, within_class=0.5)
    for c in (1, 2):
        first, second = sampler.parents_[labels == c].T
        assert sampler.n_parents_[c] == len(np.unique(first[y[second] != c])) > 1
    assert resample(X, y, within_class=1.0)[0].n_parents_ == {1: 0, 2: 0}


# -------------------------------------------------------------------------------- classes


def test_class_pairs():
    means = np.array([[0.0], [1.0], [3.0], [3.5]])
    counts, labels = np.array([90, 50, 40, 10]), list("abcd")

    def pairs(how, minority="bcd"):
        return find_class_pairs(how, list(minority), labels, means, counts)

    assert pairs("nearest") == {"b": ["a"], "c": ["b"], "d": ["c"]}
    assert pairs("nearest", "a") == {"a": ["b"]}  # none is larger: the nearest of all
    assert pairs("one-to-one", "cd") == {"c": ["b"], "d": ["c"]}
    counts[:] = [90, 10, 10, 10]  # equals are not larger: one of them gets "a", others make do
    assert pairs("nearest") == {"b": ["a"], "c": ["a"], "d": ["a"]}
    assert pairs("one-to-one") == {"b": ["a"], "c": ["d"], "d": ["c"]}
    assert pairs({"c": "d", "d": ["a", "b"]}) == {"b": ["a"], "c": ["d"], "d": ["a", "b"]}


def test_several_majority_classes_share_the_samples(three):
    X, y = three
    sampler, points, labels = resample(
        X, y, class_pairs={2: [0, 1]}, sampling_strategy={2: (y == 2).sum() + 101}
    )
    assert sampler.pairs_ == [(2, 0), (2, 1)]
    assert np.bincount(y[sampler.parents_[:, 1]]).tolist() == [51, 50]
    assert no_two_equal(points) and (labels == 2).all()
    np.testing.assert_allclose(sampler.probabilities_, sampler.targets_, atol=1e-9)


def test_strategies(three, two):
    X, y = three
    counts = np.bincount(y)
    for strategy, expected in (
        ("auto", [0, counts[0] - counts[1], counts[0] - counts[2]]),
        ("minority", [0, 0, counts[0] - counts[2]]),
        ({1: 150, 0: counts[0] + 7}, [7, 150 - counts[1], 0]),
        (lambda y: {2: 99}, [0, 0, 99 - counts[2]]),
    ):
        _, _, labels = resample(X, y, sampling_strategy=strategy)
        assert np.bincount(labels, minlength=3).tolist() == expected
    X, y = two
    _, _, labels = resample(X, y, sampling_strategy=0.5)
    assert len(labels) == 340 // 2 - 60
    balanced, points, _ = resample(X[280:400], np.arange(120) % 2)
    assert len(points) == len(balanced.parents_) == len(balanced.probabilities_) == 0


def test_each_class_draws_by_itself(three):
    """What one class gets does not depend on what another gets."""
    X, y = three
    _, points, labels = resample(X, y, bias="random", placement="spread")
    _, others, _ = resample(X, y, bias="random", placement="spread", sampling_strategy="minority")
    np.testing.assert_array_equal(points[labels == 2], others)


def test_labels_may_be_strings_and_numbers_of_any_kind(three):
    X, y = three
    _, expected, codes = resample(X, y)
    for names in (np.array(["a", "b", "c"]), np.array([-1.0, 0.0, 7.0]), np.array([10, 20, 40])):
        sampler, points, labels = resample(X, names[y], class_pairs="nearest")
        np.testing.assert_array_equal(points, expected)
        np.testing.assert_array_equal(labels, names[codes])
        assert sampler.pairs_ == [(names[1], names[0]), (names[2], names[1])]


@pytest.mark.parametrize("estimator", ["logistic", "fitted here", "network"])
def test_booleans_are_labels(two, logistic, estimator):
    X, y = two
    estimator = {"logistic": logistic, "network": nn.Linear(6, 2).double()}.get(estimator)
    sampler, points, labels = resample(X, y.astype(bool), estimator=estimator)
    assert labels.dtype == bool and labels.all() and sampler.sampling_strategy_ == {True: 280}
    np.testing.assert_array_equal(points, resample(X, y, estimator=estimator)[1])


def test_labels_may_be_strings_of_dtype_object(two):
    X, y = two
    names = np.array(["a", "b"], dtype=object)
    trained = FrozenEstimator(LogisticRegression().fit(X, names[y]))
    for estimator in (None, trained, FrozenNetwork(nn.Linear(6, 2).double(), classes=["a", "b"])):
        _, points, labels = resample(X, names[y], estimator=estimator)
        assert labels.dtype == object and set(labels) == {"b"} and len(points) == 280


@pytest.mark.parametrize("dtype", [str, object])
def test_positions_come_back_as_positions(two, dtype):
    """A network that names its classes, and y that counts them."""
    X, y = two
    net = nn.Linear(6, 2).double()
    _, expected, _ = resample(X, y, estimator=net)
    named = FrozenNetwork(net, classes=np.array(["a", "b"], dtype=dtype))
    with pytest.warns(EncodedLabelsWarning, match="0 stands for 'a'") as caught:
        sampler, points, labels = resample(X, y, estimator=named)
    assert caught[0].filename == __file__
    assert labels.dtype == y.dtype and (labels == 1).all() and sampler.pairs_ == [(1, 0)]
    assert sampler.classes_.tolist() == [0, 1]
    np.testing.assert_array_equal(points, expected)


# ----------------------------------------------------------------------------- estimators


@pytest.mark.parametrize("how", [RandomForestClassifier(20, random_state=0), GaussianNB()])
def test_black_boxes(two, how):
    X, y = two
    sampler, points, labels = resample(X, y, estimator=how)
    assert len(labels) == 280 and no_two_equal(points)
    proba = sampler.estimator_.predict_proba(points)[:, 1]
    np.testing.assert_allclose(proba, sampler.probabilities_, atol=1e-9)
    off = np.abs(proba - sampler.targets_)
    if isinstance(how, GaussianNB):
        assert off.max() < 1e-3
        return
    assert off.max() > 1e-3  # a forest jumps ...
    for (a, b), t, p, target in zip(sampler.parents_, sampler.positions_, proba, sampler.targets_):
        grid = np.linspace(0, 1, 400)[:, None]
        seen = sampler.estimator_.predict_proba(X[a] + grid * (X[b] - X[a]))[:, 1]
        # ... and no value on the near side of the jump that was found is nearer
        sides = seen[np.abs(grid[:, 0] - t) < 0.02]
        assert abs(p - target) <= np.abs(sides - target).min() + 0.05


class CountThreads(LogisticRegression):
    """Stores the numbers of BLAS threads that it was fitted with."""

    seen = []

    def fit(self, X, y):
        self.seen.append(blas_threads())
        return super().fit(X, y)


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_only_the_default_classifier_is_limited_to_one_thread(two, monkeypatch):
    monkeypatch.setattr(CountThreads, "seen", [])
    with threadpool_limits(2):
        before = blas_threads()
        resample(*two, estimator=CountThreads())
        monkeypatch.setattr(_fitting, "LogisticRegression", CountThreads)
        resample(*two)
        assert blas_threads() == before
    assert CountThreads.seen == [before, {1}]


def test_default_pairs_in_the_scaled_space(two):
    X, y = two
    scale = 10.0 ** np.arange(6)
    plain, points, _ = resample(X, y)
    scaled, others, _ = resample(X * scale, y)
    np.testing.assert_array_equal(plain.parents_, scaled.parents_)
    np.testing.assert_allclose(points, others / scale, atol=1e-3)


def test_the_default_classifier_has_the_columns_of_a_dataframe(two):
    pd = pytest.importorskip("pandas")
    X = pd.DataFrame(two[0], columns=list("abcdef"))
    sampler = BiasedExtrapolationSampler(random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FewParentsWarning)
        sampler.fit_resample(X, two[1])
        sampler.estimator_.predict(X)


def test_a_pipeline_that_selects_columns_by_name(two):
    pd = pytest.importorskip("pandas")
    X = pd.DataFrame(two[0], columns=list("abcdef"))
    by_name = make_column_transformer((StandardScaler(), ["a", "c"]), (StandardScaler(), ["f"]))
    pipe = make_pipeline(by_name, LogisticRegression(class_weight="balanced")).fit(X, two[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        X_new, y_new = BiasedExtrapolationSampler(estimator=FrozenEstimator(pipe)).fit_resample(
            X, two[1]
        )
    assert list(X_new) == list("abcdef") and y_new.sum() == 340


def test_images_with_a_network_that_takes_them(cnn, digits):
    X, y = digits
    keep = np.flatnonzero((y == 3) | ((y == 8) & (np.arange(len(y)) % 4 == 0)))
    X, y = X[keep], y[keep]
    sampler, points, labels = resample(
        X, y, estimator=FrozenNetwork(cnn), sampling_strategy={8: 30}
    )
    assert points.shape[1:] == (1, 8, 8) and points.dtype == np.float32 and (labels == 8).all()
    assert sampler.pairs_ == [(8, 3)] and sampler.classes_.tolist() == list(range(10))
    logits = FrozenNetwork(cnn).decision_function(points)
    p = 1 / (1 + np.exp(logits[:, 3] - logits[:, 8]))
    np.testing.assert_allclose(p, sampler.probabilities_, atol=1e-5)
    np.testing.assert_allclose(p, sampler.targets_, atol=1e-3)


def test_no_crossing_falls_back_to_midpoints_with_one_warning(two):
    X, y = two
    constant = FrozenEstimator(LogisticRegression().fit(X, y))
    constant.estimator.intercept_[:] = -1e6
    with pytest.warns(NoCrossingWarning, match="280 new samples") as caught:
        sampler, points, labels = resample(X, y, estimator=constant)
    assert len([w for w in caught if w.category is NoCrossingWarning]) == 1
    assert caught[0].filename == __file__
    assert sampler.n_fallback_ == len(labels) == 280 and np.isnan(sampler.targets_).all()
    assert (sampler.positions_ == 0.5).all() and no_two_equal(points)
    assert (y[sampler.parents_] == [1, 0]).all()


def test_verbose_shows_two_bars_and_no_more(capsys):
    net, X, y = curved()
    resample(X, y, estimator=net)
    assert capsys.readouterr() == ("", "")
    resample(X, y, estimator=net, verbose=1)
    out, err = capsys.readouterr()
    bars = {part.split(":")[0].strip() for part in err.split("\r") if ":" in part}
    assert not out and bars == {"network", "new samples"} and "/200 " in err


# ----------------------------------------------------------------------------- containers


@pytest.mark.parametrize("interface", ["spmatrix", "sparray"])
@pytest.mark.parametrize("kind", ["matrix", "array"])
@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "dok", "bsr"])
def test_sparse(two, form, kind, interface):
    X, y = two
    dense = np.where(np.abs(X) < 0.3, 0, X)
    _, points, _ = resample(dense, y)
    given = getattr(sparse, f"{form}_{kind}")(dense)
    with config_context(sparse_interface=interface):
        X_new, _ = BiasedExtrapolationSampler(random_state=0, **PAPER).fit_resample(given, y)
    assert sparse.isspmatrix(X_new) == (interface == "spmatrix")
    assert X_new.format == form and X_new.dtype == np.float64
    np.testing.assert_array_equal(X_new.toarray(), np.concatenate([dense, points]))


def test_integers(two):
    pd = pytest.importorskip("pandas")
    X, y = np.rint(two[0] * 20).astype(int), two[1]
    _, points, _ = resample(X, y)
    assert points.dtype == np.float64 and (points != np.rint(points)).any()
    frame = pd.DataFrame(X, columns=list("abcdef")).assign(a=X[:, 0] / 2)
    sampler = BiasedExtrapolationSampler(random_state=0)
    with pytest.warns(DataConversionWarning, match="5 integer columns") as caught:
        X_new, y_new = sampler.fit_resample(frame, pd.Series(y, name="y"))
    assert len([w for w in caught if w.category is DataConversionWarning]) == 1
    assert list(X_new.dtypes) == list(frame.dtypes) and y_new.name == "y"
    a, b = (frame.to_numpy()[points] for points in sampler.parents_.T)
    expected = a + sampler.positions_[:, None] * (b - a)
    expected[:, 1:] = np.rint(expected[:, 1:])
    np.testing.assert_allclose(X_new.to_numpy()[400:], expected)
    proba = sampler.estimator_.predict_proba(X_new[400:])[:, 1]
    np.testing.assert_allclose(proba, sampler.probabilities_, atol=1e-9)


# ------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("estimator", [None, LogisticRegression()])
def test_duplicate_columns_are_named(two, estimator):
    pd = pytest.importorskip("pandas")
    X = pd.DataFrame(two[0], columns=list("abcdea"))
    with pytest.raises(ValueError, match="duplicate column names: .'a'"):
        resample(X, two[1], estimator=estimator)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"instance_pairing": "nearest"}, ["class 1", "4 samples", "neighbors=5"]),
        (
            {"settings": BiasSettings(class_specific="threshold")},
            ["class 2", "2 samples", "class_specific='threshold'"],
        ),
        ({"class_pairs": {1: "x"}}, ["class_pairs", "'x'", "[0, 1, 2]"]),
        ({"class_pairs": {7: 0}}, ["class_pairs", "7", "[0, 1, 2]"]),
        ({"class_pairs": {1: [0, 1]}}, ["class_pairs", "class 1", "[0, 1]"]),
        ({"class_pairs": {1: []}}, ["class_pairs", "class 1", "at least one"]),
        ({"settings": BiasSettings(gamma=1.5)}, ["'gamma'", "[-1.0, 1.0]", "1.5"]),
        ({"settings": BiasSettings(gamma=-2)}, ["'gamma'", "[-1.0, 1.0]", "-2"]),
        ({"settings": BiasSettings(p_min=0.5)}, ["'p_min'", "[0.0, 0.5)", "0.5"]),
        ({"settings": {"gamma": 0.1}}, ["'settings'", "BiasSettings"]),
        ({"neighbors": 0}, ["'neighbors'", "[1, inf)"]),
        ({"estimator": LogisticRegression(C=-1)}, ["'C'", "-1"]),
    ],
)
def test_bad_parameters(params, words):
    X = np.random.RandomState(0).normal(size=(20, 3))
    y = np.repeat([0, 1, 2], [14, 4, 2])
    with pytest.raises(ValueError) as error:
        BiasedExtrapolationSampler(**params).fit_resample(X, y)
    assert not [word for word in words if word not in str(error.value)], error.value


def test_a_class_of_one_sample_has_no_neighbors():
    X, y = np.random.RandomState(0).normal(size=(21, 3)), np.repeat([0, 1], [20, 1])
    with pytest.raises(ValueError, match="class 1 has 1 samples, but within_class=0.5 needs"):
        BiasedExtrapolationSampler().fit_resample(X, y)
    assert len(BiasedExtrapolationSampler(within_class=0).fit_resample(X, y)[0]) == 40
    few = BiasedExtrapolationSampler(within_class=1).fit_resample(X, np.repeat([0, 1], [18, 3]))
    assert len(few[0]) == 36


def test_one_class():
    with pytest.raises(ValueError, match="1 class"):
        BiasedExtrapolationSampler().fit_resample(np.eye(4), np.zeros(4))


def test_an_estimator_fitted_on_other_classes(two, logistic):
    X, y = two
    with pytest.raises(ValueError, match=r"'a', .* 2 classes \[0, 1\].* trained on all"):
        BiasedExtrapolationSampler(estimator=logistic).fit_resample(X, np.array(["a", "b"])[y])
    with pytest.raises(ValueError, match="7, .* trained on all"):
        BiasedExtrapolationSampler(estimator=logistic).fit_resample(X, 7 * y)


def test_an_estimator_fitted_on_other_features(two, logistic):
    X, y = two
    for estimator in (logistic, FrozenEstimator(GaussianNB().fit(X, y))):
        with pytest.raises(ValueError, match="5 features.*estimator was fitted with 6"):
            BiasedExtrapolationSampler(estimator=estimator).fit_resample(X[:, :5], y)
    with pytest.raises(ValueError, match=r"^Linear fails .* samples of shape \(5,\)"):
        BiasedExtrapolationSampler(estimator=nn.Linear(6, 2)).fit_resample(X[:, :5], y)
    with pytest.raises(ValueError, match=r"shape \(2, 3\), but estimator=None takes vectors"):
        BiasedExtrapolationSampler().fit_resample(X.reshape(-1, 2, 3), y)


class Undefined(Curved):
    """NaN where the first column lies in an interval."""

    low, high = 0.0, 0.0

    def forward(self, x):
        out = super().forward(x)
        return out.masked_fill((x[:, :1] >= self.low) & (x[:, :1] < self.high), np.nan)


def test_a_classifier_that_gives_nan_is_refused(two):
    _, X, y = curved()
    net = Undefined()
    net.low, net.high = X[17, 0], X[18, 0]
    with pytest.raises(ValueError, match="Undefined gives NaN for sample 17 of X"):
        resample(X, y, estimator=net)
    net.low, net.high = X[249, 0] + 1e-9, X[250, 0]  # between samples, next to the boundary
    for bias in ("asymmetric", "dbr"):
        with pytest.raises(ValueError, match="points between samples.*Undefined gives NaN"):
            resample(X, y, estimator=net, bias=bias)

    class UndefinedNB(GaussianNB):
        def predict_proba(self, X):
            p = super().predict_proba(X)
            p[X[:, 0] == two[0][5, 0]] = np.nan
            return p

    with pytest.raises(ValueError, match="UndefinedNB gives NaN for sample 5 of X"):
        resample(*two, estimator=FrozenEstimator(UndefinedNB().fit(*two)))


def test_nan_is_named_by_its_sample(two):
    X, y = two[0].copy(), two[1]
    X[17, 2] = np.nan
    for points in (X, sparse.csr_matrix(X)):
        with pytest.raises(ValueError, match="NaN in sample 17"):
            BiasedExtrapolationSampler().fit_resample(points, y)
