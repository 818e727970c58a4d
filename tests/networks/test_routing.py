"""Metadata of `fit`: weights and groups for what the estimators fit inside."""

import re

import numpy as np
import pytest
import sklearn
import torch
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import make_pipeline as make_resampling_pipeline
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer, make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedGroupKFold, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tests import metadata_routing_common as common
from sklearn.tests import test_metaestimators_metadata_routing as sklearn_tests
from skorch import NeuralNetClassifier
from torch import nn

from skboundary import (
    BiasedExtrapolationClassifier,
    BiasedExtrapolationSampler,
    BiasSettings,
    BoundaryCharacterizer,
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
    LatentKNNClassifierCV,
    LatentTransformer,
    LogitAdjustedClassifier,
    SubspaceMargins,
)
from skboundary.networks import as_network

SPECIFIC = BiasSettings(class_specific="proportional")
CHOSEN = {"n_neighbors": [1, 5], "query_weight": [0.0, 0.5], "metric": ["euclidean"]}
HOSTS = {
    "latent": LatentTransformer(),
    "knn": LatentKNNClassifier(),
    "knn-cv": LatentKNNClassifierCV(cv=2, **CHOSEN),
    "knn-fraction": LatentKNNClassifierCV(validation_fraction=0.3, random_state=0, **CHOSEN),
    "knn-kept": LatentKNNClassifierCV(validation_fraction=0.3, refit=False, **CHOSEN),
    "extractor": BoundarySampleExtractor(method="label", effort="fast"),
    "characterizer": BoundaryCharacterizer(n_samples=2, n_partners=1),
    "margins": SubspaceMargins(method="label", subspaces=None, max_iter=1),
    "sampler": BiasedExtrapolationSampler(),
    "sampler-specific": BiasedExtrapolationSampler(settings=SPECIFIC),
    "logit": LogitAdjustedClassifier(),
    "logit-auto": LogitAdjustedClassifier(tau="auto", cv=2),
}
WHOLE = sorted({*HOSTS} - {"knn-kept"})  # those whose last fit gets all samples


def host(name, estimator):
    return clone(HOSTS[name]).set_params(estimator=estimator)


def fit(host, X, y, **metadata):
    if hasattr(host, "fit_resample"):
        host.fit_resample(X, y, **metadata)
        return host
    return host.fit(X, y, **metadata)


class Aligned(ClassifierMixin, BaseEstimator):
    """Naive Bayes whose weights must be the first column of its own samples."""

    n_fits = 0

    def fit(self, X, y, sample_weight=None):
        np.testing.assert_array_equal(sample_weight, np.asarray(X)[:, 0])
        type(self).n_fits += 1
        self.model_ = GaussianNB().fit(X, y, sample_weight)
        self.classes_ = self.model_.classes_
        return self

    def predict(self, X):
        return self.model_.predict(X)

    def predict_proba(self, X):
        return self.model_.predict_proba(X)


@pytest.fixture
def data():
    """Three classes of different sizes, weights in the first column, and groups."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [40, 30, 20])
    X = rng.normal(size=(90, 3)) + 2 * np.eye(3)[y]
    X[:, 0] = np.abs(X[:, 0]) + 0.1
    order = rng.permutation(90)
    return X[order], y[order], X[order, 0].copy(), rng.integers(8, size=90)


# ------------------------------------------------------------------------- scikit-learn's checks


class Consuming(common.ConsumingClassifier):
    """The classifier of scikit-learn's tests, which records metadata, and which classifies."""

    def fit(self, X, y, sample_weight="default", metadata="default"):
        super().fit(X, y, sample_weight=sample_weight, metadata=metadata)
        self.model_ = GaussianNB().fit(X, y)
        return self

    def predict(self, X):
        return self.model_.predict(X)

    def predict_proba(self, X):
        return self.model_.predict_proba(X)


