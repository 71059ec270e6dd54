"""Effects on a page: every act on a run's groups, before and after, its change beside that of the controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import _plugins
from ..act_record import Done, read_record, records_of
from ..errors import WhylensError
from ..groups.evidence import folder_of
from ..words import html_text
from .html import list_html, scroll_html

if TYPE_CHECKING:
    from ..effect import Effect
    from ..interval import Interval
    from ..run.read import Run

_SAYS = (
    "Every figure has its 95 % interval; changes are paired, image by image. An act helped, or hurt, only where its "
    "change, and its lead over each control, lie on one side of 0 with their whole interval."
)
_WIDTH, _HEIGHT = 224, 18  # of an interval's drawing, in its own units


def acts_of(run: Run, groupings: Sequence[str]) -> tuple[list[Done], list[str]]:
    """The acts on these groupings, in order, and why records could not be read."""
    found, lost = [], []
    for name in groupings:
        for path in records_of(folder_of(run) / name):
            try:
                found.append(read_record(path))
            except WhylensError as error:
                lost.append(str(error))
    return found, lost


def acts_html(acts: Sequence[Done], lost: Sequence[str]) -> str:
    """The section of the acts; nothing where there are none."""
    if not acts and not lost:
        return ""
    flags = "".join(f'<p class="flag">⚠ {html_text(why)}</p>' for why in lost)
    body = "".join(map(_act, acts))
    says = f'<p class="soft">{html_text(_SAYS)}</p>' if acts else ""
    return f'<section id="acts" class="plain"><h2>What was done</h2>{says}{flags}{body}</section>'


def _act(done: Done) -> str:
    effect = done.effect
    given = "".join(f", {name.replace('_', ' ')} {value}" for name, value in done.params.items())
    title = f"{effect.action} '{done.group}': {effect.verdict}"
    found = f"{effect.measured}: {effect.before} before, {effect.after} after, on {effect.n} {effect.of}."
    facts = {name.replace("_", " "): str(value) for name, value in effect.said.items()}
    facts |= {"group": f"{len(done.image_ids)} {effect.of}, grouping '{done.grouping}', version {done.version}"}
    facts |= {"settings": f"seed {done.seed}{given}", "record": "" if effect.record is None else effect.record.name}
    return (
        f'<article><h3>{html_text(title)}</h3><p class="soft">{html_text(_says(effect))}</p>'
        f"<p><strong>{html_text(found)}</strong></p>{_changes(done)}{list_html(facts)}</article>"
    )


def _changes(done: Done) -> str:
    """A line for the act and one for each control: its change, in figures and drawn, and the act's lead over it."""
    effect = done.effect
    lines: dict[str, tuple[Interval, Interval | None]] = {effect.action: (effect.change, None)}
    lines |= {f"control: {name}": (found, effect.beyond.get(name)) for name, found in effect.controls.items()}
    ends = [end for found, _ in lines.values() for end in (found.low, found.high, found.value) if end == end]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    rows = "".join(
        f"<tr><td>{html_text(name)}</td><td>{html_text(str(found))}</td><td>{_drawn(found, low, high)}</td>"
        f"<td>{'' if lead is None else html_text(str(lead))}</td></tr>"
        for name, (found, lead) in lines.items()
    )
    words = ("act and controls", "change", "0 is dotted", f"{effect.action} beyond it")
    head = "".join(f'<th scope="col">{html_text(word)}</th>' for word in words)
    return scroll_html(
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>",
        f"changes by {effect.action} of {done.group}",
    )


def _drawn(found: Interval, low: float, high: float) -> str:
    """The interval as a line with its figure as a dot, on one scale for all lines of an act; 0 is dotted."""
    span = (high - low) or 1.0

    def x(value: float) -> str:
        return f"{6 + (_WIDTH - 12) * (value - low) / span:.1f}"

    middle = _HEIGHT / 2
    parts = f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="0" y2="{_HEIGHT}" stroke-dasharray="2 2"/>'
    if found.low == found.low:
        parts += f'<line x1="{x(found.low)}" x2="{x(found.high)}" y1="{middle}" y2="{middle}" stroke-width="2"/>'
    if found.value == found.value:
        parts += f'<circle cx="{x(found.value)}" cy="{middle}" r="4" fill="currentColor"/>'
    return f'<svg class="forest" viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-hidden="true">{parts}</svg>'


def _says(effect: Effect) -> str:
    """The paragraph of what the action says of itself, the first or the one on objects; nothing for an unknown one."""
    try:
        told = (_plugins.find("actions", effect.action).__doc__ or "").split("\n\n")
    except WhylensError:
        return ""
    on_objects = [words for words in told if words.strip().startswith("Objects")] if effect.of == "objects" else []
    return " ".join((on_objects or told)[0].replace("`", "").split())
