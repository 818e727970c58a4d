# SPDX-License-Identifier: BSD-3-Clause

"""
Wrong labels, found by their neighbors
======================================

A network that has memorized wrong labels is certain of them. In its latent space these samples
still lie among samples of their true class, and
:meth:`~skboundary.LatentKNNClassifier.label_issues` finds them without another training.
"""

# %%
# A network trained on 15 % wrong labels
# --------------------------------------

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from skboundary import LatentKNNClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
rng = np.random.default_rng(0)
wrong = rng.random(len(y_train)) < 0.15
y_given = np.where(wrong, (y_train + rng.integers(1, 10, size=len(y_train))) % 10, y_train)

network = MLPClassifier((128, 64), learning_rate_init=0.002, max_iter=300, random_state=0)
clf = LatentKNNClassifier(network).fit(X_train, y_given)
print(f"{wrong.sum()} of {len(wrong)} labels are wrong")
print(f"the network agrees with {clf.estimator_.score(X_train, y_given):.3f} of all labels")

# %%
# The most suspicious samples
# ---------------------------
# The score of a sample is the share of the other labels in a vote of its 30 nearest other samples,
# where wrong labels have little weight. The title of each image is its given label and the label
# with the largest share.

issues = clf.label_issues()
figure, axes = plt.subplots(3, 8, figsize=(9, 4.4))
for ax, i in zip(axes.flat, issues.rank.argsort(), strict=False):
    ax.imshow(X_train[i].reshape(8, 8), cmap="gray_r")
    ax.set_title(f"{issues.given_label[i]} → {issues.suggested_label[i]}")
    ax.axis("off")

# %%
# How many of them are wrong
# --------------------------
# If samples are inspected in the order of the ranks, nearly all of the first ones are wrong. The
# probability that the network itself gives to the label is of less use, as it has memorized it.

certainty = clf.estimator_.predict_proba(X_train)[np.arange(len(y_given)), y_given]
orders = {"neighbors": issues.rank.argsort(), "network": certainty.argsort()}
inspected = np.arange(1, len(wrong) + 1)
figure, ax = plt.subplots(figsize=(6, 4))
for name, order in orders.items():
    ax.plot(inspected, wrong[order].cumsum() / wrong.sum(), label=name)
ax.plot(inspected, np.minimum(inspected / wrong.sum(), 1), "k:", label="best possible")
ax.set(xlabel="inspected samples", ylabel="share of the wrong labels found", xlim=(0, 600))
ax.legend()
print(f"neighbors: area under the ROC curve {roc_auc_score(wrong, issues.score):.3f}")
print(f"network:   area under the ROC curve {roc_auc_score(wrong, -certainty):.3f}")

# %%
# Without the suspicious samples, or with the suggested labels
# ------------------------------------------------------------
# The columns of the frame are those of cleanlab, so tools for its results work on it.

print(issues.to_frame().sort_values("label_score").head())

kept = ~issues.is_issue
relabeled = np.where(issues.is_issue, issues.suggested_label, y_given)
for name, samples, labels in [
    ("as given", X_train, y_given),
    ("removed", X_train[kept], y_given[kept]),
    ("relabeled", X_train, relabeled),
]:
    print(f"{name}: test accuracy {network.fit(samples, labels).score(X_test, y_test):.3f}")