def row(cls, methods=("fit",), **other):
    """An entry of scikit-learn's METAESTIMATORS."""
    return {
        "metaestimator": cls,
        "estimator_name": "estimator",
        "estimator": "classifier",
        "X": sklearn_tests.X,
        "y": sklearn_tests.y,
        "estimator_routing_methods": [*methods],
        **other,
    }


CV = {"cv_name": "cv", "cv_routing_methods": ["fit"], "preserves_metadata": "subset"}
ROWS = [
    row(LatentTransformer),
    row(LatentKNNClassifier),
    row(
        LatentKNNClassifierCV,
        init_args=CHOSEN,
        scorer_name="scoring",
        scorer_routing_methods=["fit"],
        **CV,
    ),
    row(BoundarySampleExtractor, init_args={"method": "label", "effort": "fast"}),
    row(BoundaryCharacterizer, init_args={"n_samples": 2, "n_partners": 1}),
    row(SubspaceMargins, init_args={"method": "label", "subspaces": None, "max_iter": 1}),
    row(
        BiasedExtrapolationSampler,
        ["fit_resample"],
        method_mapping={"fit_resample": ["fit"]},
        init_args={"settings": SPECIFIC},
        preserves_metadata="subset",
    ),
    row(
        BiasedExtrapolationClassifier,
        [("fit", ["metadata"])],
        init_args={"n_iter": 1},
        preserves_metadata="subset",
    ),
    row(LogitAdjustedClassifier, init_args={"tau": "auto"}, **CV),
]
NEEDS = {  # what each check needs of a row
    "test_default_request": "estimator",
    "test_error_on_missing_requests_for_sub_estimator": "estimator",
    "test_setting_request_on_sub_estimator_removes_error": "estimator",
    "test_non_consuming_estimator_works": "estimator",
    "test_metadata_is_routed_correctly_to_scorer": "scorer_name",
    "test_metadata_is_routed_correctly_to_splitter": "cv_name",
    "test_metadata_routed_to_sub_estimator_in_pipeline": "estimator",
    "test_metadata_routed_to_group_splitter": "cv_name",
}
CHECKS = [
    pytest.param(check, entry, id=f"{entry['metaestimator'].__name__}-{check}")
    for entry in ROWS
    for check, needed in NEEDS.items()
    if needed in entry
    # this check takes the request of a classifier for one of `fit_resample`; tested below
    and (entry["metaestimator"] is not BiasedExtrapolationSampler or "missing" not in check)
]


@pytest.mark.parametrize(("check", "entry"), CHECKS)
def test_checks_of_scikit_learn(check, entry, monkeypatch):
    if not hasattr(sklearn_tests, check):
        assert sklearn.__version__ == "1.9.0" and check.endswith("sub_estimator_in_pipeline")
        pytest.skip("scikit-learn 1.9.0 does not have this check")
    monkeypatch.setattr(sklearn_tests, "ConsumingClassifier", Consuming)
    monkeypatch.setattr(sklearn_tests, "NonConsumingClassifier", KNeighborsClassifier)
    getattr(sklearn_tests, check)(entry)


def test_unset_requests_of_a_sampler_are_an_error(data):
    X, y, w, _ = data
    with config_context(enable_metadata_routing=True):
        sampler = BiasedExtrapolationSampler(Aligned())
        with pytest.raises(UnsetMetadataPassedError, match="not requested for Aligned.fit"):
            sampler.fit_resample(X, y, sample_weight=w)


# ------------------------------------------------------------------------------ weights of samples


