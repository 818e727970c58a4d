"""The methods of BoundarySampleExtractor: a file each, and the table that lists them."""

# SPDX-License-Identifier: BSD-3-Clause
