# SPDX-License-Identifier: BSD-3-Clause

"""
Samples in a file, and a bank on disk that grows
================================================

Training samples in a file need not fit into memory, and neither do their latent vectors.
:class:`~skboundary.LatentKNNClassifier` reads the file in batches, writes the latent vectors to a
folder, and searches them there. New samples are appended, without training the network again.
"""

# %%
# A file of images
# ----------------
# 30,000 digits, shifted and with noise, are written slice by slice. A file that exceeds the memory
# is used in the same way. The network is trained on the first 2000.

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from skboundary import LatentKNNClassifier

folder = TemporaryDirectory()
path, rng = Path(folder.name), np.random.default_rng(0)


def distort(images):
    canvas = np.zeros((len(images), 12, 12), dtype=np.float32)
    for drawn, image in zip(canvas, images, strict=True):
        i, j = rng.integers(5, size=2)
        drawn[i : i + 8, j : j + 8] = image.reshape(8, 8) / 16
    return (canvas + rng.normal(0, 0.15, canvas.shape)).reshape(len(images), -1)


data = load_digits(return_X_y=True)
digits, digits_test, labels, y_test = train_test_split(*data, random_state=0)
source = rng.integers(len(digits), size=30_000)
y = labels[source]
file = np.lib.format.open_memmap(path / "X.npy", "w+", np.float32, (len(source), 144))
for start in range(0, len(source), 5000):
    file[start : start + 5000] = distort(digits[source[start : start + 5000]])
X_test = distort(digits_test)

X = np.load(path / "X.npy", mmap_mode="r")
network = MLPClassifier((64,), early_stopping=True, random_state=0).fit(X[:2000], y[:2000])

# %%
# A bank that grows
# -----------------
# ``fit`` writes the first samples, and ``partial_fit`` appends others. With
# ``contribute="labels"`` the neighbors vote by their labels, so new samples add what the network
# has not learned.

clf = LatentKNNClassifier(
    FrozenEstimator(network),
    n_neighbors=10,
    query_weight=0,
    contribute="labels",
    bank=path / "bank",
)
stops = [2000, 5000, 10_000, 20_000, 30_000]
accuracy, size = [], []
for start, stop in zip([0, *stops], stops, strict=False):
    (clf.partial_fit if start else clf.fit)(X[start:stop], y[start:stop])
    accuracy.append(clf.score(X_test, y_test))
    size.append(sum(part.stat().st_size for part in (path / "bank").iterdir()) / 1e6)
print(f"network:             test accuracy {network.score(X_test, y_test):.3f}")
for n in (0, -1):
    print(f"{stops[n]:6} samples:      test accuracy {accuracy[n]:.3f}, {size[n]:.1f} MB on disk")

# %%
# The samples improve the vote of the neighbors, and not the network, which stays as it is.

fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
axes[0].plot(stops, accuracy, "o-", label="neighbors")
axes[0].axhline(network.score(X_test, y_test), color="gray", linestyle="--", label="network alone")
axes[0].set(xlabel="samples in the bank", ylabel="test accuracy")
axes[0].legend()
axes[1].plot(stops, [n * X[0].nbytes / 1e6 for n in stops], "s--", label="samples")
axes[1].plot(stops, size, "o-", label="bank")
axes[1].set(xlabel="samples in the bank", ylabel="MB on disk", ylim=0)
_ = axes[1].legend()

# %%
# Another session
# ---------------
# ``from_bank`` opens the folder with the network, and does not need the samples.

later = LatentKNNClassifier.from_bank(
    path / "bank", FrozenEstimator(network), query_weight=0, contribute="labels", n_neighbors=10
)
print("same predictions:", (later.predict(X_test) == clf.predict(X_test)).all())
folder.cleanup()
