"""Every check passes for sound estimators and fails for an estimator that breaks its rule."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from skboundary.utils import estimator_checks as checks
from tests.utils import broken_estimators as broken
from tests.utils.sound_estimators import (
    Centroids,
    Neighbors,
    Network,
    Projection,
    Sampler,
    make_images,
    make_module,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads of torch only wait for each other on thirty samples."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


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


BROKEN = [
    (checks.check_no_global_rng_use, broken.SeedsTorch(), "fit of .* random state of torch"),
    (
        checks.check_no_global_rng_use,
        broken.DrawsFromNumpyInPredict(),
        "predict of .* state of numpy",
    ),
    (
        checks.check_batch_size_invariance,
        broken.StandardizesBatches(),
        "other results with batch_size=1",
    ),
    (checks.check_parameters_not_written_back, broken.WritesDeviceBack(), "its parameters device"),
    (checks.check_parameters_not_written_back, broken.ForgetsDevice(), "no `device_`"),
    (checks.check_integer_input, broken.KeepsIntegers(), "fails with uint8 samples: RuntimeError"),
    (checks.check_integer_input, broken.OverflowsBytes(), "other results for uint8 samples"),
    (
        checks.check_duplicates_and_zero_samples,
        broken.DividesByNorm(),
        "transform .* is not finite",
    ),
    (checks.check_duplicates_and_zero_samples, broken.RefusesDuplicates(), "duplicate sample"),
    (checks.check_float32_preserved, broken.ReturnsFloat64(), r"kneighbors\[0\] .* gives float64"),
    (checks.check_string_labels, broken.PredictsCodes(), "predicts int64, not classes_"),
    (
        checks.check_string_labels,
        broken.PredictsIntegersForBooleans(),
        "predicts int64, not classes_",
    ),
    (checks.check_string_labels, broken.ClassesAsTheyAppear(), "classes_ .*, not sorted"),
    (checks.check_string_labels, broken.SwapsColumnsOfStrings(), "predict_proba differs"),
    (checks.check_pickle_holds_cpu_tensors, broken.PicklesAnotherDevice(), "holds tensors on meta"),
    (checks.check_pickle_holds_cpu_tensors, broken.ForgetsWhenPickled(), "after being pickled"),
    (checks.check_pickle_holds_cpu_tensors, broken.CannotBePickled(), "fails to be pickled"),
    (checks.check_clone_and_grid_search, broken.ClonesToDefaults(), "random_state=None, not 0"),
    (checks.check_clone_and_grid_search, broken.ScoresFail(), "in a grid search .*: no score"),
    (
        checks.check_nonfinite_sample_named,
        broken.RefusesWithoutSample(),
        r"does not contain \['sample 7'\]",
    ),
    (
        checks.check_nonfinite_sample_named,
        broken.PredictsNaN(),
        "accepts transform with nan in sample 7",
    ),
    (checks.check_n_neighbors_too_large, broken.ClampsNeighbors(), "accepts n_neighbors=31"),
    (checks.check_n_neighbors_too_large, broken.FailsInTopK(), "RuntimeError, not ValueError"),
    (
        checks.check_read_only_and_strided_input,
        broken.WarnsAboutReadOnly(),
        "warns with a read-only",
    ),
    (
        checks.check_read_only_and_strided_input,
        broken.WarnsAboutOrder(),
        "warns with negative strides",
    ),
    (
        checks.check_read_only_and_strided_input,
        broken.IgnoresStrides(),
        "results with Fortran order",
    ),
    (checks.check_input_untouched, broken.SharesMemory(make_module()), "fit of .* the values of X"),
    (
        checks.check_input_untouched,
        broken.RoundsUp(),
        "transform of RoundsUp changes the values of X",
    ),
    (checks.check_unknown_device, broken.UsesAnotherDevice(), "accepts device='cuda:99'"),
    (checks.check_unknown_device, broken.HidesDevice(), "does not contain .*cuda:99"),
    (
        checks.check_module_untouched,
        broken.LeavesEval(make_module()),
        "predict changes the training",
    ),
    (
        checks.check_module_untouched,
        broken.LeavesEvalAfterAnError(make_module()),
        "an error in the forward pass .* training",
    ),
    (
        checks.check_module_untouched,
        broken.LeavesEvalAfterInvalidSamples(make_module()),
        "invalid samples changes",
    ),
    (checks.check_module_untouched, broken.Freezes(make_module()), "requires_grad of"),
    (checks.check_module_untouched, broken.ClearsGradients(make_module()), "gradient of"),
    (checks.check_module_untouched, broken.AddsGradients(make_module()), "gradient of"),
    (checks.check_module_untouched, broken.ChangesWeights(make_module()), "values of 0.weight"),
    (
        checks.check_module_untouched,
        broken.ChangesBuffers(make_module()),
        "values of 1.num_batches",
    ),
    (
        checks.check_module_untouched,
        broken.LeavesHooks(make_module()),
        "number of hooks of Linear '0'",
    ),
    (checks.check_module_untouched, broken.ChangesDtype(make_module()), "device or dtype of"),
]


BROKEN_IDS = [f"{check.__name__}-{type(estimator).__name__}" for check, estimator, _ in BROKEN]


@pytest.mark.parametrize(("check", "estimator", "message"), BROKEN, ids=BROKEN_IDS)
def test_check_fails_for_a_broken_estimator(check, estimator, message):
    with pytest.raises(AssertionError, match=message):
        check(type(estimator).__name__, estimator)


@pytest.mark.parametrize(("failing", "estimator", "message"), BROKEN, ids=BROKEN_IDS)
def test_the_other_checks_pass_for_a_broken_estimator(failing, estimator, message):
    for _, check in checks.estimator_checks_generator(estimator):
        if check.__name__ != failing.__name__:
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
    changing = broken.ChangesWeights(module)
    with pytest.raises(AssertionError, match="values of 0.weight"):
        checks.check_module_untouched("ChangesWeights", changing, module)


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
