"""Engine: scores of many masked or moved copies of a batch, and their gradients, as quickly as the machine allows.

Batch norm is folded, memory is channels last, copies are made on the fly in micro-batches, and each distinct mask of
an image is scored once. In bfloat16 only where asked for, and only for images whose scores stay what they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ._state import as_found
from .errors import InputError
from .folding import Folds, folds
from .model import Model

Precision = Literal["float32", "auto"]

TOLERANCE = 0.01
"""Largest mean change of a probability, or share of the scores' range, at which an image is scored in bfloat16.

What all scores of an image change alike is taken back and does not count.
"""

CHECKED = (8, 16)
"""Masks of an image, at least and at most, spread over all of them, that are scored in both types to decide that."""

WORTH = 6
"""How many times as many masks there must be for that to be worth it."""

MEASURED_FROM = 500
"""Rows of work from which the size of a micro-batch is found by trying; below it is `default_rows`."""

TRIALS = (1.0, 2.0, 0.5) * 2
"""Sizes tried then, as shares of `default_rows`: on rows that are wanted anyway, the better time of each counts."""

Expand = Callable[[Tensor, Tensor], Tensor]
"""Masks over units ``(B, U)`` of the images ``(B,)`` → what is kept of each pixel ``(B, 1, H, W)``."""

Read = Callable[[Any, Tensor], Tensor]
"""What the net returned for rows of the images ``(B,)`` → scores ``(B,)``."""

Make = Callable[[int, slice], Tensor]
"""An image by its number and some of its looks → rows ``(B, C, H, W)``."""

Take = Callable[[int, slice, Tensor], None]
"""The same and the gradient of every row's score with respect to the row ``(B, C, H, W)``."""


@dataclass
class Work:
    """What is to be scored: frames ``(N, C, H, W)``, fills of that shape or ``(1, C, H, W)``, masks ``(N, M, U)``."""

    frames: Tensor
    fills: Tensor
    masks: Tensor
    expand: Expand
    read: Read
    shiftable: bool = True  # whether what bfloat16 does to all scores alike may be taken back

    def rows(self, images: Tensor, masks: Tensor) -> Tensor:
        """Masked copies ``(B, C, H, W)`` of these images under these masks ``(B, U)``."""
        kept = self.expand(masks.to(self.frames), images)
        alone = bool((images == images[0]).all())  # most often: then nothing is copied beside the result
        picked = images[:1] if alone else images
        return torch.lerp(self.fills if len(self.fills) == 1 else self.fills[picked], self.frames[picked], kept)

    def laid_out(self, layout: torch.memory_format) -> Work:
        """The same in this memory layout, in which the copies are then made."""
        fills = self.fills.expand(-1, *self.frames.shape[1:]).contiguous(memory_format=layout)
        return replace(self, frames=self.frames.contiguous(memory_format=layout), fills=fills)


