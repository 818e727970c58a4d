# SPDX-License-Identifier: BSD-3-Clause

"""
Probabilities after over-sampling, and their calibration
========================================================

A classifier that was trained on added samples overestimates the probability of the rare class,
because it was more frequent in training than it is.
:class:`~sklearn.calibration.CalibratedClassifierCV` around the whole pipeline corrects this on
samples with the original class shares.
"""

# %%
# Data
# ----
# Two overlapping classes; a tenth of the samples belongs to the rare one, in training and in test.

import matplotlib.pyplot as plt
from imblearn.pipeline import make_pipeline
from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, balanced_accuracy_score, brier_score_loss
from sklearn.model_selection import train_test_split

from skboundary import BiasedExtrapolationSampler

X, y = make_classification(8000, weights=[0.9], class_sep=0.8, random_state=0)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)

# %%
# Calibration
# -----------
# ``CalibratedClassifierCV`` fits the pipeline on four fifths of the training samples, which the
# sampler resamples, and the calibration on the other fifth, which it does not: samplers of
# imbalanced-learn act in ``fit`` only. The pipeline must be inside. A sampler in front would give
# the calibration resampled classes as well, and it would correct nothing.

resampled = make_pipeline(BiasedExtrapolationSampler(random_state=0), LogisticRegression())
classifiers = {
    "not resampled": LogisticRegression(),
    "over-sampled": resampled,
    "over-sampled, calibrated": CalibratedClassifierCV(resampled),
}
fig, ax = plt.subplots(figsize=(6, 5), layout="constrained")
for (name, clf), marker in zip(classifiers.items(), "Xo^", strict=True):
    p = clf.fit(X_train, y_train).predict_proba(X_test)[:, 1]
    brier, accuracy = brier_score_loss(y_test, p), balanced_accuracy_score(y_test, p > 0.5)
    precision = average_precision_score(y_test, p)
    CalibrationDisplay.from_predictions(
        y_test, p, n_bins=8, strategy="quantile", ax=ax, name=name, marker=marker
    )
    print(
        f"{name:24} mean probability {p.mean():.3f}, Brier score {brier:.3f}, "
        f"balanced accuracy {accuracy:.3f}, average precision {precision:.3f}"
    )
_ = ax.set(xlabel="mean predicted probability", ylabel="share of the rare class")

# %%
# Calibration corrects the probabilities, and the decisions at 0.5 return to those of the classifier
# that was not resampled: here the balanced accuracy that over-sampling adds is that of a lower
# threshold. The order of the samples (average precision) hardly changes. Calibrate if probabilities
# are needed, and choose the threshold afterwards, with
# :class:`~sklearn.model_selection.TunedThresholdClassifierCV`.
