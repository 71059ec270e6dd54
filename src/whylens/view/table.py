"""Table: cells as HTML, sorted by any column at a click; without a script it is a plain table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..words import html_text

SORT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, at) => head.firstElementChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
    const key = row => row.cells[at].dataset.sort;
    const number = [...body.rows].every(row => key(row) === undefined || key(row) !== "" && !isNaN(key(row)));
    const order = (a, b) => number ? key(a) - key(b) : key(a).localeCompare(key(b));
    const there = [...body.rows].filter(row => key(row) !== undefined).sort((a, b) => up * order(a, b));
    body.append(...there, ...[...body.rows].filter(row => key(row) === undefined));
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up > 0 ? "ascending" : "descending");
  }));
}
"""
"""What makes a page's tables sortable: `document(..., script=SORT)`. Cells without a value stay last."""

_MARKS = {"best": "<strong>{}</strong>", "close": '{} <span title="not told apart from the best">~</span>'}


@dataclass(frozen=True)
class Cell:
    """Text, what it is sorted by (None stays last), and whether it is "best" or "close" to it."""

    text: str
    sort: float | str | None = None
    mark: str = ""


def sortable(heads: Sequence[tuple[str, str]], rows: Sequence[Sequence[Cell]]) -> str:
    """A table; a head is its text and what it means, the first cell of a row is the row's own head."""
    top = "".join(
        f'<th scope="col"><button type="button" title="{html_text(says)}">{html_text(text)}</button></th>'
        for text, says in heads
    )
    body = "".join(f"<tr>{''.join(_cell(cell, k == 0) for k, cell in enumerate(row))}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="sortable"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cell(cell: Cell, head: bool) -> str:
    by = "" if cell.sort is None else f' data-sort="{html_text(str(cell.sort))}"'
    text = _MARKS.get(cell.mark, "{}").format(html_text(cell.text))
    return f'<th scope="row"{by}>{text}</th>' if head else f"<td{by}>{text}</td>"
