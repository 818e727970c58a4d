"""The algorithms: pure torch functions, tensors in, tensors out."""

# SPDX-License-Identifier: BSD-3-Clause
