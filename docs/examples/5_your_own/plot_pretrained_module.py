# SPDX-License-Identifier: BSD-3-Clause

"""
From a state dict to answers: a pretrained torch module
=======================================================

A network that was trained elsewhere, in plain torch, is used as it is: wrapped once by
:class:`~skboundary.FrozenNetwork`, it answers the questions of all estimators, and is never
trained or modified.
"""

# %%
# A file of weights
# -----------------
# Usually the file exists. Here a training loop writes it. The network expects pixels with mean 0
# and standard deviation 1, and its outputs are in the order of ``names``.

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from torch import nn

from skboundary import (
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
    LatentTransformer,
    NeighborsDisplay,
)

X, y = load_digits(return_X_y=True)
images = X.reshape(-1, 1, 8, 8).astype(np.float32)
names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
y = np.array(names)[y]
X_train, X_test, y_train, y_test = train_test_split(images, y, random_state=0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
        )
        self.hidden = nn.Linear(256, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(self.features(x))))


def normalize(x):
    return (x - 4.9) / 6.0


torch.manual_seed(0)
trained = Net()
optimizer = torch.optim.Adam(trained.parameters(), lr=2e-3)
inputs = torch.from_numpy(X_train)
targets = torch.tensor([names.index(label) for label in y_train])
for _ in range(10):
    for batch in torch.randperm(len(inputs)).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(trained(normalize(inputs[batch])), targets[batch]).backward()
        optimizer.step()
folder = TemporaryDirectory()
path = Path(folder.name) / "weights.pt"
torch.save(trained.state_dict(), path)

# %%
# Load it, and wrap it once
# -------------------------
# ``preprocess`` becomes part of the network, so that distances are in the units of the raw pixels,
# and ``classes`` are listed in the order of the outputs.

module = Net()
module.load_state_dict(torch.load(path, weights_only=True))
folder.cleanup()
network = FrozenNetwork(module, classes=names, preprocess=normalize)
print(f"test accuracy: {network.score(X_test, y_test):.3f}")

# %%
# Which test images are closest to the decision boundary?
# -------------------------------------------------------
# ``fit`` does not train: it checks the network and takes the range of pixels from the images.

extractor = BoundarySampleExtractor(network, returns="distance").fit(X_train)
distances = extractor.transform(X_test)[:, 0]
nearest = distances.argsort()[:8]
wrong = network.predict(X_test) != y_test
print(f"errors among the 20 closest images: {wrong[distances.argsort()[:20]].sum()}")
print(f"errors among all {len(X_test)} images:        {wrong.sum()}")

# %%
# What would have to change?
# --------------------------
# The images with their prediction, the nearest points beyond the boundary with theirs, and the
# difference with its norm. Pixels are between 0 and 16.

partners = extractor.set_params(returns="boundary").transform(X_test[nearest])
differences = partners - X_test[nearest]
reach = abs(differences).max()
fig, axes = plt.subplots(3, 8, figsize=(9, 4), layout="constrained")
for column, image, partner, difference, distance in zip(
    axes.T, X_test[nearest], partners, differences, distances[nearest], strict=True
):
    for ax, sample in zip(column, (image, partner), strict=False):
        ax.imshow(sample[0], cmap="gray", vmin=0, vmax=16)
        ax.set_xlabel(network.predict(sample[None])[0])
    drawn = column[2].imshow(difference[0], cmap="RdBu_r", vmin=-reach, vmax=reach)
    column[2].set_xlabel(f"{distance:.2f}")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
_ = fig.colorbar(drawn, ax=axes[2])

# %%
# Which training images are similar to the network?
# -------------------------------------------------
# Neighbors in the output of the layer "hidden", named as in the module.

clf = LatentKNNClassifier(network, layer="hidden", metric="cosine", n_neighbors=6)
clf.fit(X_train, y_train)
_ = NeighborsDisplay.from_estimator(clf, X_test[nearest[:2]], X_train=X_train)

# %%
# The network as features
# -----------------------
# The same layer as the first step of a scikit-learn pipeline.

pipeline = make_pipeline(LatentTransformer(network, layer="hidden"), LogisticRegression())
print(f"test accuracy of the pipeline: {pipeline.fit(X_train, y_train).score(X_test, y_test):.3f}")
