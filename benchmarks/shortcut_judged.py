"""What the rows of `shortcut_reach.py` say: which shortcut was found, and what counts as an alarm."""

from __future__ import annotations

from typing import Any


def tables(rows: list[dict[str, Any]]) -> list[str]:
    return [str(len(rows))]
