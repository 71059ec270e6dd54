"""Html: one document that needs nothing else and loads nothing; the only script it may run is one it holds."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import write_atomic
from ..errors import InputError
from ..words import html_text

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 640
"""Longest side in pixels of a picture on a page."""

_QUALITY = 88
_POLICY = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'"
_STYLE = """
:root{color-scheme:light dark;--ground:#fff;--card:#f5f5f4;--ink:#1a1a1a;--soft:#5c5c5c;--line:#d6d6d3;--warn:#a3001b}
@media (prefers-color-scheme:dark){
:root{--ground:#161616;--card:#222;--ink:#eee;--soft:#aaa;--line:#3d3d3d;--warn:#ff8f9d}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:110rem;padding:1rem;background:var(--ground);color:var(--ink);
font:1rem/1.45 system-ui,sans-serif}
h1{font-size:1.6rem;margin:.2em 0}h2{font-size:1.2rem;margin:0}h3{font-size:1rem;margin:1.2em 0 .4em}
h1,h2,h3,figcaption,dd,td,li{overflow-wrap:anywhere}
article,section{border-top:1px solid var(--line);padding:1.2rem 0}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,17rem),1fr));gap:1rem;margin-top:.8rem;
align-items:start}
figure{margin:0;padding:.6rem;background:var(--card);border-radius:.4rem;min-width:0}
img{display:block;width:100%;height:auto;max-height:30rem;object-fit:contain}
figcaption{margin-top:.5rem;font-size:.9rem}
.bar{height:.5rem;margin:.5rem 0 .2rem;border:1px solid var(--line)}
.soft,dt{color:var(--soft)}.soft{margin:.2em 0}
dl{display:grid;grid-template-columns:auto 1fr;gap:.1rem .7rem;margin:.4rem 0 0}dd{margin:0;min-width:0}
.flag{margin:.4rem 0 0;padding:.3rem .5rem;border-left:.25rem solid var(--warn);color:var(--warn);font-weight:600}
.failed{color:var(--warn)}
.scroll{overflow-x:auto}.scroll td,.scroll th{white-space:nowrap;overflow-wrap:normal}
th{text-align:right;padding:.15rem .4rem;font-weight:600}th:first-child{text-align:left}
table{border-collapse:collapse;width:100%;margin:.4rem 0 .8rem}
td{text-align:left;padding:.15rem .4rem;border-bottom:1px solid var(--line)}
td+td{text-align:right;font-variant-numeric:tabular-nums}
.sortable td{text-align:right;font-variant-numeric:tabular-nums}
tbody th{font-weight:400;border-bottom:1px solid var(--line)}
.whole img{max-height:none}
.crops{display:grid;grid-template-columns:repeat(auto-fill,minmax(7.5rem,1fr));gap:.5rem;margin:.6rem 0;padding:0;
list-style:none}.crops figure{padding:.35rem}.crops figcaption{margin-top:.25rem;font-size:.75rem}
.plain article{border-top:0;padding:.8rem 0 0}.plain .whole{max-width:60rem;margin-top:1rem}
.pair{display:grid;gap:0 1.5rem;align-items:start;
grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}.plain td:first-child{white-space:normal}
.forest{display:block;margin-left:auto;width:14rem;height:1.1rem}.forest line{stroke:currentColor}
.forest .zero{stroke:var(--line)}
nav a{color:inherit}.scroll:focus-visible,nav a:focus-visible{outline:2px solid;outline-offset:2px}
th button{all:unset;cursor:pointer}th button:focus-visible{outline:2px solid}
[aria-sort=ascending] button::after{content:" ▲"}[aria-sort=descending] button::after{content:" ▼"}
footer{border-top:1px solid var(--line);padding-top:1.2rem;font-size:.9rem}
"""


def document(title: str, header: str, main: str, footer: str, *, script: str = "") -> str:
    """A document whose parts are HTML already and whose title is text; nothing but this `script` can run in it."""
    policy = f"{_POLICY}; style-src 'unsafe-inline'" + (f"; script-src {_hash(script)}" if script else "")
    last = f"<script>{script}</script>" if script else ""
    return _document(title, header, main, footer + last, _STYLE, policy)


def write_document(path: str | os.PathLike[str], title: str, header: str, main: str, footer: str) -> Path:
    """Write a `document` without a script, complete before it has its name.

    Raises InputError where the file cannot be written.
    """
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, document(title, header, main, footer).encode())
    except OSError as error:
        raise InputError(f"Cannot write '{file}': {error.strerror or error}.") from None
    return file


def image_html(picture: Image, alt: str) -> str:
    """A picture inside the document."""
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img src="{image_uri(picture)}" {size} alt="{html_text(alt)}">'


def table_html(head: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> str:
    """A table of text, scrolled where it is wide; `name` says what it holds to those who do not see it."""
    top = "".join(f'<th scope="col">{html_text(word)}</th>' for word in head)
    body = "".join("<tr>" + "".join(f"<td>{html_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    inside = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return scroll_html(inside, name)


def scroll_html(table: str, name: str) -> str:
    """A table that is HTML already in a box that the keyboard can scroll too."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{html_text(name)}">{table}</div>'


def list_html(facts: Mapping[str, str]) -> str:
    """Names and what they are, without those that are empty."""
    return "<dl>" + "".join(f"<dt>{html_text(k)}</dt><dd>{html_text(v)}</dd>" for k, v in facts.items() if v) + "</dl>"


def image_uri(picture: Image) -> str:
    """A picture as a data URI."""
    held = BytesIO()
    picture.save(held, "JPEG", quality=_QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(held.getvalue()).decode()}"


def script_document(title: str, header: str, page: str, data: Any) -> str:
    """A document that the built script ``static/PAGE.js`` fills from `data`, which must be fit for JSON.

    Its policy lets that one script and that one style run, by their hashes, and nothing be fetched. `header` is HTML
    already, the title is text.

    Raises InputError where `data` holds numbers that are not finite.
    """
    script, style = ((Path(__file__).parent / "static" / f"{page}.{kind}").read_text("utf-8") for kind in ("js", "css"))
    style = _STYLE + style
    try:
        held = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    except ValueError:
        raise InputError(f"{title}: every score must be finite.") from None
    footer = (
        "<noscript><p>This page needs JavaScript.</p></noscript>"
        f'<script type="application/json" id="data">{held}</script><script>{script}</script>'
    )
    return _document(
        title, header, "", footer, style, f"{_POLICY}; script-src {_hash(script)}; style-src {_hash(style)}"
    )


def _hash(text: str) -> str:
    """A policy's name for a script or a style."""
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


def _document(title: str, header: str, main: str, footer: str, style: str, policy: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html_text(title)}</title>'
        f"<style>{style}</style></head><body><header><h1>{html_text(title)}</h1>{header}</header>"
        f"<main>{main}</main>{footer}</body></html>\n"
    )
