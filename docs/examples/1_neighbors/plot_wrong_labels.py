# SPDX-License-Identifier: BSD-3-Clause

"""
Wrong labels, outvoted by neighbors
===================================

A network that has memorized wrong labels predicts worse.
:class:`~skboundary.LatentKNNClassifier` averages its output for a sample with its outputs for the
nearest training samples in the latent space (LaSeNN, Schneider, `arXiv 2310.03927
<https://arxiv.org/abs/2310.03927>`_), without training it again.
"""

# %%
# A network trained on 30 % random labels
# ---------------------------------------

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier

from skboundary import LatentKNNClassifier, NeighborsDisplay, QueryWeightDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
rng = np.random.default_rng(0)
wrong = rng.random(len(y_train)) < 0.3
y_noisy = np.where(wrong, rng.integers(10, size=len(y_train)), y_train)
X_fit, X_valid, y_fit, y_valid = train_test_split(X_train, y_noisy, random_state=0)

network = MLPClassifier((128, 64), learning_rate_init=0.002, max_iter=300, random_state=0)
clf = LatentKNNClassifier(network, metric="cosine").fit(X_fit, y_fit)
base = clf.estimator_
print(f"network, accuracy on its training labels: {base.score(X_fit, y_fit):.3f}")
print(f"network, test accuracy:                   {base.score(X_test, y_test):.3f}")

# %%
# Number of neighbors and weight
# ------------------------------
# ``sweep`` scores all combinations in one pass of the network. The samples must not be those that
# the network was trained on, but their labels may be as noisy: the accuracies below are therefore
# limited to about 0.7, and only their order matters. The paper's setting, three neighbors and a
# query weight of 0.88, changes little.

results = clf.sweep(
    X_valid,
    y_valid,
    n_neighbors=[1, 3, 8, 20],
    query_weight=[0, 0.25, 0.5, 0.75, 0.88, 0.94, 1],
)
_ = QueryWeightDisplay.from_sweep(results)

# %%
# The best setting on the validation samples, on clean test samples. Parameters take effect without
# another ``fit``.

paper = clf.score(X_test, y_test)
best = results["params"][results["rank_test_score"].argmin()]
clf.set_params(**best)
print(f"paper's setting, test accuracy:  {paper:.3f}")
print(f"selected setting, test accuracy: {clf.score(X_test, y_test):.3f}  ({best})")

# %%
# A corrected prediction
# ----------------------
# The test sample whose correct class gains most, with its neighbors. Each contributes the output of
# the network for it, not its label: "(predicted ...)" marks neighbors where the two differ.

gain = clf.predict_proba(X_test) - base.predict_proba(X_test)
sample = gain[np.arange(len(y_test)), y_test].argmax()
_ = NeighborsDisplay.from_estimator(
    clf.set_params(n_neighbors=6), X_test[[sample]], X_train=X_fit, image_shape=(8, 8)
)

# %%
# When it does not help
# ---------------------
# A network that stops before it memorizes the labels is nearly as good by itself, and neighbors in
# the space of pixels are better on these small images. Use neighbors in a latent space if the
# network is given, and where distances between inputs mean little.

stopped = MLPClassifier((128, 64), early_stopping=True, random_state=0).fit(X_train, y_noisy)
pixels = KNeighborsClassifier(20).fit(X_train, y_noisy)
print(f"network stopped early, test accuracy:    {stopped.score(X_test, y_test):.3f}")
print(f"20 nearest images in pixels, test accuracy: {pixels.score(X_test, y_test):.3f}")