@pytest.mark.parametrize(
    ("name", "scale", "dtype"),
    [(name, 1.0, np.float64) for name in WHOLE]
    + [("knn", scale, dtype) for scale in (1.0, 1e3) for dtype in (np.float32, np.float64)],
)
def test_a_weight_of_2_equals_a_repeated_sample(name, scale, dtype, data):
    X, y, _, _ = data
    X = (scale * X).astype(dtype)
    w = np.random.default_rng(1).integers(1, 4, size=len(y))
    exact = GaussianNB(var_smoothing=0)
    weighted = fit(host(name, exact), X, y, sample_weight=w).estimator_
    repeated = fit(host(name, exact), np.repeat(X, w, 0), np.repeat(y, w)).estimator_
    tol = 1e-4 if dtype == np.float32 else 1e-10
    for attribute in ("theta_", "var_", "class_prior_"):
        expected = getattr(repeated, attribute)
        np.testing.assert_allclose(getattr(weighted, attribute), expected, rtol=tol)
    plain = GaussianNB().fit(X, y)
    assert np.abs(weighted.class_prior_ - plain.class_prior_).max() > 1e-3


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("routing", [False, True])
def test_weights_belong_to_the_samples_of_each_fit(name, routing, data):
    X, y, w, _ = data
    with config_context(enable_metadata_routing=routing):
        inner = Aligned()
        if routing:
            inner.set_fit_request(sample_weight=True)
        model = host(name, inner)
        if routing and name.startswith("knn-"):
            model.set_params(scoring=get_scorer("accuracy").set_score_request(sample_weight=True))
        before = Aligned.n_fits
        fit(model, X, y, sample_weight=w)
        n_fits = {"knn-cv": 3, "knn-fraction": 2, "sampler-specific": 4, "logit-auto": 3}
        assert Aligned.n_fits - before == n_fits.get(name, 1)


def test_weights_of_a_float_container_arrive_as_arrays(data):
    X, y, w, _ = data
    pandas, dask = pytest.importorskip("pandas"), pytest.importorskip("dask.array")
    kinds = [list, pandas.Series, torch.tensor, lambda a: dask.from_array(a, chunks=30)]
    for name in ("knn", "knn-cv", "logit-auto", "sampler-specific"):
        for kind in kinds:
            fit(host(name, Aligned()), X, y, sample_weight=kind(w))
    samples = dask.from_array(X, chunks=(30, 3))
    LatentKNNClassifier(Aligned()).fit(samples, y, sample_weight=w).predict(X)


def test_the_default_classifier_of_the_sampler_takes_weights(data):
    X, y, _, _ = data
    w = np.random.default_rng(1).integers(1, 4, size=len(y))
    expected = BiasedExtrapolationSampler()
    expected.fit_resample(np.repeat(X, w, 0), np.repeat(y, w))
    for routing in (False, True):
        with config_context(enable_metadata_routing=routing):
            sampler = BiasedExtrapolationSampler()
            sampler.fit_resample(X, y, sample_weight=w)
        ours, theirs = sampler.estimator_, expected.estimator_
        np.testing.assert_allclose(ours[0].scale_, theirs[0].scale_)
        np.testing.assert_allclose(ours[1].coef_, theirs[1].coef_, atol=1e-4)
    plain = BiasedExtrapolationSampler()
    plain.fit_resample(X, y)
    assert np.abs(plain.estimator_[1].coef_ - theirs[1].coef_).max() > 1e-2


@pytest.mark.parametrize("routing", [False, True])
def test_shares_of_classes_count_the_weights_of_the_classifier(routing, data):
    X, y, w, _ = data
    expected = np.bincount(y, w) / w.sum()
    with config_context(enable_metadata_routing=routing):
        alone, last = Aligned(), make_pipeline("passthrough", Aligned())
        of_pipe, of_search = (GridSearchCV(each, {}, cv=3) for each in (last, alone))
        names = ("sample_weight", "aligned__sample_weight") * 2
        if routing:
            names = 4 * ("v",)
            alone.set_fit_request(sample_weight="v"), last[-1].set_fit_request(sample_weight="v")
        for estimator, name in zip((alone, last, of_search, of_pipe), names):
            clf = LogitAdjustedClassifier(estimator).fit(X, y, **{name: w})
            np.testing.assert_allclose(clf.prior_, expected)
            np.testing.assert_allclose(
                clf.predict_proba(X),
                (p := clf.estimator_.predict_proba(X) / expected) / p.sum(1, keepdims=True),
                atol=1e-6,
            )


