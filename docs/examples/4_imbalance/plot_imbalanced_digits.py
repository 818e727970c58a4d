# SPDX-License-Identifier: BSD-3-Clause

"""
Few samples of some digits: a sampler beside class weights
===========================================================

A classifier rarely predicts classes with few samples.
:class:`~skboundary.BiasedExtrapolationSampler` adds samples of them near the decision boundary, as
a step of an imbalanced-learn pipeline. Class weights, SMOTE and logit adjustment address the same
problem.
"""

# %%
# Rare digits
# -----------
# The odd digits keep 11 training samples each, a tenth.

import matplotlib.pyplot as plt
import numpy as np
from imblearn.datasets import make_imbalance
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import make_pipeline
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, recall_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skboundary import BiasedExtrapolationSampler, LogitAdjustedClassifier, ResamplingDisplay

X, y = load_digits(return_X_y=True)
rare = [1, 3, 5, 7, 9]


def split(seed):
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.4, stratify=y, random_state=seed
    )
    counts = dict.fromkeys(rare, 11)
    X_train, y_train = make_imbalance(X_train, y_train, sampling_strategy=counts, random_state=seed)
    return X_train, X_test, y_train, y_test


# %%
# Pipelines
# ---------
# Samplers act in ``fit`` only. Ours uses the boundary of a logistic regression unless it is given
# another classifier; the scaler comes first, because distances depend on the units of the columns.

pipelines = {
    "nothing": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    "class weights": make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced")
    ),
    "SMOTE": make_pipeline(
        StandardScaler(), SMOTE(random_state=0), LogisticRegression(max_iter=1000)
    ),
    "biased extrapolation": make_pipeline(
        StandardScaler(),
        BiasedExtrapolationSampler(random_state=0),
        LogisticRegression(max_iter=1000),
    ),
}

# %%
# Logit adjustment (Menon et al., `arXiv 2007.07314 <https://arxiv.org/abs/2007.07314>`_) needs no
# samples and no training: :class:`~skboundary.LogitAdjustedClassifier` divides the probabilities by
# the shares of the classes.

recalls, precisions = {}, {}
for seed in range(4):
    X_train, X_test, y_train, y_test = split(seed)
    proba = {
        name: pipeline.fit(X_train, y_train).predict_proba(X_test)
        for name, pipeline in pipelines.items()
    }
    adjusted = LogitAdjustedClassifier(FrozenEstimator(pipelines["nothing"])).fit(X_train, y_train)
    proba["logit adjustment"] = adjusted.predict_proba(X_test)
    for name, p in proba.items():
        recall = recall_score(y_test, p.argmax(1), average=None)
        recalls.setdefault(name, []).append((recall[rare].mean(), np.delete(recall, rare).mean()))
        precision = [average_precision_score(y_test == digit, p[:, digit]) for digit in rare]
        precisions.setdefault(name, []).append(np.mean(precision))

# %%
# Results
# -------
# Small marks are single splits, large ones their means.

fig, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
for (name, values), marker in zip(recalls.items(), "Xsd^o", strict=True):
    rare_recall, other_recall = np.transpose(values)
    color = ax.scatter(rare_recall, other_recall, 15, marker=marker, alpha=0.6).get_facecolor()[
        0, :3
    ]
    ax.scatter(
        rare_recall.mean(),
        other_recall.mean(),
        130,
        [color],
        marker=marker,
        label=name,
        edgecolor="black",
    )
    print(
        f"{name:22} recall of rare digits {rare_recall.mean():.3f}, of others "
        f"{other_recall.mean():.3f}, balanced accuracy {np.mean(values):.3f}, "
        f"average precision {np.mean(precisions[name]):.3f}"
    )
ax.set(xlabel="mean recall of the rare digits", ylabel="mean recall of the other digits")
_ = ax.legend()

# %%
# Every method trades recall of the frequent digits for recall of the rare ones. Biased
# extrapolation gains more than class weights and SMOTE, and logit adjustment, which is free, more
# than any of them. How well the probabilities rank the samples (average precision) hardly depends
# on the method. Over-sampling is worth its time if the classifier has no probabilities that could
# be adjusted; the :ref:`guide <biased_extrapolation>` compares more data and classifiers.

# %%
# Where the synthetic samples are
# -------------------------------
# On the left, the rare digit 3 and the 8, toward which it is extrapolated, by the difference of
# their two logits: the boundary is at 0. On the right, the probability of a 3 at each synthetic
# sample, beside the one aimed at.

sampler = pipelines["biased extrapolation"]["biasedextrapolationsampler"]
scaled = pipelines["biased extrapolation"]["standardscaler"].transform(X_train)
sampler.fit_resample(scaled, y_train)
_ = ResamplingDisplay.from_sampler(sampler, scaled, y_train, pair=(3, 8))

# %%
# The sampler aims at probabilities below 0.5, beyond the boundary of a classifier that places it
# too close to the rare digit. By default it spreads the samples between there and the rare samples,
# so most of them are above the diagonal.