class Engine:
    """One model as it is scored; `forwards` and `backwards` count frames."""

    def __init__(self, model: Model, precision: Precision = "float32", rows: int | None = None) -> None:
        self.model, self.precision, self.rows_given = model, precision, rows
        self.forwards = self.backwards = 0
        self._run: Callable[..., Any] | None = None

    @contextmanager
    def held(self, frames: Tensor) -> Iterator[None]:
        """Inside, the net is made ready once for all calls: a search of many short ones pays for that otherwise."""
        with self._ready(frames) as run:
            self._run = run
            try:
                yield
            finally:
                self._run = None

    def scores(self, work: Work) -> Tensor:
        """Scores ``(N, M)``, float32 on the CPU."""
        count, masks = len(work.frames), work.masks
        if masks.ndim != 3 or masks.shape[0] not in (1, count):
            raise InputError(f"masked_scores: masks must be (M, U) or (N, M, U), N {count}. Got {tuple(masks.shape)}.")
        distinct, back = _distinct(masks)
        work = work.laid_out(memory_layout(self.model.net, work.frames))
        with self._ready(work.frames) as run:
            found = [torch.full((len(d),), torch.nan) for d in (distinct * count if len(distinct) == 1 else distinct)]
            shifts = self._shifts(work, distinct, found, run)
            for half in (True, False):
                pairs = [(n, k) for n in range(count) if (n in shifts) == half for k in _open(found[n])]
                for (n, k), score in self._all(work, distinct, pairs, run, half):
                    found[n][k] = score + shifts.get(n, 0.0)
        return torch.stack([found[n][back[n if len(back) > 1 else 0]] for n in range(count)])

    def plain(self, frames: Tensor, images: Tensor, read: Read) -> Tensor:
        """Scores of frames as they are, a copy of one of the images ``(B,)`` each."""
        size = self.rows_given or default_rows(frames)
        with self._ready(frames) as run:
            parts = [
                read(run(frames[k : k + size]), images[k : k + size]).float().cpu() for k in range(0, len(frames), size)
            ]
        return torch.cat(parts)

    def looks(
        self, frames: Tensor, images: Tensor, count: int, make: Make, read: Read, take: Take | None = None
    ) -> Tensor:
        """Scores ``(A, count)`` of `count` looks at each of the images ``(A,)``, in float32; rows are made on the fly.

        With `take` each row's gradient is handed over, unless the score has none. A pass never holds two
        images: convolutions round otherwise in other company, and a search that decides by scores would drift apart.
        """
        parts = -(-count // (self.rows_given or default_rows(frames)))
        edges = [count * k // parts for k in range(parts + 1)]
        with self._ready(frames) as run, torch.set_grad_enabled(take is not None):
            scores = torch.empty(len(images), count)
            for a, n in enumerate(images.tolist()):
                for part in map(slice, edges, edges[1:]):
                    rows = make(n, part).detach().requires_grad_(take is not None)
                    found = read(run(rows.clone()), torch.full((len(rows),), n, device=rows.device))
                    scores[a, part] = found.detach().float().cpu()
                    if take is not None and found.requires_grad:
                        (gradient,) = torch.autograd.grad(found.sum(), rows, allow_unused=True)
                        self.backwards += len(rows)
                        if gradient is not None:
                            take(n, part, gradient)
        return scores

    # ---- passes ------------------------------------------------------------------------------------------

    @contextmanager
    def _ready(self, frames: Tensor) -> Iterator[Callable[..., Any]]:
        """The net in evaluation mode, and a function that runs rows through it, in bfloat16 or not."""
        model, net = self.model, self.model.net
        if self._run is not None:
            with torch.no_grad():
                yield self._run
            return
        with as_found(net), torch.no_grad():
            known = folds(net, frames[:1], model.forward) if _folds(model) else Folds()
            layout = memory_layout(net, frames)

            def run(rows: Tensor, half: bool = False) -> Any:
                self.forwards += len(rows)
                with ExitStack() as modes:
                    if half:
                        modes.enter_context(torch.autocast(rows.device.type, torch.bfloat16))
                    if known:
                        modes.enter_context(known.mode(dtype=torch.bfloat16 if half else torch.float32))
                    return model.forward(rows.contiguous(memory_format=layout))

            yield run

    def _all(
        self,
        work: Work,
        distinct: list[Tensor],
        pairs: list[tuple[int, int]],
        run: Callable[..., Any],
        half: bool,
    ) -> Iterator[tuple[tuple[int, int], float]]:
        """The score of each pair of an image and one of its distinct masks, micro-batch by micro-batch."""
        run = partial(run, half=half)
        start = 0
        for size in self._sizes(work, len(pairs), half):
            part = pairs[start : start + size]
            yield from zip(part, self._part(work, distinct, part, run).tolist(), strict=True)
            start += size

    def _part(
        self, work: Work, distinct: list[Tensor], pairs: list[tuple[int, int]], run: Callable[[Tensor], Any]
    ) -> Tensor:
        index = torch.tensor([n for n, _ in pairs], device=work.frames.device)
        masks = torch.stack([distinct[n if len(distinct) > 1 else 0][k] for n, k in pairs])
        return work.read(run(work.rows(index, masks)), index).float().cpu()

    def _shifts(
        self, work: Work, distinct: list[Tensor], found: list[Tensor], run: Callable[..., Any]
    ) -> dict[int, float]:
        """The images that may be scored in bfloat16, by number, and what is added to their scores then.

        bfloat16 often moves all scores of an image alike. That shift is measured on a few masks and taken back; an
        image stays in float32 where what is left is more than `TOLERANCE`. The float32 scores of those masks stand in
        `found` from then on.
        """
        shifts: dict[int, float] = {}
        if self.precision != "auto" or not _folds(self.model) or not work.shiftable:
            return shifts
        least, most = CHECKED
        for n in range(len(work.frames)):
            held = len(found[n])
            checked = min(most, held // WORTH)
            if checked < least:
                continue
            places = torch.linspace(0, held - 1, checked).round().long()
            pairs = [(n, k) for k in places.tolist()]
            exact, rough = (
                torch.tensor([score for _, score in self._all(work, distinct, pairs, run, half)])
                for half in (False, True)
            )
            found[n][places] = exact
            moved = exact - rough
            reach = max(1.0, float(exact.max() - exact.min()))  # a probability's range is 1
            left = (moved - moved.mean()).abs().mean() * checked / (checked - 1)
            if float(left) <= TOLERANCE * reach:
                shifts[n] = float(moved.mean())
        return shifts

    def _sizes(self, work: Work, rows: int, half: bool) -> Iterator[int]:
        """Rows of each micro-batch, until there are so many: as given, else by the frames' size; long work tries."""
        size = self.rows_given or default_rows(work.frames, half)
        tried = _SIZES.setdefault(self.model.net, {})
        key = (*work.frames.shape[1:], half)
        if self.rows_given is None and rows >= max(MEASURED_FROM, size * sum(TRIALS)) and key not in tried:
            pace: dict[int, float] = {}
            for share in TRIALS:
                trial = max(1, round(size * share))
                began = time.perf_counter()
                yield trial
                pace[trial] = min(pace.get(trial, torch.inf), (time.perf_counter() - began) / trial)
                rows -= trial
            tried[key] = min(pace, key=lambda trial: pace[trial])
        size = tried.get(key, size) if self.rows_given is None else size
        for _ in range(0, rows, size):
            yield size


_SIZES: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], int]] = WeakKeyDictionary()


