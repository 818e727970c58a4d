# SPDX-License-Identifier: BSD-3-Clause

"""
Save a fitted classifier, and load it elsewhere
===============================================

:func:`skboundary.io.save` writes a fitted estimator to a folder without pickle, so
:func:`skboundary.io.load` executes nothing from it. The code of a network is not saved: it is given
again where the folder is loaded.
"""

# %%
# On one machine
# --------------
# ``save`` returns the names of what ``load`` has to be given: here the network.

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skboundary import LatentKNNClassifier, NeighborsDisplay
from skboundary.io import load, save


def build():
    return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))


X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
torch.manual_seed(0)
network = build()
optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
for _ in range(100):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(network(torch.tensor(X_train)), torch.tensor(y_train))
    loss.backward()
    optimizer.step()
clf = LatentKNNClassifier(network, n_neighbors=6, query_weight=0.5).fit(X_train, y_train)

temporary = TemporaryDirectory()
folder = Path(temporary.name) / "classifier"
print(save(clf, folder))

# %%
# What the folder contains
# ------------------------
# Every file is JSON, npy or safetensors. The manifest lists the digest of each.

files = sorted(path for path in folder.rglob("*") if path.is_file())
names = [path.relative_to(folder).as_posix() for path in files]
fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
bars = ax.barh(names, [path.stat().st_size for path in files])
ax.bar_label(bars, [f"{path.stat().st_size:,}" for path in files], padding=3)
ax.set(xlabel="bytes", xscale="log", xlim=(100, 2e6))
ax.invert_yaxis()
print("class:", json.loads((folder / "estimator.json").read_text())["class"])

# %%
# On another machine
# ------------------
# The network is built from its code, and has other weights. ``load`` puts the saved weights into a
# copy of it. Neighbors and probabilities are those of the classifier that was saved.

fresh = build()
other = load(folder, fresh)
print("equal probabilities:", (other.predict_proba(X_test) == clf.predict_proba(X_test)).all())
with torch.no_grad():
    untrained = fresh(torch.tensor(X_test)).argmax(1).numpy()
print(f"loaded classifier: test accuracy {other.score(X_test, y_test):.3f}")
print(f"network as given:  test accuracy {(untrained == y_test).mean():.3f}")

least = other.predict_proba(X_test).max(axis=1).argsort()[:2]
_ = NeighborsDisplay.from_estimator(other, X_test[least], X_train=X_train, image_shape=(8, 8))

# %%
# A changed file
# --------------
# Every byte is checked before anything is built.

weights = folder / "weights.safetensors"
changed = bytearray(weights.read_bytes())
changed[-1] ^= 1
weights.write_bytes(changed)
try:
    load(folder, fresh)
except ValueError as error:
    print(str(error).replace(str(folder), "classifier"))
temporary.cleanup()
