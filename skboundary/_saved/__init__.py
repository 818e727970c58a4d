"""Files of a saved estimator: the manifest, and what is not plain data."""

# SPDX-License-Identifier: BSD-3-Clause