def default_rows(frames: Tensor, half: bool = False) -> int:
    """Rows of a pass where nothing was measured: 6 frames of 224 x 224, 12 in bfloat16, more of smaller ones.

    On two cores more is slower in float32 for nets that fill the cache (EfficientNet-Lite0: 126 rows a second in
    sixes, 89 in sixteens) and little quicker for others.
    """
    pixels = frames.shape[-2] * frames.shape[-1] if frames.ndim == 4 else frames[0].numel()
    most = 12 if half else 6
    return max(most, min(256, most * 224 * 224 // pixels))


def memory_layout(net: nn.Module, frames: Tensor) -> torch.memory_format:
    """Channels last where the net convolves: the same sums, up to twice as fast on a CPU."""
    convolves = frames.ndim == 4 and any(isinstance(m, nn.Conv2d) for m in net.modules())
    return torch.channels_last if convolves else torch.contiguous_format


def _open(scores: Tensor) -> list[int]:
    """The places that have no score yet."""
    places: list[int] = scores.isnan().nonzero()[:, 0].tolist()
    return places


def _folds(model: Model) -> bool:
    return model.differentiable and model.dtype == torch.float32


def _distinct(masks: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The distinct masks of each image, in the order of first use, and where each of its masks is among them."""
    rows, back = [], []
    for own in masks:
        _, inverse = torch.unique(own, dim=0, return_inverse=True)
        first = torch.full((int(inverse.max()) + 1,), len(own)).scatter_reduce(
            0, inverse, torch.arange(len(own)), reduce="amin"
        )
        order = first.argsort()
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        rows.append(own[first[order]])
        back.append(place[inverse])
    return rows, back