def test_tau_maximizes_the_weighted_balanced_accuracy_of_the_folds(data):
    X, y, w, groups = data
    X[:, 1:] *= 0.3  # classes overlap
    folds = [*StratifiedGroupKFold(3).split(X, y, groups)]
    test = np.concatenate([test for _, test in folds])
    proba = np.concatenate(
        [GaussianNB().fit(X[a], y[a], w[a]).predict_proba(X[b]) for a, b in folds]
    )
    prior, right = np.bincount(y, w) / w.sum(), []
    for tau in np.linspace(0, 3, 61):
        hit = (np.log(proba) - tau * np.log(prior)).argmax(1) == y[test]
        recalls = [np.average(hit[y[test] == c], weights=w[test][y[test] == c]) for c in range(3)]
        right.append(np.mean(recalls))
    clf = LogitAdjustedClassifier(GaussianNB(), tau="auto", cv=StratifiedGroupKFold(3))
    clf.fit(X, y, sample_weight=w, groups=groups)
    assert right[round(clf.tau_ / 0.05)] == pytest.approx(max(right))
    assert max(right) > min(right) + 0.02


def test_scores_count_the_weights_as_in_a_grid_search(data):
    X, y, w, _ = data
    X[:, 1:] *= 0.3
    grid, folds = {**CHOSEN, "average": ["proba"]}, StratifiedKFold(3)
    theirs = GridSearchCV(LatentKNNClassifier(GaussianNB()), grid, cv=folds)
    theirs.fit(X, y, sample_weight=w)
    ours = LatentKNNClassifierCV(GaussianNB(), cv=folds, **grid).fit(X, y, sample_weight=w)
    name = "mean_test_score"
    np.testing.assert_allclose(ours.cv_results_[name], theirs.cv_results_[name])
    plain = LatentKNNClassifierCV(GaussianNB(), cv=folds, **grid).fit(X, y)
    assert np.abs(plain.cv_results_[name] - theirs.cv_results_[name]).max() > 1e-3
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-6)


def test_a_scorer_without_weights_gets_none_and_that_is_said(data):
    X, y, w, _ = data

    def scorer(clf, X, y):
        return clf.score(X, y)

    of_pairs = make_scorer(lambda y_true, y_pred: (y_true == y_pred).mean())
    for scoring in (scorer, of_pairs):
        chosen = LatentKNNClassifierCV(Aligned(), scoring=scoring, **CHOSEN)
        with pytest.warns(UserWarning, match="takes no sample_weight.*make_scorer"):
            chosen.fit(X, y, sample_weight=w)
        scores = chosen.cv_results_["mean_test_score"]
        for each, score in zip(chosen.cv_results_["params"], scores):
            clf = LatentKNNClassifier(Aligned(), **each)
            folds = StratifiedKFold(5).split(X, y)
            parts = [clf.fit(X[a], y[a], sample_weight=w[a]).score(X[b], y[b]) for a, b in folds]
            assert score == pytest.approx(np.mean(parts))


# --------------------------------------------------------------------------------------- groups


@pytest.mark.parametrize("routing", [False, True])
def test_groups_determine_the_folds(routing, data):
    X, y, _, groups = data
    X[:, 1:] *= 0.3
    with config_context(enable_metadata_routing=routing):
        given = [*GroupKFold(3).split(X, y, groups)]
        ours = LatentKNNClassifierCV(GaussianNB(), cv=GroupKFold(3), **CHOSEN)
        ours.fit(X, y, groups=groups)
        theirs = LatentKNNClassifierCV(GaussianNB(), cv=given, **CHOSEN).fit(X, y)
        np.testing.assert_array_equal(ours.scores_, theirs.scores_)
        tau = LogitAdjustedClassifier(GaussianNB(), tau="auto", cv=GroupKFold(3))
        other = LogitAdjustedClassifier(GaussianNB(), tau="auto", cv=given).fit(X, y)
        assert tau.fit(X, y, groups=groups).tau_ == other.tau_


