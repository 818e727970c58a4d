# SPDX-License-Identifier: BSD-3-Clause

"""
Borderline pairs of two digits
==============================

What has to change for a network to see a one in place of a zero? Perturbation Minimization (Cai,
Zheng, Xiang and Gao, ICLR 2024 Tiny Papers) finds two images that differ as little as possible,
one of which the network predicts as the one digit and the other as the other, both with
confidence: figure 1 of the paper.
"""

# %%
# A convolutional network
# -----------------------

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from skboundary import BoundaryPairsDisplay, BoundarySampleExtractor

X, y = load_digits(return_X_y=True)
images = (X / 16).reshape(-1, 1, 8, 8).astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(images, y, random_state=0)

torch.manual_seed(0)
network = NeuralNetClassifier(
    nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    ),
    criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    lr=1e-3,
    max_epochs=15,
    batch_size=64,
    train_split=None,
    verbose=0,
)
extractor = BoundarySampleExtractor(network, method="pm", confidence=0.9, random_state=0)
extractor.fit(X_train, y_train)
print(f"test accuracy: {extractor.estimator_.score(X_test, y_test):.3f}")

# %%
# Pairs that start from images
# ----------------------------
# The labels below the images are what the network predicts; the number below a difference is its
# norm.

pairs = extractor.extract(200, source=0, target=1, init="data")
print(f"found {pairs.success.mean():.0%}, median distance {np.median(pairs.distance):.2f}")
_ = BoundaryPairsDisplay.from_pairs(pairs, n=8)

# %%
# Pairs that start from noise
# ---------------------------

noise = extractor.extract(200, source=0, target=1, init="random")
print(f"found {noise.success.mean():.0%}, median distance {np.median(noise.distance):.2f}")
_ = BoundaryPairsDisplay.from_pairs(noise, n=8)

# %%
# How the ends are predicted
# --------------------------

for name, found in {"images": pairs, "noise": noise}.items():
    for end, digit in ((found.inner, 0), (found.outer, 1)):
        proba = extractor.estimator_.predict_proba(end)[:, digit]
        print(f"from {name:7} median probability of {digit}: {np.median(proba):.2f}")

# %%
# The inner images from samples are still a zero to the eye, and so are the outer ones, which the
# network calls a one: the difference fills the middle of the zero. It is the same for pairs from
# noise, where neither image looks like a digit. Such pairs show what the network's boundary depends
# on; they are not examples of either digit.
