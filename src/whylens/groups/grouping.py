"""Grouping: a run's evidence in named groups, "worth a look" first; every edit is a new version on disk."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_hexdigest

from .._files import create_once, write_atomic
from ..errors import DamageError, InputError, no_such
from ..interval import Interval, plain
from ..run.read import Run
from ..words import counted, csv_text
from .describe import Facts, Group, described
from .evidence import Points
from .intervene import Tested
from .project import Layout

Array = NDArray[Any]

FORMAT = 1
"""Of a grouping's versions."""


@dataclass(frozen=True)
class State:
    """What a version says: the group ``(P,)`` of every point, or -1, and by group its name, note and tests."""

    labels: Array
    names: Mapping[int, str]
    notes: Mapping[int, str]
    tests: Mapping[int, Tested]
    what: str

    def to_bytes(self, version: int) -> bytes:
        """JSON that carries its own checksum."""
        said = {
            "format": FORMAT,
            "version": version,
            "what": self.what,
            "labels": self.labels.tolist(),
            "names": {str(k): v for k, v in self.names.items()},
            "notes": {str(k): v for k, v in self.notes.items()},
            "tests": {str(k): v.as_dict() for k, v in self.tests.items()},
        }
        return json.dumps({**said, "xxh3_128": xxh3_128_hexdigest(_json(said))}).encode()

    @classmethod
    def read(cls, path: Path) -> State:
        """A version from its file; DamageError where it is not what was written."""
        try:
            said = json.loads(path.read_bytes())
            mark = said.pop("xxh3_128")
        except (OSError, ValueError, AttributeError, KeyError):
            raise DamageError(f"'{path}' is damaged.") from None
        if mark != xxh3_128_hexdigest(_json(said)):
            raise DamageError(f"'{path}' is damaged: its content is not what was written.")
        if said["format"] > FORMAT:
            raise InputError(f"'{path}' has format {said['format']}, newer than this whylens. Upgrade whylens.")
        tests = {int(k): Tested(**{n: Interval(**i) for n, i in v.items()}) for k, v in said["tests"].items()}
        names, notes = ({int(k): v for k, v in said[word].items()} for word in ("names", "notes"))
        return cls(np.array(said["labels"], np.int64), names, notes, tests, said["what"])


