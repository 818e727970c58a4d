"""Tables of the user guide."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations


def rst_table(cells: list[list[str]]) -> list[str]:
    """Format a simple reST table; the first line is its header."""
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    rule = "  ".join("=" * width for width in widths)
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)) for line in cells]
    return [rule, rows[0].rstrip(), rule, *[row.rstrip() for row in rows[1:]], rule]