def test_a_fold_without_a_class_is_refused(data):
    X, y, _, _ = data
    clf = LogitAdjustedClassifier(GaussianNB(), tau="auto", cv=GroupKFold(3))
    with pytest.raises(ValueError, match="GroupKFold.*has no sample of the class 0.*stratified"):
        clf.fit(X, y, groups=y)


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize(
    ("model", "other", "match"),
    [
        (LatentKNNClassifierCV(cv=GroupKFold(3)), True, "for its splitter, but X_val has none"),
        (LatentKNNClassifierCV(cv=GroupKFold(3), validation_fraction=0.3), False, "makes no folds"),
        (LogitAdjustedClassifier(cv=GroupKFold(3)), False, "tau=1.0 is not chosen"),
        (LogitAdjustedClassifier(cv=GroupKFold(3), tau="auto"), True, "chosen on X_val"),
        (LatentKNNClassifierCV(cv=3), False, "groups"),
        (LogitAdjustedClassifier(cv=3, tau="auto"), False, "groups"),
        (LatentKNNClassifier(), False, "groups"),
    ],
)
def test_groups_without_folds_are_refused(model, other, match, routing, data):
    X, y, _, groups = data
    samples = {"X_val": X, "y_val": y} if other else {}
    model = clone(model).set_params(estimator=GaussianNB())
    with config_context(enable_metadata_routing=routing):
        with pytest.raises(TypeError, match=match):
            model.fit(X, y, groups=groups, **samples)


def test_a_scorer_that_requests_weights_of_x_val_is_refused(data):
    X, y, w, _ = data
    with config_context(enable_metadata_routing=True):
        scorer = get_scorer("accuracy").set_score_request(sample_weight=True)
        clf = LatentKNNClassifierCV(GaussianNB().set_fit_request(sample_weight=True))
        clf.set_params(scoring=scorer, **CHOSEN)
        with pytest.raises(TypeError, match="'sample_weight'. for its scorer, but X_val has none"):
            clf.fit(X, y, sample_weight=w, X_val=X, y_val=y)
    clf = LatentKNNClassifierCV(Aligned(), **CHOSEN)
    clf.fit(X, y, sample_weight=w, X_val=X + 0.1, y_val=y)  # whose scores have no weights


# ------------------------------------------------------------------------ what cannot be used


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("name", [*HOSTS, "classifier"])
def test_metadata_of_classifiers_that_are_not_fitted_are_refused(name, routing, data):
    X, y, w, _ = data
    with config_context(enable_metadata_routing=routing):
        inner = GaussianNB()
        if routing:
            inner.set_fit_request(sample_weight=True)
        net = nn.Sequential(nn.Linear(3, 3)).double()
        trained = [net, FrozenNetwork(net), FrozenEstimator(inner.fit(X, y, sample_weight=w))]
        for estimator in [*trained, None][: 3 if name.startswith("sampler") else 4]:
            if name == "classifier":
                model = BiasedExtrapolationClassifier(estimator, n_iter=0)
            else:
                model = host(name, estimator)
            reason = "default network takes none" if estimator is None else "trained and not fitted"
            with pytest.raises(TypeError, match=f"sample_weight.*{reason}"):
                fit(model, X, y, sample_weight=w)


def test_metadata_of_as_network():
    X, y = np.eye(3), np.arange(3)
    for estimator in (nn.Linear(3, 3), None):
        with pytest.raises(TypeError, match="fit got .'sample_weight'., but"):
            as_network(estimator, X, y, fit_params={"sample_weight": np.ones(3)})
    weight = np.array([1.0, 2.0, 1.0])
    fitted, _ = as_network(GaussianNB(), X, y, fit_params={"sample_weight": weight})
    np.testing.assert_allclose(fitted.class_prior_, weight / 4)


def skorch_net():
    sizes = {"module__in_features": 3, "module__out_features": 3}
    loss = nn.CrossEntropyLoss
    return NeuralNetClassifier(nn.Linear, **sizes, criterion=loss, verbose=0, max_epochs=1)