class Groups:
    """A grouping of a run's evidence: iterates over its groups, those worth a look first; ``groups["name"]`` is one.

    First come classes that have more than one reason: there, what carries the class to other images most beyond a
    random region (of objects: whose masks are incomplete most beyond the rest), then what is rarer.
    `stability` is the mean adjusted Rand index when a fifth of the points is left
    out, `layout` the picture, `points` what was grouped. Edits give a new `Groups` and a new version on disk; one on
    a version that is not the latest is refused, so nobody's work is written over.
    """

    def __init__(
        self,
        run: Run,
        folder: Path,
        version: int,
        *,
        facts: Facts,
        points: Points,
        reduced: Array,
        layout: Layout,
        state: State,
        said: Mapping[str, Any],
    ) -> None:
        self.run, self.folder, self.version = run, folder, version
        self.facts, self.points, self.reduced, self.layout, self.state = facts, points, reduced, layout, state
        self.settings: Mapping[str, Any] = said["settings"]
        self.stability: float = said["stability"]
        self._groups = self._made()

    @property
    def name(self) -> str:
        """The name of this grouping; a run may have several."""
        return self.folder.name

    @property
    def per(self) -> str:
        """What a point is of: a region, an image, or an object of a detector."""
        return str(self.settings["per"]) if self.facts.images is None else "object"

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups)

    def __getitem__(self, which: str | int) -> Group:
        """A group by its name, or by its place, "worth a look" first."""
        if isinstance(which, int):
            if not -len(self) <= which < len(self):
                raise InputError(f"There are {len(self)} groups, counted from 0. Got {which}.")
            return self._groups[which]
        found = next((g for g in self._groups if g.name == which), None)
        if found is None:
            raise no_such("group", which, [g.name for g in self._groups], f"There are {len(self)} groups.")
        return found

    def __repr__(self) -> str:
        return f"Groups('{self.name}', version {self.version}, {len(self)} groups of {len(self.points)} points)"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self, most: int = 12) -> list[str]:
        """In words: what is worth a look, then how many groups more there are."""
        odd = [g for g in self if g.reasons > 1]
        said = [
            f"{len(self.points)} points in {len(self)} groups; stability {self.stability:.2f}, "
            f"picture's trustworthiness {self.layout.trust:.2f}"
        ]
        said.append("worth a look:" if odd else "no class has more than one reason; nothing is worth a look")
        for group in odd[:most]:
            said += group.lines()
        left = len(self) - min(len(odd), most)
        return said + ([f"and {counted(left, 'more group')}"] if left else [])

    # ---- edits ---------------------------------------------------------------------------------------------

    def rename(self, which: str | int, name: str) -> Groups:
        """A group under another name."""
        group = self[which]
        if not name or any(g.name == name and g.number != group.number for g in self):
            raise InputError(f"rename: the name must be new and not empty. Got {name!r}.")
        return self._next(f"rename {group.name} to {name}", names={**self.state.names, group.number: name})

    def note(self, which: str | int, text: str) -> Groups:
        """A note on a group."""
        group = self[which]
        return self._next(f"note on {group.name}", notes={**self.state.notes, group.number: text})

    def merge(self, which: Sequence[str | int], name: str | None = None) -> Groups:
        """Several groups of one class as one, under the name of the first."""
        groups = [self[w] for w in which]
        if len({g.number for g in groups}) < 2 or len({g.class_name for g in groups}) > 1:
            raise InputError("merge: two or more groups of one class are needed.")
        first, gone = groups[0], [g.number for g in groups[1:]]
        labels = np.where(np.isin(self.state.labels, gone), first.number, self.state.labels)
        names = {**self.state.names, first.number: name or first.name}
        tests = {k: v for k, v in self.state.tests.items() if k not in (first.number, *gone)}
        return self._next(f"merge {', '.join(g.name for g in groups)}", labels=labels, names=names, tests=tests)

    def split(self, which: str | int, keys: Sequence[int] | Sequence[str], name: str) -> Groups:
        """The points of some images of a group, by `image_id` or key, as a group of their own."""
        group, ids = self[which], set(self.run.ids(keys))
        out = [p for p in group.points.tolist() if int(self.points.image[p]) in ids]
        if not out or len(out) == len(group.points):
            raise InputError(f"split: some, not all, of the images of '{group.name}' are needed.")
        if any(g.name == name for g in self):
            raise InputError(f"split: there is a group '{name}' already.")
        labels, new = self.state.labels.copy(), int(self.state.labels.max()) + 1
        labels[out] = new
        tests = {k: v for k, v in self.state.tests.items() if k != group.number}
        return self._next(f"split {group.name}", labels=labels, names={**self.state.names, new: name}, tests=tests)

    def delete(self, which: str | int) -> Groups:
        """Without this group; its points are in none."""
        group = self[which]
        labels = np.where(self.state.labels == group.number, -1, self.state.labels)
        return self._next(f"delete {group.name}", labels=labels)

    def _next(self, what: str, **changed: Any) -> Groups:
        return self.keep(replace(self.state, what=what, **changed))

    def keep(self, state: State) -> Groups:
        """The next version, written once; InputError where somebody else made it first."""
        version = self.version + 1
        if not create_once(version_path(self.folder, version), state.to_bytes(version), whole=_is_whole):
            raise InputError(
                f"groups: '{self.name}' was edited by somebody else: version {version} exists. Open it again."
            )
        made = copy(self)
        made.version, made.state = version, state
        made._groups = made._made()
        return made

    # ---- in and out ----------------------------------------------------------------------------------------

    def to_csv(self, path: str | Path) -> Path:
        """One row per point: image_id, key, region, group, class, share of the map, place in the picture."""
        names = {g.number: g.name for g in self}
        text = StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["image_id", "key", "region", "group", "class", "map_share", "x", "y"])
        for p in range(len(self.points)):
            image = int(self.points.image[p])
            words = [self.facts.keys[image], names.get(int(self.state.labels[p]), ""), self.facts.class_names[image]]
            key, group, of_class = (csv_text(str(w)) for w in words)
            x, y = self.layout.at[p]
            table.writerow(
                [image, key, int(self.points.region[p]), group, of_class, f"{self.points.share[p]:.4f}", x, y]
            )
        write_atomic(Path(path), text.getvalue().encode())
        return Path(path)

    def from_csv(self, path: str | Path) -> Groups:
        """Groups as a CSV says, by its columns `image_id`, `region` and `group`; points it does not name stay."""
        try:
            rows = list(csv.DictReader(StringIO(Path(path).read_text("utf-8-sig"))))
            said = {(int(r["image_id"]), int(r["region"])): r["group"].removeprefix("'") for r in rows}
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise InputError(f"groups: '{path}' needs columns image_id, region, group: {error}") from None
        labels, names = self.state.labels.copy(), {g.name: g.number for g in self}
        for p, place in enumerate(zip(self.points.image.tolist(), self.points.region.tolist(), strict=True)):
            if place in said:
                name = said[place]
                labels[p] = names.setdefault(name, max([-1, *names.values()]) + 1) if name else -1
        grouped = labels >= 0
        pairs = np.stack([labels, self.facts.classes[self.points.image]], 1)[grouped]
        if len(np.unique(pairs, axis=0)) > len(np.unique(labels[grouped])):
            raise InputError(f"groups: '{path}' puts images of different classes into one group.")
        return self._next(f"read {Path(path).name}", labels=labels, names={v: k for k, v in names.items()}, tests={})

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        said = {
            "name": self.name,
            "version": self.version,
            "points": len(self.points),
            "stability": self.stability,
            "trustworthiness": self.layout.trust,
            "groups": [g.as_dict() for g in self],
        }
        made: dict[str, Any] = plain(said)
        return made

    # ---- inside --------------------------------------------------------------------------------------------

    def _made(self) -> list[Group]:
        labels = self.state.labels
        numbers = np.unique(labels[labels >= 0]).tolist()
        of_class = {n: int(self.facts.classes[self.points.image[(labels == n).argmax()]]) for n in numbers}
        reasons = {c: sum(k == c for k in of_class.values()) for c in set(of_class.values())}
        made, count = [], dict.fromkeys(reasons, 0)
        for n in numbers:
            rows = (labels == n).nonzero()[0]
            middle = self.reduced[rows].mean(0)
            count[of_class[n]] += 1
            own = f"{self.facts.class_names[self.points.image[rows[0]]]} {count[of_class[n]]}"
            made.append(
                described(
                    self.facts,
                    self.points.image,
                    rows,
                    np.linalg.norm(self.reduced[rows] - middle, axis=1),
                    number=n,
                    name=self.state.names.get(n, own),
                    note=self.state.notes.get(n, ""),
                    reasons=reasons[of_class[n]],
                    tested=self.state.tests.get(n),
                )
            )
        return sorted(made, key=_worth)


def _worth(group: Group) -> tuple[float, ...]:
    """Smaller is more worth a look."""
    gain = 0.0 if group.tested is None else group.tested.gain
    if group.incomplete.n and group.incomplete_rest.n:
        gain = group.incomplete.value - group.incomplete_rest.value
    return (group.reasons == 1, -gain, group.share.value, group.number)


def version_path(folder: Path, version: int) -> Path:
    """Where a version of a grouping stands."""
    return folder / f"v{version:04d}.json"


def latest(folder: Path) -> int:
    """The number of the latest version; 0 where there is none."""
    found = [int(p.stem[1:]) for p in folder.glob("v*.json") if p.stem[1:].isdecimal()]
    return max(found, default=0)


def _is_whole(data: bytes) -> bool:
    try:
        said = json.loads(data)
        return bool(said.pop("xxh3_128") == xxh3_128_hexdigest(_json(said)))
    except (ValueError, AttributeError, KeyError):
        return False


def _json(said: Mapping[str, Any]) -> bytes:
    return json.dumps(said, sort_keys=True).encode()
