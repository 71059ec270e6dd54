"""Cells: intervals and plain numbers as text, as CSV, as JSON; lines of cells as tables."""

from __future__ import annotations

from collections.abc import Sequence

from ..interval import Interval


def number(cell: Interval | float) -> float:
    """The figure of a cell."""
    return cell.value if isinstance(cell, Interval) else float(cell)


def figure_words(held: Interval, form: str = ".3f") -> str:
    """A figure, and its bounds where there are enough images for them."""
    if not held.n:
        return "-"
    ends = "" if held.low != held.low else f" [{held.low:{form}}, {held.high:{form}}]"
    return f"{held.value:{form}}{ends}"


def written(cell: Interval | float | None, count: int) -> list[str]:
    """A cell as so many cells of a CSV file; what is not a number is empty."""
    numbers = [cell.value, cell.low, cell.high, cell.n] if isinstance(cell, Interval) else [cell]
    texts = ["" if v is None or v != v else f"{v:.10g}" for v in numbers]
    return texts + [""] * (count - len(texts))


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of text, every column as wide as its widest cell."""
    wide = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(line, wide, strict=True)).rstrip() for line in table]


def markdown_table(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, the first one its head."""
    lines = [table[0], ["---"] * len(table[0]), *table[1:]]
    return ["| " + " | ".join(cell.strip().replace("|", "\\|") for cell in line) + " |" for line in lines]


def across(table: Sequence[Sequence[str]]) -> list[list[str]]:
    """The table, turned where it is wider than long."""
    wide = len(table[0]) > len(table)
    return [list(line) for line in zip(*table, strict=True)] if wide else [list(line) for line in table]


def sort_key(cell: Interval | float | None) -> float | None:
    """What a cell is sorted by, None where it has no value."""
    value = None if cell is None else number(cell)
    return value if value == value else None
