"""What to add to the image so that the net is surer of the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from .._check import Range
from ..contract import Maps, MethodFacts
from ..engine import Read
from ..probe import Kind, Probe
from ..scoring import margin, refuse_saturated

Mode = Literal["add", "multiply"]
Space = Literal["frame", "published"]

_EPSILON, _BIAS = 1e-4, 0.01
_DECAYS, _ADAM = (0.9, 0.999), 1e-8
_ALIKE = 1e-6  # least mean distance from the image: below it the similarity term would grow without end


@MethodFacts(
    needs=("input gradient",),
    unit="frame value",
    signed=True,
    tables=True,
    forwards="steps + 6",
    backwards="steps + 1",
)
def gax(
    probe: Probe,
    *,
    mode: Mode = "add",
    target_score: Annotated[float, Range(0)] = 48.0,
    steps: Annotated[int, Range(1)] = 300,
    rate: Annotated[float, Range(1e-4)] = 0.1,
    similarity: Annotated[float, Range(0)] = 100.0,
    bias: bool = False,
    space: Space = "frame",
    states: Annotated[int, Range(0, 64)] = 16,
) -> Maps:
    """What is added to the frame so that the target gains on the other classes: h = tanh(w x), w found by search.

    maps: (N, C, H, W), unit: frame value, sign: both; x + h, or in `mode` "multiply" x * h, has the CO score
    kappa . (f(x + h) - f(x)) of the check `co`, f the raw logits, kappa 1 for the target and -1 / (K - 1) for others;
    a single output, or a target function, is raised by itself.   cost: a forward and a backward per step.
    w moves by Adam against -co + `similarity` / mean((h - x + e)^2 / (|x| + e)) until co reaches `target_score`. `bias`
    adds b to w x. `parts` (N, steps + 1): co at every step, NaN after its end. `history` (states, N, C, H, W), float16:
    state i is that of step min(i * stride, steps_taken).   Checks beside these: `co_start`, h being the image over
    again; `linf` and `mean_change` of what is added; `co_sign_step`, `co_sign_step_mean`: one gradient-sign step as
    large, or as large on average.
    fails: as an explanation of what the net looked at: the search is an adversarial one without a bound on h; it
    starts by pushing h away from x, whatever the net. Where x is black h stays 0 without `bias`.

    Source: Tjoa et al. 2021, arXiv:2201.00009, eq. 6, for images whose target is true and predicted.
    Differs: |x|; x + h meets the net's normalisation as x does. The paper's code leaves it out: `space` "published".
    """
    if probe.function is None:
        refuse_saturated(probe.model, "gax")
    net, count = _Net(probe, space), len(probe)
    still = {n: torch.zeros_like(net.x[n]) for n in range(count)}
    rest, uphill = net.look(still, slopes=True)
    before = rest if space == "frame" else _Net(probe, "frame").look(still, slopes=False)[0]
    searches = [_Search(x, mode, similarity=similarity, rate=rate, bias=bias, keep=states) for x in net.x]
    curve = torch.full((count, steps + 1), torch.nan)
    active = list(range(count))
    for step in range(steps + 1):
        scores, slopes = net.look({n: searches[n].change() for n in active}, slopes=step < steps)
        for n in active:
            curve[n, step] = scores[n] - before[n]
            searches[n].remember(step)
        if step == 0:
            for n in active:
                searches[n].unmoved = _unmoved(searches[n], float(curve[n, 0]), before[n], (uphill[n], slopes[n]))
        active = [n for n in active if not (searches[n].unmoved or curve[n, step] >= target_score)]
        if step == steps or not active:
            break
        for n in active:
            searches[n].move(slopes[n], step + 1)
    history = torch.stack([s.states() for s in searches], 1) if states else None
    return Maps(
        torch.stack([s.h() for s in searches]),
        checks={**_reached(searches, curve, target_score), **_beside(net, searches, uphill, before)},
        history=history,
        parts=curve,
    )


class _Net:
    """kappa . f of changed frames, image by image, and its slope along the change."""

    def __init__(self, probe: Probe, space: Space) -> None:
        self.probe, self.x = probe, probe.frames.detach().float().contiguous()
        self.read = _reader(probe)
        self.std: Tensor | None = None
        preprocess = probe.model.preprocess
        if space == "published" and preprocess is not None:
            flip = preprocess.order == "BGR"
            mean, std = (self.x.new_tensor(v).view(-1, 1, 1) for v in (preprocess.mean, preprocess.std))
            self.mean, self.std = (mean.flip(0), std.flip(0)) if flip else (mean, std)

    def look(self, changes: Mapping[int, Tensor], *, slopes: bool) -> tuple[dict[int, float], dict[int, Tensor]]:
        """Score, and where asked slope, of each image under its change."""
        found: dict[int, Tensor] = {n: torch.zeros_like(self.x[n]) for n in changes} if slopes else {}

        def make(n: int, _: slice) -> Tensor:
            row = self.x[n] + changes[n]
            row = row if self.std is None else row * self.std + self.mean
            return row[None].to(self.probe.frames)

        def take(n: int, _: slice, gradient: Tensor) -> None:
            found[n] = gradient[0].float() if self.std is None else gradient[0].float() * self.std

        images = torch.tensor(list(changes), dtype=torch.long)
        scores = self.probe.looks(1, make, take=take if slopes else None, images=images, kind=self.read)
        return dict(zip(changes, scores[:, 0].tolist(), strict=True)), found


def _reader(probe: Probe) -> Kind | Read:
    index = probe.index
    if index is None:
        return "score"

    def read(output: Any, images: Tensor) -> Tensor:
        return margin(probe.model.scores(output).float(), index.to(images.device)[images])

    return read


class _Search:
    """One image's w, and b where there is one, moved by Adam against eq. 6; and some of the states on the way."""

    def __init__(self, x: Tensor, mode: Mode, *, similarity: float, rate: float, bias: bool, keep: int) -> None:
        self.x, self.mode, self.similarity, self.rate, self.keep = x, mode, similarity, rate, keep
        self.weights = [torch.ones_like(x)] + [torch.full_like(x, _BIAS)] * bias
        self.moments = [(torch.zeros_like(x), torch.zeros_like(x)) for _ in self.weights]
        self.unmoved = False
        self.stride, self.taken = 1, 0
        self._states: list[Tensor] = []

    def h(self) -> Tensor:
        """The map as it is now; nothing where nothing can be gained."""
        return torch.zeros_like(self.x) if self.unmoved else self._h(*self.weights)

    def _h(self, w: Tensor, b: Tensor | None = None) -> Tensor:
        return (w * self.x if b is None else w * self.x + b).tanh()

    def change(self, h: Tensor | None = None) -> Tensor:
        """What the map does to the frame: h, or ``x * h - x``."""
        h = self.h() if h is None else h
        return h if self.mode == "add" or self.unmoved else self.x * h - self.x

    def move(self, slope: Tensor, step: int) -> None:
        """One step of Adam, number `step` from 1 on, where the score has this slope along the change."""
        with torch.enable_grad():
            leaves = [w.requires_grad_() for w in self.weights]
            h = self._h(*leaves)
            apart = ((h - self.x + _EPSILON) ** 2 / (self.x.abs() + _EPSILON)).mean().clamp(min=_ALIKE)
            loss = self.similarity / apart - (slope * self.change(h)).sum()
            gradients = torch.autograd.grad(loss, leaves)
        first, second = (1 - decay**step for decay in _DECAYS)
        for k, (w, g, (m, v)) in enumerate(zip(self.weights, gradients, self.moments, strict=True)):
            m.lerp_(g, 1 - _DECAYS[0])
            v.mul_(_DECAYS[1]).addcmul_(g, g, value=1 - _DECAYS[1])
            self.weights[k] = w.detach() - self.rate / first * m / ((v / second).sqrt() + _ADAM)

    def remember(self, step: int) -> None:
        """Keep the state of this step: of every one at first, of every second when there are too many, and so on."""
        self.taken = step
        if self.keep > 1 and step % self.stride == 0:
            self._states.append(self.h().half().cpu())
            self._thin(self.keep)

    def states(self) -> Tensor:
        """``(keep, C, H, W)``: state i is that of step ``min(i * stride, taken)``."""
        self._states = self._states[: -(-self.taken // self.stride)]
        self._thin(self.keep - 1)
        last = self.h().half().cpu()
        return torch.stack(self._states + [last] * (self.keep - len(self._states)))

    def _thin(self, most: int) -> None:
        while len(self._states) > most:
            self._states, self.stride = self._states[::2], self.stride * 2


def _unmoved(search: _Search, gain: float, before: float, slopes: tuple[Tensor, ...]) -> bool:
    """Whether neither the image nor the image with h at the start lets w change the score: there is no search."""
    reach = search.x if len(search.weights) == 1 else torch.ones_like(search.x)
    return abs(gain) <= 1e-6 * max(1.0, abs(before)) and not any(bool((reach * s).any()) for s in slopes)


def _reached(searches: list[_Search], curve: Tensor, target_score: float) -> dict[str, Tensor]:
    last = torch.stack([curve[n, s.taken] for n, s in enumerate(searches)])
    return {
        "co": last,
        "co_start": curve[:, 0],
        "steps_taken": torch.tensor([float(s.taken) for s in searches]),
        "stride": torch.tensor([float(s.stride) for s in searches]),
        "score_not_reached": ~(last >= target_score),
    }


def _beside(
    net: _Net, searches: list[_Search], uphill: Mapping[int, Tensor], before: Mapping[int, float]
) -> dict[str, Tensor]:
    """How large the change is, and what one gradient-sign step from the image gains that is as large."""
    changes = [s.change().abs() for s in searches]
    sizes = {"": [c.max() for c in changes], "_mean": [c.mean() for c in changes]}
    checks = {"linf": torch.stack(sizes[""]), "mean_change": torch.stack(sizes["_mean"])}
    for name, size in sizes.items():
        scores, _ = net.look({n: size[n] * uphill[n].sign() for n in uphill}, slopes=False)
        checks["co_sign_step" + name] = torch.tensor([scores[n] - before[n] for n in uphill])
    return checks
