"""Tools for developers of estimators."""

# SPDX-License-Identifier: BSD-3-Clause
