"""Tables of the user guide."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from pathlib import Path


def rst_table(cells: list[list[str]]) -> list[str]:
    """Format a simple reST table; the first line is its header."""
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    rule = "  ".join("=" * width for width in widths)
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)) for line in cells]
    return [rule, rows[0].rstrip(), rule, *[row.rstrip() for row in rows[1:]], rule]


def insert_table(page: Path, marks: tuple[str, str], text: str) -> None:
    """Insert text into a page, between its two marks."""
    before, rest = page.read_text().split(marks[0])
    page.write_text(f"{before}{marks[0]}\n{text}\n\n{marks[1]}{rest.split(marks[1])[1]}")
