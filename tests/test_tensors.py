"""Tensors in, arrays out: what every estimator returns for tensors is what it returns for arrays.

The guide says so in its page on networks; `skboundary.functional` returns tensors.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.utils import get_tags

from skboundary.utils._checks._run import call, fresh, methods_of, to_array
from tests.test_common import ESTIMATORS, SLOW, VECTORS, frozen, one_training_for_all  # noqa: F401

# One configuration of each estimator, a quick one.
CASES = {name: e for name, e in ESTIMATORS.items() if "-" not in name and name not in SLOW}
CASES["BoundaryCharacterizer"] = ESTIMATORS["BoundaryCharacterizer-lifted"]
CASES["LatentKNNClassifierCV"] = ESTIMATORS["LatentKNNClassifierCV-fraction"]
CASES["FrozenNetwork"] = frozen()


def outputs(estimator, X, y):
    """What the methods of an estimator return, each item of a tuple by itself."""
    fit = estimator.fit_resample if hasattr(estimator, "fit_resample") else estimator.fit
    results = [fit(X, y)]
    results += [call(estimator, method, X, y) for method in methods_of(estimator)]
    items = [result if isinstance(result, tuple) else (result,) for result in results]
    return [item for result in items for item in result if item is not estimator]


def test_every_public_estimator_is_a_case():
    names = {type(estimator).__name__ for estimator in ESTIMATORS.values()}
    assert {*CASES} == names | {"FrozenNetwork"}


@pytest.mark.parametrize("name", CASES)
def test_tensors_in_arrays_out(name, standin):
    X, y = VECTORS
    expected = outputs(fresh(CASES[name]), X, y)
    for device in ("cpu", standin):
        estimator = fresh(CASES[name])
        found = outputs(estimator, torch.tensor(X).to(device), torch.tensor(y).to(device))
        for result, other in zip(found, expected, strict=True):
            assert isinstance(result, np.ndarray) or sparse.issparse(result)
            np.testing.assert_array_equal(to_array(result), to_array(other), strict=True)
        for attribute, value in vars(estimator).items():
            assert attribute.startswith("_") or not isinstance(value, torch.Tensor), attribute
        assert not get_tags(estimator).array_api_support
