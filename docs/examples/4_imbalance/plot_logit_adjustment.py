# SPDX-License-Identifier: BSD-3-Clause

"""
Rare digits without new samples: logit adjustment
=================================================

:class:`~skboundary.LogitAdjustedClassifier` subtracts the logarithms of the class shares from the
logits. Its only parameter is the strength `tau` of this correction. 1 is right for calibrated
probabilities; here it is compared with all other values.
"""

# %%
# Rare digits
# -----------
# Half of the samples of each digit train a network; the odd digits keep 11 of them. The other half
# of all samples is split into samples to choose `tau` on, and samples to test it on.

import matplotlib.pyplot as plt
import numpy as np
import torch
from imblearn.datasets import make_imbalance
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score, recall_score
from sklearn.model_selection import train_test_split

from skboundary import FrozenNetwork, LogitAdjustedClassifier

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
rare = [1, 3, 5, 7, 9]
X_train, X_rest, y_train, y_rest = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)
X_train, y_train = make_imbalance(
    X_train, y_train, sampling_strategy=dict.fromkeys(rare, 11), random_state=0
)
X_val, X_test, y_val, y_test = train_test_split(
    X_rest, y_rest, test_size=0.5, stratify=y_rest, random_state=0
)

# %%
# A network
# ---------

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
optimizer = torch.optim.Adam(net.parameters(), 0.01)
for _ in range(30):
    logits = net(torch.from_numpy(X_train))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y_train))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
network = FrozenNetwork(net)

# %%
# The strength of the correction
# ------------------------------
# No value needs more than the logits, which are computed once.

taus = np.linspace(0, 3, 31)
recalls = []
for tau in taus:
    clf = LogitAdjustedClassifier(network, tau=tau).fit(X_train, y_train)
    recalls.append(recall_score(y_test, clf.predict(X_test), average=None))
recalls = np.array(recalls)

auto = LogitAdjustedClassifier(network, tau="auto")
auto.fit(X_train, y_train, X_val=X_val, y_val=y_val)
for tau in (0.0, 1.0, auto.tau_):
    clf = LogitAdjustedClassifier(network, tau=tau).fit(X_train, y_train)
    score = balanced_accuracy_score(y_test, clf.predict(X_test))
    print(f"tau {tau:4.2f}: balanced accuracy {score:.3f}")

# %%
# Results
# -------

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(taus, recalls[:, rare].mean(1), label="rare digits")
ax.plot(taus, np.delete(recalls, rare, axis=1).mean(1), "--", label="other digits")
ax.plot(taus, recalls.mean(1), "k", label="balanced accuracy")
ax.axvline(auto.tau_, color="gray", linestyle=":", label='tau="auto"')
ax.set(xlabel="tau", ylabel="mean recall on test samples")
_ = ax.legend()

# %%
# Without the correction the rare digits are often missed. With `tau=1` most of them are found, at
# the cost of some other digits; beyond, the other digits lose more than the rare ones gain. The
# value chosen on the validation samples is close to the best one here, and so is 1: choose where
# the probabilities are not calibrated.
