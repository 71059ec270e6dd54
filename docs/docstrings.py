"""Docstrings as Markdown: the facts of a method, which stand on their own lines in the code, become a list."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Function

_FACTS = ("maps", "cost", "fails", "Source", "Differs")
_START = re.compile(rf"(?:^|(?<=\s))({'|'.join(_FACTS)}):(?=\s)")


class Facts(Extension):
    """Rewrites the docstrings of `whylens.methods`."""

    def on_function(self, *, func: Function, **_: Any) -> None:
        """One list item per fact."""
        if func.docstring is not None and func.path.startswith("whylens.methods."):
            func.docstring.value = as_list(func.docstring.value)


def as_list(text: str) -> str:
    """Words before the first fact as they are, then ``- **fact:** ...`` for each."""
    first = _START.search(text)
    if first is None:
        return text
    parts = _START.split(text[first.start() :])[1:]
    items = [f"- **{name}:** {' '.join(said.split())}" for name, said in zip(parts[::2], parts[1::2], strict=True)]
    return text[: first.start()].rstrip() + "\n\n" + "\n".join(items)
