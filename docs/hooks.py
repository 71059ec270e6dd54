"""What the pages take from the code when the site is built: methods, flags, where a public name lives."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_METHOD_COLUMNS = {
    "method": "method",
    "needs": "needs",
    "tables": "tables",
    "black box": "black box",
    "map": "map",
    "passes": "passes per image",
    "parameters": "parameters",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill ``<!-- fill: NAME -->`` and ``<!-- api: NAME -->``; take the word for the tests off the code fences."""
    for name, text in _FILLS.items():
        marker = f"<!-- fill: {name} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, text())
    markdown = re.sub(r"<!-- api: (\w+) -->", lambda found: f"::: {public(found[1])}", markdown)
    markdown = re.sub(r"^<!-- no-run: .* -->\n", "", markdown, flags=re.MULTILINE)
    return re.sub(r"^(\s*```\w+) no-run$", r"\1", markdown, flags=re.MULTILINE)


def public(name: str) -> str:
    """The full path of a public name: ``whylens.explain`` is a function and a module, so it must be said."""
    import whylens

    return f"whylens.{whylens._HOME[name]}.{name}"


def methods_table() -> str:
    """One row per method, with a link to its section."""
    from whylens.catalogue import describe_methods

    rows = [{**row, "method": f"[`{row['method']}`](#{_anchor(row['method'])})"} for row in describe_methods()]
    return _table(list(_METHOD_COLUMNS.values()), [[str(row[key]) for key in _METHOD_COLUMNS] for row in rows])


def methods_sections() -> str:
    """One reference section per method, made from its signature and docstring."""
    from whylens import _plugins

    return "\n\n".join(f"::: {_anchor(name)}" for name in _plugins.names("methods"))


def flags_table() -> str:
    """Every flag and what it says."""
    from whylens.explanation import FLAGS

    return _table(["flag", "meaning"], [[f"`{name}`", words] for name, words in FLAGS.items()])


def _anchor(name: str) -> str:
    return f"whylens.methods.{name}.{name}"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


_FILLS: dict[str, Callable[[], str]] = {
    "methods table": methods_table,
    "methods sections": methods_sections,
    "flags table": flags_table,
}
