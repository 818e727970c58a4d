# SPDX-License-Identifier: BSD-3-Clause

"""
Decision regions of two networks in one plane
=============================================

Accuracy on test samples says little about what a network predicts between them.
:class:`~skboundary.BoundaryPlaneDisplay` draws the predictions of any classifier in the plane
through three samples, whatever their number of features (Somepalli et al., CVPR 2022,
`arXiv 2203.08124 <https://arxiv.org/abs/2203.08124>`_).
"""

# %%
# Two networks
# ------------
# They differ in their training labels only: all correct, or a fifth of them random. Both networks
# have learned their labels by heart.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from skboundary import BoundaryPlaneDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0)
rng = np.random.default_rng(0)
wrong = rng.random(len(y_train)) < 0.2
labels = {
    "correct labels": y_train,
    "a fifth random": np.where(wrong, rng.integers(10, size=len(y_train)), y_train),
}


def train(y, seed):
    return MLPClassifier(
        (256,), learning_rate_init=0.005, max_iter=400, tol=1e-3, random_state=seed
    ).fit(X_train, y)


networks = {name: train(y, seed=0) for name, y in labels.items()}
for name, network in networks.items():
    print(
        f"{name}: accuracy on its training labels {network.score(X_train, labels[name]):.3f}, "
        f"on test samples {network.score(X_test, y_test):.3f}"
    )

# %%
# The plane through a 0, a 4 and a 7
# ----------------------------------
# Colors are predicted digits and fade where the network is less confident. The three samples,
# marked by their labels, are the anchors of the plane; distances in it are distances between
# images.

samples = np.array([np.flatnonzero(y_test == digit)[0] for digit in (0, 4, 7)])
fig, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
for (name, network), ax in zip(networks.items(), axes, strict=True):
    BoundaryPlaneDisplay.from_estimator(
        network, X_test[samples], y=y_test[samples], ax=ax, name=name
    )

# %%
# Agreement and fragmentation
# ---------------------------
# Each network is trained again from another random start. ``agreement`` is the share of a plane on
# which two classifiers predict the same class, and ``fragmentation_`` the number of connected
# regions in it; the figures are means over planes through random triplets of test samples.


def planes(network, triplets):
    return [
        BoundaryPlaneDisplay.from_estimator(
            network, X_test[triplet], grid_resolution=100, ax=Figure().subplots()
        )
        for triplet in triplets
    ]


triplets = [rng.choice(len(X_test), 3, replace=False) for _ in range(6)]
for name, network in networks.items():
    first, second = planes(network, triplets), planes(train(labels[name], seed=1), triplets)
    agreement = np.mean([a.agreement(b) for a, b in zip(first, second, strict=True)])
    regions = np.mean([display.fragmentation_ for display in first])
    print(f"{name}: agreement of two random starts {agreement:.2f}, regions {regions:.1f}")

# %%
# Both figures tell that the network with random labels is the worse one. They need no labels:
# random starts that disagree, and regions that are cut into pieces, are signs of a boundary that
# the data do not determine.
