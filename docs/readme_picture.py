"""Draw docs/_static/overview.png, the picture of README:

python docs/readme_picture.py
"""

# SPDX-License-Identifier: BSD-3-Clause

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from skboundary import (
    BoundaryPairsDisplay,
    BoundaryPlaneDisplay,
    BoundarySampleExtractor,
    LatentKNNClassifier,
    NeighborsDisplay,
)

PICTURE = Path(__file__).parent / "_static" / "overview.png"

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, stratify=y, random_state=0)
rng = np.random.default_rng(0)
wrong = rng.random(len(y_train)) < 0.3
y_noisy = np.where(wrong, rng.integers(10, size=len(y_train)), y_train)
network = MLPClassifier((128, 64), learning_rate_init=0.005, max_iter=400, random_state=0)
clf = LatentKNNClassifier(network, metric="cosine", n_neighbors=6, query_weight=0.25)
clf.fit(X_train, y_noisy)
correct = MLPClassifier((128, 64), max_iter=400, random_state=0).fit(X_train, y_train)

figure = plt.figure(figsize=(13, 5.2), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[5, 6])
above, below = right.subfigures(2, 1, height_ratios=[2, 3])

anchors = np.array([np.flatnonzero(y_test == digit)[0] for digit in (0, 4, 7)])
BoundaryPlaneDisplay.from_estimator(
    clf.estimator_,
    X_test[anchors],
    y=y_test[anchors],
    ax=left.subplots(),
    name="Decision regions of a network with memorized wrong labels",
)

gain = clf.predict_proba(X_test) - clf.estimator_.predict_proba(X_test)
sample = gain[np.arange(len(y_test)), y_test].argmax()
NeighborsDisplay.from_estimator(
    clf, X_test[[sample]], X_train=X_train, image_shape=(8, 8), ax=above.subplots()
)
above.suptitle("A prediction corrected by neighbors in the latent space")

extractor = BoundarySampleExtractor(correct, method="pm", bounds=(0, 1), random_state=0)
pairs = extractor.fit(X_train, y_train).extract(8)
BoundaryPairsDisplay.from_pairs(pairs, image_shape=(8, 8), ax=below.subplots())
below.suptitle("Pairs of images on either side of the boundary of a network")

figure.savefig(PICTURE, dpi=90)
