"""Effect: before and after an act on the same images, beside controls, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .interval import Interval, clustered, interval, mean, plain, wilson

Array = NDArray[Any]
Verdict = Literal["helped", "hurt", "no evidence"]


@dataclass(frozen=True)
class Effect:
    """What an act did, on `n` images: shares before and after, the paired `change`, and that of every control.

    `beyond` says how much more the act changed than each control did, image by image. The verdict is "helped" where
    the change and all of `beyond` lie above 0 with their whole interval, "hurt" where they lie below, else "no
    evidence". `measured` says what is counted. `model` is the model that an act made, `record` the file that repeats
    it.
    """

    action: str
    group: str
    measured: str
    before: Interval
    after: Interval
    change: Interval
    controls: Mapping[str, Interval]
    beyond: Mapping[str, Interval]
    verdict: Verdict
    n: int
    of: str = "images"
    said: Mapping[str, Any] = field(default_factory=dict)
    model: Any = field(default=None, compare=False)
    record: Path | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """In words."""
        told = [
            f"{self.action} '{self.group}': {self.verdict}",
            f"  {self.measured}: {self.before} before, {self.after} after, on {self.n} {self.of}",
            f"  change {self.change}",
        ]
        told += [f"  control, {name}: {found}" for name, found in self.controls.items()]
        return told + [f"  {key.replace('_', ' ')}: {value}" for key, value in self.said.items()]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        held = {k: v for k, v in vars(self).items() if k not in ("model", "record")}
        made: dict[str, Any] = plain(held)
        return made

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Effect:
        """The effect that `as_dict` told, without its model."""
        one = {name: interval(said[name]) for name in ("before", "after", "change")}
        many = {name: {k: interval(v) for k, v in said[name].items()} for name in ("controls", "beyond")}
        facts = {name: interval(told) if _is_interval(told) else told for name, told in said["said"].items()}
        return cls(**{**said, **one, **many, "said": facts})


def measured(
    action: str,
    group: str,
    what: str,
    before: Array,
    after: Array,
    controls: Mapping[str, Array],
    *,
    seed: int = 0,
    said: Mapping[str, Any] | None = None,
    model: Any = None,
    images: Array | None = None,
) -> Effect:
    """The effect of an act from hits ``(N,)`` of the same images, 1 or 0, before, after and under every control.

    Where rows are objects, `images` ``(N,)`` says of which image each is: changes are then drawn again by image.
    """
    interval = partial(mean, seed=seed) if images is None else partial(clustered, clusters=images, seed=seed)
    change = interval(after - before)
    beyond = {name: interval(after - hits) for name, hits in controls.items()}
    told = [change, *beyond.values()]
    verdict: Verdict = "no evidence"
    if len(before) > 1 and all(found.low > 0 for found in told):
        verdict = "helped"
    elif len(before) > 1 and all(found.high < 0 for found in told):
        verdict = "hurt"
    return Effect(
        action=action,
        group=group,
        measured=what,
        before=_share(before),
        after=_share(after),
        change=change,
        controls={name: interval(hits - before) for name, hits in controls.items()},
        beyond=beyond,
        verdict=verdict,
        n=len(before),
        of="images" if images is None else "objects",
        said=dict(said or {}),
        model=model,
    )


def _is_interval(said: Any) -> bool:
    return isinstance(said, dict) and set(said) == {field.name for field in fields(Interval)}


def _share(hits: Array) -> Interval:
    return wilson(int(np.sum(hits)), len(hits))
