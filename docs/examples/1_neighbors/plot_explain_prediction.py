# SPDX-License-Identifier: BSD-3-Clause

"""
Explain one prediction by its neighbors
=======================================

Why does a network call this a five? :class:`~skboundary.LatentKNNClassifier` shows the training
samples that are nearest in the latent space of the network, their labels, and their part in the
prediction.
"""

# %%
# A classifier and its least confident predictions
# -------------------------------------------------
# Without another estimator a small network is trained.

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skboundary import LatentKNNClassifier, NeighborsDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
clf = LatentKNNClassifier(n_neighbors=5, query_weight=0.5, metric="cosine", random_state=0)
clf.fit(X_train, y_train)

least = clf.predict_proba(X_test).max(axis=1).argsort()[:3]
print("predicted:", clf.predict(X_test[least]))
print("true:     ", y_test[least])

# %%
# Neighbors
# ---------
# Each line shows a test sample and its five nearest training samples, and on the right the
# probabilities of the most probable digits before (hollow) and after averaging (filled).

_ = NeighborsDisplay.from_estimator(clf, X_test[least], X_train=X_train, image_shape=(8, 8))

# %%
# The same as numbers
# -------------------

why = clf.explain(X_test[least[:1]])
print("training samples:", why.indices[0])
print("their labels:    ", why.labels[0])
print("distances:       ", why.distances[0].round(3))
print("own weight:      ", why.query_weight)
print("weight of each:  ", why.weights[0].round(3))

# %%
# The first image is a one. The network alone calls it a four, and four of its five neighbors are
# fives; nothing in the neighborhood is a one. An explanation shows what a prediction is based on,
# right or wrong. In the second line the neighbors correct the network, and in the third they move
# it toward the correct seven, but not far enough.
