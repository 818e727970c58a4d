"""The algorithms as pure functions: torch tensors in, torch tensors out.

Functions are imported from their modules, ``skboundary.functional.<module>``:

- `nearest_neighbors`: exact k nearest neighbors, and all within a radius.
- `latent_mixing`: outputs averaged with the outputs of neighbors (LaSeNN).
- `out_of_distribution`: scores of samples unlike the training data, and p-values.
- `margins`: margins between logits, and the rounding error they carry.
- `root_finding`: roots of many functions on intervals, in one batch.
- `nearest_boundary`: nearest boundary points by gradients (DeepFool in a box, refined).
- `ddn`: the same by steps of decoupled direction and norm (DDN).
- `query_search`: the same from scores or labels alone.
- `certified_distance`: certified lower bounds of distances, for chains of ReLU (CROWN).
- `sparse_search`: changes of the fewest coordinates, from scores or labels.
- `perturbation_minimization`: pairs on either side of a boundary (PM).
- `deepdig`: autoencoders that generate such pairs (DeepDIG).
- `boundary_complexity`: oscillation and linearity of a boundary (DeepDIG).
- `cosine_transform`: frequencies of images, and filters of them.
- `subspaces`: bases of cosines, principal components or random directions.
- `subspace_deepfool`: margins inside subspaces (Hold me tight).
- `pairing`: pairs of near samples of two classes.
- `extrapolation`: positions of synthetic samples (biased extrapolation).

Boundary searches share their leading parameters, ``(classifier, x, source, *, target, bounds)``,
and return a `BoundaryPoint`, or a named tuple that begins with its fields. A margin is positive
where the source class is still predicted.
"""

# SPDX-License-Identifier: BSD-3-Clause

__all__ = [
    "boundary_complexity",
    "certified_distance",
    "cosine_transform",
    "ddn",
    "deepdig",
    "extrapolation",
    "latent_mixing",
    "margins",
    "nearest_boundary",
    "nearest_neighbors",
    "out_of_distribution",
    "pairing",
    "perturbation_minimization",
    "query_search",
    "root_finding",
    "sparse_search",
    "subspace_deepfool",
    "subspaces",
]
