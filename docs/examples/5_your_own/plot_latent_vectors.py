# SPDX-License-Identifier: BSD-3-Clause

"""
Duplicates and outliers among stored latent vectors
===================================================

Latent vectors that were computed elsewhere can be searched without their network:
:class:`~skboundary.TorchNearestNeighbors` finds the exact nearest neighbors of all of them. A
neighbor at distance zero is a duplicate, and a sample far from its neighbors is an outlier.
"""

# %%
# A file of latent vectors
# ------------------------
# Usually the file exists. Here a network that was trained on other digits writes it for 937 images:
# 897 digits, 20 of them a second time, and 20 digits whose gray values are inverted.

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score
from sklearn.neural_network import MLPClassifier

from skboundary import LatentTransformer, TorchNearestNeighbors

X, y = load_digits(return_X_y=True)
digits = X[900:]
copied, inverted = np.random.default_rng(0).permutation(len(digits))[:40].reshape(2, 20)
images = np.concatenate([digits, digits[copied], 16 - digits[inverted]])
is_inverted = np.arange(len(images)) >= len(digits) + len(copied)

network = LatentTransformer(MLPClassifier((64,), random_state=0)).fit(X[:900], y[:900])
folder = TemporaryDirectory()
path = Path(folder.name) / "latents.npy"
np.save(path, network.transform(images))

# %%
# Exact neighbors
# ---------------
# The file is mapped, not read into memory, and searched in blocks. ``kneighbors`` without an
# argument searches for the neighbors of the stored samples, none of which is its own neighbor.

latents = np.load(path, mmap_mode="r")
search = TorchNearestNeighbors(n_neighbors=5).fit(latents)
distances, indices = search.kneighbors()
print(f"{latents.shape[0]} vectors of {latents.shape[1]} numbers, {latents.dtype}")

# %%
# Duplicates
# ----------
# Distances are exact, so equal vectors have the distance zero and nothing else does.

duplicates = np.flatnonzero(distances[:, 0] == 0)
partners = indices[duplicates, 0]
print(f"{len(duplicates)} samples have an equal one; the smallest other distance is", end=" ")
print(f"{distances[distances[:, 0] > 0, 0].min():.2f}")
print("all copies found:", set(copied) <= set(duplicates))

# %%
# Outliers
# --------
# The distance to the fifth neighbor ranks samples. Distances in the latent space may or may not see
# what is unusual about an image: the cosine distance, which ignores the length of a vector, ranks
# these worse.

outlyingness = distances[:, -1]
cosine, _ = TorchNearestNeighbors(n_neighbors=5, metric="cosine").fit(latents).kneighbors()
for name, score in {"euclidean": outlyingness, "cosine": cosine[:, -1]}.items():
    precision = average_precision_score(is_inverted, score)
    print(f"{name:10} average precision for inverted images: {precision:.2f}")

fig, axes = plt.subplots(3, 10, figsize=(10, 3.6), layout="constrained")
rows = {
    "duplicates": duplicates[:10],
    "their equals": partners[:10],
    "outliers": np.argsort(-outlyingness)[:10],
}
for row, (name, samples) in zip(axes, rows.items(), strict=True):
    for ax, sample in zip(row, samples, strict=True):
        ax.imshow(images[sample].reshape(8, 8), cmap="gray_r")
        ax.set(xticks=[], yticks=[], xlabel=f"{sample}")
    row[0].set_ylabel(name)

# %%
# The number below an image is its position in the file.

folder.cleanup()