def test_skorch_nets_take_no_weights_and_steps_before_them_do(data):
    X, y, w, _ = data
    X = X.astype(np.float32)
    with pytest.raises(TypeError, match="NeuralNetClassifier got .'sample_weight'.*no metadata"):
        LatentKNNClassifier(skorch_net()).fit(X, y, sample_weight=w)
    pipe = LatentKNNClassifier(make_pipeline(StandardScaler(), skorch_net()))
    with pytest.raises(TypeError, match="NeuralNetClassifier got .'sample_weight'"):
        pipe.fit(X, y, neuralnetclassifier__sample_weight=w)
    means = [pipe.fit(X, y, standardscaler__sample_weight=w).estimator_[0].mean_]
    with config_context(enable_metadata_routing=True):
        steps = [StandardScaler().set_fit_request(sample_weight=True), skorch_net()]
        pipe = LatentKNNClassifier(make_pipeline(*steps)).fit(X, y, sample_weight=w)
        means.append(pipe.estimator_[0].mean_)
    np.testing.assert_allclose(means, [np.average(X, 0, w)] * 2, rtol=1e-5)


@pytest.mark.parametrize("routing", [False, True])
def test_new_samples_of_the_rounds_have_no_weights(routing, data):
    X, y, w, _ = data
    with config_context(enable_metadata_routing=routing):
        inner, head = Aligned(), LogisticRegression()
        if routing:
            inner.set_fit_request(sample_weight=True)
        clf = BiasedExtrapolationClassifier(inner, sampler=SMOTE(), n_iter=1)
        with pytest.raises(ValueError, match="no metadata.*FrozenEstimator"):
            clf.fit(X, y, sample_weight=w)
        if routing:
            clf.set_params(
                estimator=GaussianNB().set_fit_request(sample_weight=False),
                head=head.set_fit_request(sample_weight=True),
            )
            with pytest.raises(TypeError, match="for its head, but samples that are added"):
                clf.fit(X, y, sample_weight=w)
            assert clf.fit(X, y).n_iter_ <= 1


@pytest.mark.parametrize("name", ["knn", "knn-kept", "sampler", "logit-auto"])
def test_weights_of_another_length_or_with_a_mask_are_refused(name, data):
    X, y, w, _ = data
    model = host(name, GaussianNB())
    n_train = 63  # of the training samples of knn-kept, which would be taken as they are
    with pytest.raises(ValueError, match="inconsistent numbers of samples.*90, 63"):
        fit(model, X, y, sample_weight=w[:n_train])
    with pytest.raises(ValueError, match="sample_weight is a masked array"):
        fit(model, X, y, sample_weight=np.ma.masked_less(w, np.median(w)))
    piped = host(name, make_pipeline(GaussianNB()))
    with pytest.raises(ValueError, match="inconsistent numbers of samples.*90, 63"):
        fit(piped, X, y, gaussiannb__sample_weight=w[:n_train])
    fit(model, X, y, sample_weight=None)


def test_unknown_metadata_are_refused(data):
    X, y, w, _ = data
    with pytest.raises(TypeError, match="unexpected keyword argument 'weight'"):
        LatentKNNClassifier(GaussianNB()).fit(X, y, weight=w)
    with pytest.raises(TypeError, match="unexpected keyword argument 'sample_weight'"):
        BiasedExtrapolationSampler(GaussianNB()).fit(X, y, sample_weight=w)
    with pytest.raises(TypeError, match=r"\['groups'\], but the default classifier takes"):
        BiasedExtrapolationSampler().fit_resample(X, y, groups=w, sample_weight=w)
    with config_context(enable_metadata_routing=True):
        with pytest.raises(TypeError, match="{'weight'}, which are not routed"):
            LatentKNNClassifier(GaussianNB()).fit(X, y, weight=w)


