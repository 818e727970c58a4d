# SPDX-License-Identifier: BSD-3-Clause

"""
Neighbors, weight and layer, chosen automatically
=================================================

How many neighbors, with which weight, and in which layer?
:class:`~skboundary.LatentKNNClassifierCV` scores all combinations in one pass of the network, on
samples that the network has not seen. Their labels may be as wrong as the training labels.
"""

# %%
# A network trained on 30 % random labels
# ---------------------------------------
# The labels of the validation samples are as noisy. Those of the test samples are correct.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skboundary import LatentKNNClassifier, LatentKNNClassifierCV, QueryWeightDisplay

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
rng = np.random.default_rng(0)
wrong = rng.random(len(y_train)) < 0.3
noisy = np.where(wrong, rng.integers(10, size=len(y_train)), y_train)
X_fit, X_val, y_fit, y_val = train_test_split(X_train, noisy, random_state=0)

torch.manual_seed(0)
layers = [torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 64), torch.nn.ReLU()]
module = torch.nn.Sequential(*layers, torch.nn.Linear(64, 10))
optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
for _ in range(300):  # until it has memorized the labels
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(module(torch.tensor(X_fit)), torch.tensor(y_fit))
    loss.backward()
    optimizer.step()

# %%
# The choice
# ----------
# A trained network requires validation samples: on those that it was trained on, it is right with
# any label. The neighbors are among ``X_fit`` alone. "1" and "3" are the two hidden layers.

clf = LatentKNNClassifierCV(module, layer=["1", "3"]).fit(X_fit, y_fit, X_val=X_val, y_val=y_val)
print(clf.best_params_)

paper = LatentKNNClassifier(module, metric="cosine").fit(X_fit, y_fit)
print(f"network:         test accuracy {clf.estimator_.score(X_test, y_test):.3f}")
print(f"paper's setting: test accuracy {paper.score(X_test, y_test):.3f}")
print(f"chosen setting:  test accuracy {clf.score(X_test, y_test):.3f}")

# %%
# The scores
# ----------
# Validation accuracy of the settings with the chosen distance, in both layers. The last column is
# the network alone. Of equal scores, the one with the largest weight is chosen.

results, best = clf.cv_results_, clf.best_params_
limits = {"vmin": results["mean_test_score"].min(), "vmax": results["mean_test_score"].max()}
fig, axes = plt.subplots(2, 1, figsize=(6.5, 6.4), layout="constrained")
for ax, layer in zip(axes, ["1", "3"], strict=True):
    of_layer = [p["layer"] == layer and p["metric"] == best["metric"] for p in results["params"]]
    scores = {name: np.asarray(column)[of_layer] for name, column in results.items()}
    QueryWeightDisplay.from_sweep(scores, ax=ax, name=f"layer {layer}", image_kwargs=limits)

# %%
# Is a choice on wrong labels a good one?
# ---------------------------------------
# Each point is a setting. Accuracy on noisy labels is limited to about 0.73, but it puts the
# settings into nearly the same order as the accuracy on correct labels, which are not available in
# practice.

truth = LatentKNNClassifierCV(module, layer=["1", "3"])
truth.fit(X_fit, y_fit, X_val=X_test, y_val=y_test)
validation, test = results["mean_test_score"], truth.cv_results_["mean_test_score"]
weight = [p["query_weight"] for p in results["params"]]
chosen = results["params"].index(best)
fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
points = ax.scatter(validation, test, c=weight, cmap="viridis", s=18)
ax.plot(validation[chosen], test[chosen], "k*", markersize=14, markerfacecolor="w", label="chosen")
ax.set(xlabel="accuracy on noisy validation labels", ylabel="accuracy on correct test labels")
ax.legend()
_ = fig.colorbar(points, label="query_weight")
