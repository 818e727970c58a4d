# SPDX-License-Identifier: BSD-3-Clause

"""
Which frequencies does a network depend on?
===========================================

:class:`~skboundary.SubspaceMargins` measures how far an image can be changed in a band of
frequencies before the prediction changes. Networks are sensitive where their training data
distinguish the classes, and nearly invariant elsewhere: "Hold me tight" (Ortiz-Jimenez, Modas,
Moosavi-Dezfooli and Frossard, `arXiv 2002.06349 <https://arxiv.org/abs/2002.06349>`_).
"""

# %%
# The same network on plain and on low-pass digits
# ------------------------------------------------
# ``low_pass`` keeps the four lowest of eight frequencies along each axis.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from skboundary import MarginSpectrumDisplay, SubspaceMargins
from skboundary.functional.cosine_transform import low_pass

X, y = load_digits(return_X_y=True)
images = torch.tensor(X / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
data = {"plain": images.numpy(), "low-pass": low_pass(images, 4).numpy()}
train, test = train_test_split(np.arange(len(y)), train_size=1000, test_size=80, random_state=0)

fig, axes = plt.subplots(2, 8, figsize=(8, 2.4), layout="constrained")
for row, (name, samples) in zip(axes, data.items(), strict=True):
    for ax, image in zip(row, samples[test], strict=False):
        ax.imshow(image[0], cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)

# %%
# Margins in windows of 2 x 2 frequencies
# ---------------------------------------
# The window moves from the lowest to the highest frequencies. The networks are skorch nets, which
# ``fit`` trains.


def make_network():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        max_epochs=15,
        batch_size=64,
        train_split=None,
        verbose=0,
    )


spectra = {}
for name, samples in data.items():
    margins = SubspaceMargins(make_network(), random_state=0).fit(samples[train], y[train])
    spectra[name] = margins.spectrum(samples[test])
    accuracy = margins.estimator_.score(samples[test], y[test])
    print(f"{name:9} test accuracy {accuracy:.3f}, medians", spectra[name].median.round(1))

# %%
# The spectra
# -----------
# Lines are medians over 80 test images, and bands reach from 5 to 95 percent. The strip below shows
# the share of images for which no boundary was found.

_ = MarginSpectrumDisplay.from_spectra(list(spectra.values()), list(spectra))

# %%
# In the windows of removed frequencies (``dct_4_5`` and ``dct_5_6``) the network trained on
# low-pass images has larger margins; to the highest frequencies, neither network is sensitive. In
# the frequencies that remain its margins are smaller. Compare the shapes of two curves rather than
# their levels, which depend on the architecture and the training.
