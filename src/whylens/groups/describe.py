"""Describe: what a group's images have in common, beside the other images of their class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..interval import Interval, mean, wilson
from .intervene import Tested

Array = NDArray[Any]

VALUES = 50
"""Different values from which a column is taken for free text, and not looked at."""

SIGNIFICANT = 0.01
"""Largest p of an association that is told, after Benjamini and Hochberg over all that were looked at."""

_TOLD = 5


NONE = Interval(float("nan"), float("nan"), float("nan"), 0)
"""A share of nothing."""


@dataclass(frozen=True)
class Association:
    """A column of the user's list whose values differ between a group and the rest of its class.

    For words: `value` is in the share `here` of the group's images and `there` of the others. For numbers `value` is
    empty, and `here` and `there` are medians. `p` is Fisher's or that of Mann and Whitney, adjusted.
    """

    column: str
    value: str
    here: float
    there: float
    p: float

    def __str__(self) -> str:
        if self.value:
            return f"{self.column} = {self.value}: {self.here:.0%} here, {self.there:.0%} elsewhere"
        return f"{self.column}: median {self.here:.4g} here, {self.there:.4g} elsewhere"


@dataclass(frozen=True)
class Group:
    """Evidence that is one reason, among the images that the model takes for one class.

    Where a detector was explained, images are its objects, and "right" means that one is annotated there.
    `points` are rows of the grouping's points, nearest to the middle first; `ids` ``image_id`` and `keys` of their
    images in that order, each once. `share` is how many of the class's images are here; `accuracy`, `confidence` and
    `inside` (the map's share on the object, where the run measured it) are given for the group and for the `rest` of
    its class.
    """

    number: int
    name: str
    note: str
    class_name: str
    points: Array
    ids: tuple[int, ...]
    keys: tuple[str, ...]
    share: Interval
    accuracy: Interval
    accuracy_rest: Interval
    confidence: Interval
    confidence_rest: Interval
    inside: Interval
    inside_rest: Interval
    reasons: int  # groups of its class
    associations: tuple[Association, ...] = ()
    tested: Tested | None = field(default=None)
    incomplete: Interval = NONE  # of a detector's objects: share of masks that leave part of their reference out
    incomplete_rest: Interval = NONE
    of: str = "images"

    @property
    def size(self) -> int:
        """How many images, or objects."""
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Group({self.name!r}, {self.size} {self.of} of {self.class_name})"

    def lines(self) -> list[str]:
        """In words."""
        said = [f"{self.name}: {self.size} {self.of}, {self.share.value:.0%} of those taken for {self.class_name}"]
        if self.accuracy.n and self.accuracy_rest.n:
            said.append(f"  right: {self.accuracy.value:.0%} here, {self.accuracy_rest.value:.0%} in the rest of it")
        if self.confidence_rest.n:
            said.append(f"  confidence: {self.confidence.value:.2f} here, {self.confidence_rest.value:.2f} in the rest")
        if self.inside.n:
            rest = f" here, {self.inside_rest.value:.0%} in the rest" if self.inside_rest.n else ""
            said.append(f"  on the object: {self.inside.value:.0%}{rest}")
        if self.incomplete.n:
            rest = f" here, {self.incomplete_rest} in the rest" if self.incomplete_rest.n else ""
            said.append(f"  incomplete masks: {self.incomplete}{rest}")
        if self.tested is not None:
            said.append(f"  {self.tested}")
        said += [f"  {association}" for association in self.associations]
        return said + ([f"  note: {self.note}"] if self.note else [])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        said = {k: v for k, v in asdict(self).items() if k != "points"}
        return {**said, "size": self.size}


@dataclass(frozen=True)
class Facts:
    """Columns of a run's rows, by `image_id`, that describe groups; `own` are the user's.

    Where a detector was explained the rows are objects, by their number in `Run.instances`.
    """

    keys: Array
    classes: Array
    class_names: Array
    correct: Array  # 1, 0, or NaN where the label is unknown
    probability: Array
    inside: Array
    own: Mapping[str, Array]
    incomplete: Array | None = None  # of objects: 1 where the mask leaves part of its reference out, NaN unknown
    images: Array | None = None  # of objects: the `image_id` of each


def described(facts: Facts, image: Array, points: Array, nearness: Array, **said: Any) -> Group:
    """A group of `points` (rows) with their images ``(P,)`` and nearness to its middle ``(P,)``, smaller is nearer."""
    order = points[np.argsort(nearness, kind="stable")]
    ids = np.array(list(dict.fromkeys(image[order].tolist())), np.int64)
    of_class = (facts.classes == facts.classes[ids[0]]).nonzero()[0]
    rest = np.setdiff1d(of_class, ids)
    return Group(
        points=order,
        ids=tuple(ids.tolist()),
        keys=tuple(facts.keys[ids].tolist()),
        class_name=str(facts.class_names[ids[0]]),
        share=wilson(len(ids), len(of_class)),
        accuracy=_rate(facts.correct[ids]),
        accuracy_rest=_rate(facts.correct[rest]),
        confidence=mean(facts.probability[ids]),
        confidence_rest=mean(facts.probability[rest]),
        inside=mean(facts.inside[ids]),
        inside_rest=mean(facts.inside[rest]),
        associations=associations(facts.own, ids, rest),
        incomplete=NONE if facts.incomplete is None else _rate(facts.incomplete[ids]),
        incomplete_rest=NONE if facts.incomplete is None else _rate(facts.incomplete[rest]),
        of="images" if facts.images is None else "objects",
        **said,
    )


def associations(columns: Mapping[str, Array], ids: Array, rest: Array) -> tuple[Association, ...]:
    """What in the user's columns tells these images from the rest, most telling first."""
    if not len(rest):
        return ()
    found: list[Association] = []
    for name, values in columns.items():
        found += _numbers(name, values, ids, rest) if values.dtype.kind == "f" else _words(name, values, ids, rest)
    if not found:
        return ()
    from scipy.stats import false_discovery_control

    adjusted = false_discovery_control([a.p for a in found])
    told = [Association(a.column, a.value, a.here, a.there, float(p)) for a, p in zip(found, adjusted, strict=True)]
    told = sorted((a for a in told if a.p <= SIGNIFICANT), key=lambda a: (a.p, -abs(a.here - a.there)))
    first: dict[str, Association] = {}
    for a in told:
        first.setdefault(a.column, a)
    return tuple(first.values())[:_TOLD]


def _words(name: str, values: Array, ids: Array, rest: Array) -> list[Association]:
    from scipy.stats import fisher_exact

    here, there = values[ids], values[rest]
    known = sorted({str(v) for v in (*here, *there) if v is not None})
    if not 1 < len(known) <= VALUES:
        return []
    found = []
    for value in known:
        a, b = sum(v == value for v in here), sum(v == value for v in there)
        p = float(fisher_exact([[a, len(here) - a], [b, len(there) - b]]).pvalue)
        found.append(Association(name, value, a / len(here), b / len(there), p))
    return [a for a in found if a.here > a.there]


def _numbers(name: str, values: Array, ids: Array, rest: Array) -> list[Association]:
    from scipy.stats import mannwhitneyu

    here, there = (v[~np.isnan(v)] for v in (values[ids], values[rest]))
    if len(here) < 2 or len(there) < 2 or not np.ptp(np.concatenate([here, there])):
        return []
    p = float(mannwhitneyu(here, there).pvalue)
    return [Association(name, "", float(np.median(here)), float(np.median(there)), p)]


def columns_of(table: Mapping[str, Sequence[Any]]) -> dict[str, Array]:
    """Columns as numbers where most values are and many differ, else as words; None where there is none."""
    found: dict[str, Array] = {}
    for name, values in table.items():
        given = [None if v is None or v == "" else v for v in values]
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in given if v is not None)
        if numeric and len({v for v in given if v is not None}) > 2:
            found[name] = np.array([np.nan if v is None else float(v) for v in given])
        else:
            found[name] = np.array([None if v is None else str(v) for v in given], object)
    return found


def _rate(hits: Array) -> Interval:
    known = hits[~np.isnan(hits)]
    return wilson(int(known.sum()), len(known))