def test_partial_fit_takes_metadata_in_the_first_call(data):
    X, y, w, _ = data
    clf = LatentKNNClassifier(Aligned()).partial_fit(X, y, sample_weight=w)
    before = clf.n_samples_fit_
    with pytest.raises(TypeError, match="not trained further"):
        clf.partial_fit(X, y, sample_weight=w)
    assert clf.n_samples_fit_ == before
    assert clf.partial_fit(X, y, sample_weight=None).n_samples_fit_ == 2 * before


def test_a_failed_fit_keeps_the_estimator(data):
    X, y, w, _ = data
    clf = LatentKNNClassifier(Aligned()).fit(X, y, sample_weight=w)
    before = clf.predict_proba(X)
    with pytest.raises(AssertionError):
        clf.fit(X[:50], y[:50], sample_weight=w[:50] + 1)
    np.testing.assert_array_equal(clf.predict_proba(X), before)


def test_other_weights_end_a_warm_start(data):
    X, y, w, _ = data
    model = host("characterizer", GaussianNB()).set_params(warm_start=True, random_state=0)
    first = model.fit(X, y, sample_weight=w).estimator_
    assert model.fit(X, y, sample_weight=w.copy()).estimator_ is first
    other = model.fit(X, y).estimator_
    np.testing.assert_allclose(other.class_prior_, np.bincount(y) / len(y))
    np.testing.assert_allclose(first.class_prior_, np.bincount(y, w) / w.sum())


# ------------------------------------------------------------------- inside searches and pipelines


def test_in_a_search_and_a_pipeline_without_routing(data):
    X, y, w, _ = data
    before = Aligned.n_fits
    search = GridSearchCV(LatentKNNClassifier(Aligned()), {"n_neighbors": [1, 5]}, cv=2)
    search.fit(X, y, sample_weight=w)
    assert Aligned.n_fits - before == 5
    knn = Pipeline([("latent", LatentTransformer(Aligned())), ("last", GaussianNB())])
    knn.fit(X, y, latent__sample_weight=w)
    assert Aligned.n_fits - before == 6


def test_in_a_search_and_a_pipeline_with_routing(data):
    X, y, w, groups = data
    with config_context(enable_metadata_routing=True):
        inner = Aligned().set_fit_request(sample_weight=True)
        before = Aligned.n_fits
        clf = LatentKNNClassifier(inner).set_score_request(sample_weight=True)
        search = GridSearchCV(clf, {"n_neighbors": [1, 5]}, cv=GroupKFold(2))
        search.fit(X, y, sample_weight=w, groups=groups)
        assert Aligned.n_fits - before == 5
        last = GaussianNB().set_fit_request(sample_weight=False)
        make_pipeline(LatentTransformer(inner), last).fit(X, y, sample_weight=w)
        resampler = BiasedExtrapolationSampler(inner, random_state=0)
        make_resampling_pipeline(resampler, last).fit(X, y, sample_weight=w)
        assert Aligned.n_fits - before == 7


def test_in_ensembles(data):
    X, y, w, _ = data
    before = Aligned.n_fits
    VotingClassifier([("knn", LatentKNNClassifier(Aligned()))]).fit(X, y, sample_weight=w)
    assert Aligned.n_fits - before == 1
    with config_context(enable_metadata_routing=True):
        clf = LatentKNNClassifier(Aligned().set_fit_request(sample_weight=True))
        CalibratedClassifierCV(clf, cv=3).fit(X, y, sample_weight=w)
        assert Aligned.n_fits - before == 4


def test_requests_of_a_trained_classifier_are_not_passed_on(data):
    X, y, w, _ = data
    with config_context(enable_metadata_routing=True):
        trained = GaussianNB().set_fit_request(sample_weight=True).fit(X, y)
        clf = LatentKNNClassifier(FrozenEstimator(trained))
        assert not clf.get_metadata_routing().consumes("fit", ["sample_weight"])
        scorer = get_scorer("accuracy").set_score_request(sample_weight=True)
        search = GridSearchCV(clf, {"n_neighbors": [1, 5]}, cv=2, scoring=scorer)
        search.fit(X, y, sample_weight=w)
        assert re.search("n_neighbors", str(search.best_params_))
