# SPDX-License-Identifier: BSD-3-Clause

"""
How far is each sample from the decision boundary?
==================================================

:class:`~skboundary.BoundarySampleExtractor` measures how little a sample has to change before its
prediction changes. It does so for a network, whose gradients it follows, and for a random forest,
of which it only uses predicted labels.
"""

# %%
# Two classifiers of the same data
# --------------------------------
# The columns are standardized before everything else, because distances depend on their units.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from skboundary import BoundarySampleExtractor

X, y = load_breast_cancer(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=100, random_state=0)
scaler = StandardScaler().fit(X_train)
X_train, X_test = scaler.transform(X_train), scaler.transform(X_test)

classifiers = {
    "network": MLPClassifier((32, 32), max_iter=300, random_state=0),
    "forest": RandomForestClassifier(20, random_state=0),
}

# %%
# Distances
# ---------
# ``response_`` is what the extractor may use of a classifier and determines the method: "minimal"
# follows gradients, and "label" walks along the boundary, here with at most 500 predictions per
# sample.

distances, correct, confidence = {}, {}, {}
for name, classifier in classifiers.items():
    extractor = BoundarySampleExtractor(classifier, returns="distance", random_state=0)
    extractor.fit(X_train, y_train)
    if extractor.response_ == "label":
        extractor.set_params(effort=500)
    fitted = extractor.estimator_
    distances[name] = extractor.transform(X_test)[:, 0]
    correct[name] = fitted.predict(X_test) == y_test
    confidence[name] = fitted.predict_proba(X_test).max(axis=1)
    print(
        f"{name:8} uses {extractor.response_ + 's':10} accuracy {correct[name].mean():.2f}, "
        f"median distance {np.median(distances[name]):.2f}"
    )

fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
bins = np.linspace(0, max(d.max() for d in distances.values()), 25)
for (name, d), style in zip(distances.items(), ("-", "--"), strict=True):
    axes[0].hist(d, bins, histtype="step", linewidth=2, linestyle=style, label=name)
axes[0].set(xlabel="distance in standard deviations", ylabel="test samples")
right = correct["network"] & correct["forest"]
for mask, marker, label in ((right, "o", "both are right"), (~right, "X", "one or both are wrong")):
    axes[1].scatter(
        distances["network"][mask], distances["forest"][mask], marker=marker, label=label
    )
axes[1].set(xlabel="distance, network", ylabel="distance, forest")
for ax in axes:
    ax.legend()

# %%
# The two classifiers agree on which samples are far from their boundaries, and the samples that one
# of them predicts incorrectly are close to both. A distance is an upper bound, as it belongs to a
# point that was found; ``returns="boundary"`` returns this point. For the forest the bound is the
# looser one, as its boundary has many local minima.
#
# Distance and probability
# ------------------------
# Both rank correct predictions above incorrect ones, about equally well on these data. The distance
# is in the units of the columns and says by how much they would have to change.

for name in classifiers:
    print(
        f"{name:8} {np.sum(~correct[name])} errors, AUC of the distance "
        f"{roc_auc_score(correct[name], distances[name]):.2f}, of the largest probability "
        f"{roc_auc_score(correct[name], confidence[name]):.2f}"
    )
