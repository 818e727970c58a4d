"""The checks behind `skboundary.utils.estimator_checks`, by subject."""

# SPDX-License-Identifier: BSD-3-Clause
