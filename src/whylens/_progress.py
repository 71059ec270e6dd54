"""Progress of long work: done, rate and time left, on standard error, only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Iterable[Item], *, total: int, label: str, show: bool) -> Iterator[Item]:
    """The same items, with a progress line while they are worked on."""
    with progress(total=total, label=label, show=show) as done:
        for item in items:
            yield item
            done(1)


@contextmanager
def progress(*, total: int, label: str, show: bool) -> Iterator[Callable[[int], None]]:
    """A progress line; what it gives is called with the number of things just done."""
    if not show:
        yield lambda _count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, rate="")

        def done(count: int) -> None:
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            bar.update(task, advance=count, rate=f"{speed:.1f}/s" if speed else "")

        yield done
