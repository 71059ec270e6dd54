"""Groups on a page: what of a grouping is worth a look, in figures, with the evidence of its nearest images."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from ..groups.draw import Crops, nearest, scatter
from ..groups.evidence import folder_of
from ..groups.grouping import latest, version_path
from ..picture import as_image
from ..words import counted, html_text
from .html import image_html, table_html

if TYPE_CHECKING:
    from ..groups.describe import Group
    from ..groups.grouping import Groups
    from ..groups.intervene import Tested
    from ..interval import Interval
    from ..run.read import Run

SHOWN = 12
"""Groups that are shown; where nothing is worth a look, half as many."""

CROPS = 8
"""Images of each."""

SIDE = 200

_SAYS = (
    "Groups of evidence in classes that have more than one reason. First comes what carries its class to other images "
    "most beyond a random region, then what is rarer; labels, masks and columns have no say. No group proves a fault: "
    "the object's own shape carries its class too. What is no evidence is grey and dark in the pictures."
)
_SAYS_OF_OBJECTS = (
    "Groups of evidence in classes that have more than one. First come those whose masks are incomplete most beyond "
    "the rest of their class; columns have no say. Keeping, removing and pasting are not tried: a box that is held "
    "fixed stays where it is. Masking a group and finding everything anew tests it. What is no evidence is grey and "
    "dark in the pictures."
)
_WORTH_OF_OBJECTS = ("group", "objects", "of its class", "annotated there", "rest of class", "incomplete", "rest")
_WORTH = ("group", "images", "of its class", "right", "rest of class right", "decides", "needed", "carries")
_TESTS = {
    "decides": "decides: alone it still gives the class",
    "needed": "needed: without it the class is lost",
    "carries": "carries: pasted on other classes it gives this one",
}


def groupings(run: Run) -> list[str]:
    """Names of a run's groupings that have a version, the one written last first."""
    made = [(folder, latest(folder)) for folder in sorted(folder_of(run).iterdir())] if folder_of(run).is_dir() else []
    times = {folder.name: version_path(folder, number).stat().st_mtime_ns for folder, number in made if number}
    return sorted(times, key=lambda name: -times[name])


def groups_html(groups: Groups) -> str:
    """The section of a grouping: a table of what is worth a look, each group with pictures and tests, the map."""
    odd = [g for g in groups if g.reasons > 1]
    shown = odd[:SHOWN] or sorted(groups, key=lambda g: -g.size)[: SHOWN // 2]
    crops = Crops(groups)
    parts = [_head(groups, odd), _table(groups, shown) if odd else ""]
    parts += [_group(groups, group, crops) for group in shown]
    left = len(groups) - len(shown)
    more = f"and {counted(left, 'more group')}, in whylens group."
    parts += [f'<p class="soft">{html_text(more)}</p>' if left else ""]
    parts += [_map(groups)]
    title = "Worth a look" if odd else "Groups of evidence"
    return f'<section id="groups" class="plain"><h2>{title}</h2>{"".join(parts)}</section>'


def _head(groups: Groups, odd: list[Group]) -> str:
    said = groups.settings
    found = (
        f"{len(groups.points)} points, one per {groups.per}, of {said['method']} in {len(groups)} groups, {len(odd)} "
        f"of them worth a look. Grouping '{groups.name}', version {groups.version}; stability {groups.stability:.2f} "
        "(adjusted Rand index when a fifth is left out)."
    )
    odd_says = _SAYS_OF_OBJECTS if groups.run.of_objects else _SAYS
    says = odd_says if odd else "No class has more than one reason, so nothing is worth a look. The largest groups:"
    return f'<p>{html_text(found)}</p><p class="soft">{html_text(says)}</p>'


def _table(groups: Groups, shown: list[Group]) -> str:
    rows = []
    for g in shown:
        row = [g.name, str(g.size), *map(_share, (g.share, g.accuracy, g.accuracy_rest))]
        if groups.run.of_objects:
            rows.append([*row, _share(g.incomplete), _share(g.incomplete_rest)])
        else:
            rows.append([*row, *(_beside(g.tested, word) for word in _TESTS)])
    if groups.run.of_objects:
        return table_html(_WORTH_OF_OBJECTS, rows, "groups worth a look")
    note = '<p class="soft">In brackets: the same with a random region of the same shape.</p>'
    return table_html(_WORTH, rows, "groups worth a look") + note


def _beside(tested: Tested | None, word: str) -> str:
    if tested is None:
        return "not tested"
    return f"{_share(getattr(tested, word))} ({_share(getattr(tested, f'{word}_control'))})"


def _share(found: Interval) -> str:
    return f"{found.value:.0%}" if found.n else "-"


# ---- one group -------------------------------------------------------------------------------------------


def _group(groups: Groups, group: Group, crops: Crops) -> str:
    of = f"{group.size} {group.of}, {group.share.value:.0%} of those taken for {group.class_name}"
    others = [str(a) for a in group.associations] + ([f"note: {group.note}"] if group.note else [])
    more = "".join(f"<li>{html_text(word)}</li>" for word in others)
    words = f"<p>{html_text(of)}.</p>" + (f"<ul>{more}</ul>" if more else "")
    tables = f'<div class="pair">{_rest(group)}{_tested(group)}</div>'
    return f"<article><h3>{html_text(group.name)}</h3>{words}{_pictures(groups, group, crops)}{tables}</article>"


def _rest(group: Group) -> str:
    """The group beside the rest of its class."""
    pairs = {
        "right" if group.of == "images" else "annotated there": (group.accuracy, group.accuracy_rest),
        "confidence": (group.confidence, group.confidence_rest),
        "map on the object": (group.inside, group.inside_rest),
        "incomplete masks": (group.incomplete, group.incomplete_rest),
    }
    rows = [[word, str(here), str(rest)] for word, (here, rest) in pairs.items() if here.n]
    return table_html(("share", "here", "rest of its class"), rows, f"{group.name} beside its class") if rows else ""


def _tested(group: Group) -> str:
    if group.tested is None:
        return ""
    rows = [
        [says, str(getattr(group.tested, word)), str(getattr(group.tested, f"{word}_control"))]
        for word, says in _TESTS.items()
    ]
    return table_html(("share of images", "evidence", "random region"), rows, f"tests of {group.name}")


def _pictures(groups: Groups, group: Group, crops: Crops) -> str:
    cells, missing = [], 0
    for point in nearest(groups, group, CROPS):
        shown, key = crops.find(point, SIDE), crops.key(point)
        if shown is None:
            missing += 1
            continue
        picture = image_html(as_image(shown), f"evidence of {group.name} in {key}")
        cells.append(f"<li><figure>{picture}<figcaption>{html_text(key)}</figcaption></figure></li>")
    lost = f'<p class="flag">⚠ {missing} photos are not at hand.</p>' if missing else ""
    return lost + (f'<ul class="crops">{"".join(cells)}</ul>' if cells else "")


def _map(groups: Groups) -> str:
    held = BytesIO()
    scatter(groups)[0].savefig(held, format="png")
    picture = Image.open(held).convert("RGB")
    placed = int(groups.layout.placed.sum())
    says = (
        f"All points, similar evidence near each other: t-SNE of PCA, trustworthiness {groups.layout.trust:.2f}. "
        "Groups are found in PCA space, not in this picture."
    )
    says += f" {placed} points were placed among their neighbours." if placed else ""
    alt = "Map of all points, coloured by group, some with their evidence"
    return f'<figure class="whole">{image_html(picture, alt)}<figcaption>{html_text(says)}</figcaption></figure>'
