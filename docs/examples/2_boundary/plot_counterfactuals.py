# SPDX-License-Identifier: BSD-3-Clause

"""
Which columns decide a prediction?
==================================

A random forest predicts whether a tumor is malignant from 30 measurements of cells. For a single
sample, :class:`~skboundary.BoundarySampleExtractor` with ``method="sparse"`` finds the fewest
measurements that would have to differ for another prediction, and the values they would need.
"""

# %%
# A classifier that is explained, but not changed
# -----------------------------------------------
# ``FrozenEstimator`` keeps the fitted forest. The training samples supply the values that columns
# may take. Two columns are immutable, as if they could not be measured again.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from skboundary import BoundarySampleExtractor

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
y = np.where(y == 1, "benign", "malignant")
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=60, random_state=0)
forest = RandomForestClassifier(50, random_state=0).fit(X_train, y_train)

extractor = BoundarySampleExtractor(
    FrozenEstimator(forest),
    method="sparse",
    immutable=["mean radius", "mean texture"],
    random_state=0,
).fit(X_train, y_train)

# %%
# One sample
# ----------
# ``to_frame`` lists the columns that change, in their own units.

pairs = extractor.extract_pairs(X_test)
changes = pairs.to_frame()
n_changes = changes.groupby("sample").size()
sample = n_changes[n_changes == 3].index[0]
print(f"Sample {sample} is predicted as {pairs.source[sample]}; it would be {pairs.target[sample]}")
print(changes.loc[sample].round(3).to_string())

# %%
# All test samples
# ----------------
# The left picture counts the columns that have to change. The right one shows how far the columns
# that change most often move, in standard deviations, for each sample in which they do.

columns = changes.index.get_level_values("column")
moved = changes.change / X_train.std().loc[columns].to_numpy()
source = pairs.source[changes.index.get_level_values("sample")]
often = columns.value_counts().index[:8]

fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
counts = np.bincount(n_changes)[1:]
axes[0].bar(np.arange(1, len(counts) + 1), counts)
axes[0].set(xlabel="changed columns", ylabel="test samples")
for label, marker in (("malignant", "o"), ("benign", "s")):
    for place, column in enumerate(often):
        chosen = (columns == column) & (source == label)
        axes[1].plot(
            moved[chosen],
            np.full(chosen.sum(), place),
            marker,
            color="C0" if label == "malignant" else "C1",
            alpha=0.5,
            label=f"predicted as {label}" if place == 0 else None,
        )
axes[1].set_yticks(range(len(often)), often)
axes[1].invert_yaxis()
axes[1].axvline(0, color="gray", linewidth=0.8)
axes[1].set(xlabel="change in standard deviations")
axes[1].legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)

print(
    f"{pairs.success.mean():.0%} of the samples have a counterfactual, with "
    f"{n_changes.mean():.1f} changed columns in the mean."
)

# %%
# Malignant predictions become benign by smaller values, and benign ones malignant by larger ones.
