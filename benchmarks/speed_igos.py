"""I-GOS and iGOS++ as plain float32 loops over one image: the reference for speed, and a second opinion on the masks.

Written from the equations (Qi, Khorram, Li 2020; Khorram, Lawson, Li 2021). Masks here are 1 where the image is kept.
The noise of a step is drawn once per iteration and serves the gradient and every trial of the line search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from plain_nets import Plain
from side_by_side import interleaved, medians, rounded
from torch import Tensor

if TYPE_CHECKING:
    from speed_masked import Bench

AGREES = 1e-4  # largest difference of two masks, computed in float64, at which they are the same
SMOOTH = {"igos": 2.0, "igos_pp": 0.5}  # the methods' own defaults
SMALL = 56  # rows of the frame on which masks are compared


@dataclass(frozen=True)
class Settings:
    """Settings of both methods, under the names of ours."""

    iterations: int = 10
    steps: int = 6
    size: int = 28
    area: float = 0.3  # weight of the mean of what is removed
    smooth: float = 2.0  # weight of total variation
    noise: float = 0.2  # standard deviation in the net's normalised space
    first: float = 100.0  # longest step of the line search
    decay: float = 0.2
    slope: float = 1e-4  # share of the squared way, over the step, that a step must bring
    smallest: float = 1e-5  # of the longest step
    rounds: int = 60  # in which a penalty is settled
    seed: int = 0


Score = Callable[[Tensor], Tensor]  # frames (B, C, H, W) → the target's probability (B,)
Path = Callable[[Tensor, Tensor], Tensor]  # mask over the frame, shares (B, 1, 1, 1) → frames (B, C, H, W)


# ---- ours ------------------------------------------------------------------------------------------------------------


def ours(bench: Bench, method: str, settings: Settings, precision: str, target: int) -> Tensor:
    """The mask ``(1, 1, size, size)`` that whylens gives, 1 where the image is kept."""
    import whylens

    params = {name: getattr(settings, name) for name in ("iterations", "steps", "size", "area", "smooth", "noise")}
    found = whylens.explain(
        bench.model, bench.frame, method=method, target=target, params={**params, "rate": settings.first,
        "baseline": "blur"}, precision=precision, seed=settings.seed,
    )  # fmt: skip
    return 1 - found.maps


def filled(bench: Bench) -> Tensor:
    """The baseline of both sides."""
    from whylens import baseline
    from whylens.passes import Passes
    from whylens.probe import Probe

    return baseline.fill(Probe(Passes(bench.model, bench.frame), torch.zeros(1, dtype=torch.long)), "blur").frames


# ---- the loops -------------------------------------------------------------------------------------------------------


def blown_up(mask: Tensor, frame: Tensor) -> Tensor:
    return F.interpolate(mask, size=frame.shape[2:], mode="bilinear", align_corners=True)


def variation(mask: Tensor) -> Tensor:
    return (mask.diff(dim=2) ** 2).mean() + (mask.diff(dim=3) ** 2).mean()


def drawn(settings: Settings, iteration: int, frame: Tensor, std: Tensor) -> Tensor:
    """Noise of each step of an iteration ``(S, C, H, W)``."""
    rng = torch.Generator().manual_seed(settings.seed * 1_000_003 + iteration)
    return settings.noise * std * torch.randn((settings.steps, *frame.shape[1:]), generator=rng)


def bilateral(mask: Tensor, frame: Tensor) -> Tensor:
    """Total variation with less weight where neighbouring cells of the photo differ in colour."""
    colours = F.adaptive_avg_pool2d(frame, mask.shape[2:])
    total = mask.new_zeros(())
    for axis in (2, 3):
        edges = (-(colours.diff(dim=axis) ** 2).mean(1, keepdim=True) / 0.01).exp()
        total = total + (edges * mask.diff(dim=axis) ** 2).mean()
    return total


def integrated(score: Score, path: Path, mask: Tensor, noise: Tensor, together: int, gradient: bool) -> Tensor:
    """Mean score over the steps of a path; with `gradient`, its derivatives are left in the mask's leaves."""
    steps, total = len(noise), torch.zeros(())
    for part in torch.arange(1, steps + 1).split(together):
        share = (part / steps).view(-1, 1, 1, 1)
        value = score(path(mask, share) + noise[part - 1]).sum() / steps
        if gradient:
            value.backward(retain_graph=True)
        total = total + value.detach()
    return total


def settled(masks: list[Tensor], length: float, penalty: Callable[[list[Tensor]], Tensor], settings: Settings) -> Any:
    """Masks in [0, 1] near these that also pay little penalty: accelerated projected gradient descent."""
    stiff = 16 * len(masks) * settings.smooth / masks[0].numel()
    rate = 1 / (1 + length * stiff)
    momentum = (1 - rate**0.5) / (1 + rate**0.5)
    now = last = [mask.clamp(0, 1) for mask in masks]
    for _ in range(settings.rounds):
        with torch.enable_grad():
            ahead = [(x + momentum * (x - y)).requires_grad_() for x, y in zip(now, last, strict=True)]
            pulls = torch.autograd.grad(penalty(ahead), ahead)
        last = now
        now = [
            (x.detach() - rate * (x.detach() - mask + length * pull)).clamp(0, 1)
            for x, mask, pull in zip(ahead, masks, pulls, strict=True)
        ]
    return now


def descend(
    masks: list[Tensor],
    data: Callable[[list[Tensor], Tensor, bool], Tensor],
    penalty: Callable[[list[Tensor]], Tensor],
    draw: Callable[[int], Tensor],
    settings: Settings,
) -> list[Tensor]:
    """Proximal gradient steps on masks, each as long as a line search allows; one length for all masks."""
    first, stuck = settings.first, 0
    for iteration in range(settings.iterations):
        noise = draw(iteration)
        leaves = [mask.clone().requires_grad_() for mask in masks]
        start = float(data(leaves, noise, True)) + float(penalty(masks))
        gradients = [leaf.grad for leaf in leaves]
        length = first
        stuck += 1
        with torch.no_grad():
            while length >= settings.first * settings.smallest:
                moved = [m - length * g for m, g in zip(masks, gradients, strict=True)]
                tried = settled(moved, length, penalty, settings)
                way = sum(float(((t - m) ** 2).sum()) for t, m in zip(tried, masks, strict=True))
                if float(data(tried, noise, False) + penalty(tried)) <= start - settings.slope * way / length:
                    masks, stuck = tried, 0
                    break
                length *= settings.decay
        first = settings.first if stuck else min(settings.first, length / settings.decay)
        if stuck == 2:
            break
    return masks


def igos_plain(score: Score, frame: Tensor, baseline: Tensor, std: Tensor, settings: Settings, together: int) -> Tensor:
    """I-GOS: the mask ``(1, 1, size, size)`` that removes the target, `together` steps in one pass."""

    def delete(large: Tensor, share: Tensor) -> Tensor:
        return baseline + share * large * (frame - baseline)

    def data(masks: list[Tensor], noise: Tensor, gradient: bool) -> Tensor:
        return integrated(score, delete, blown_up(masks[0], frame), noise, together, gradient)

    def penalty(masks: list[Tensor]) -> Tensor:
        return settings.area * (1 - masks[0]).abs().mean() + settings.smooth * variation(masks[0])

    start = [torch.ones(1, 1, settings.size, settings.size)]
    return descend(start, data, penalty, lambda k: drawn(settings, k, frame, std), settings)[0]


def igos_pp_plain(
    score: Score, frame: Tensor, baseline: Tensor, std: Tensor, settings: Settings, together: int
) -> Tensor:
    """iGOS++: the product of a deletion and an insertion mask, the four terms weighed one half."""

    def delete(large: Tensor, share: Tensor) -> Tensor:
        return baseline + share * large * (frame - baseline)

    def insert(large: Tensor, share: Tensor) -> Tensor:
        return frame + share * large * (baseline - frame)

    def data(masks: list[Tensor], noise: Tensor, gradient: bool) -> Tensor:
        first, second = (blown_up(mask, frame) for mask in masks)
        total = torch.zeros(())
        for path, sign, large in (
            (delete, 0.5, first), (insert, -0.5, second), (delete, 0.5, first * second), (insert, -0.5, first * second)
        ):  # fmt: skip
            total = total + integrated(lambda x, s=sign: s * score(x), path, large, noise, together, gradient)
        return total

    def penalty(masks: list[Tensor]) -> Tensor:
        both = masks[0] * masks[1]
        return settings.area * (1 - both).abs().mean() + settings.smooth * bilateral(both, frame)

    start = [torch.ones(1, 1, settings.size, settings.size)] * 2
    first, second = descend(start, data, penalty, lambda k: drawn(settings, k, frame, std), settings)
    return first * second


LOOPS = {"igos": igos_plain, "igos_pp": igos_pp_plain}


def of(plain: Plain, target: int) -> Score:
    return lambda frames: plain(frames).softmax(1)[:, target]


def compared(bench: Bench, method: str, settings: Settings) -> float:
    """Largest difference of the masks of both sides on a small net in float64: no rounding moves a decision there."""
    import whylens
    from whylens.testing import SmallNet

    preprocess = whylens.Preprocess((SMALL, SMALL))
    net, std = SmallNet().double().eval(), torch.tensor(preprocess.std).double().view(-1, 1, 1)
    frame = F.interpolate(bench.frame, size=(SMALL, SMALL), mode="area")
    double = replace(bench, model=whylens.Model(net, preprocess=preprocess), frame=frame)

    def score(frames: Tensor) -> Tensor:
        return net(preprocess.normalise(frames.double())).softmax(1)[:, 0]

    settings = replace(settings, area=0.02, smooth=0.02)
    loop = LOOPS[method](score, frame.double(), filled(double).double(), std, settings, settings.steps)
    return float((loop - ours(double, method, settings, "float32", 0)).abs().max())


def row(bench: Bench, method: str) -> dict[str, Any] | None:
    """A method at 28 x 28 against its plain loop; where whylens has it not, the plain loops alone."""
    from whylens import catalogue

    settings = Settings(smooth=SMOOTH[method])
    settings = replace(settings, iterations=max(1, round(settings.iterations * bench.share)))
    loop, frame, baseline = LOOPS[method], bench.frame, filled(bench)
    target = int(bench.nets["float32"].logits(frame).argmax())
    kept: dict[str, Tensor] = {}

    std = torch.tensor(bench.model.preprocess.std).view(-1, 1, 1)

    def plain(name: str, net: Plain, together: int, settings: Settings = settings) -> None:
        kept[name] = loop(of(net, target), frame, baseline, std, settings, together)

    first = bench.nets["float32"]
    runs: dict[str, Callable[[], Any]] = {
        "loop, one step a pass": lambda: plain("one", first, 1),
        "loop, all steps a pass": lambda: plain("loop", first, settings.steps),
    }
    for name, net in list(bench.nets.items())[1:]:
        runs[f"loop, {name}"] = lambda name=name, net=net: plain(name, net, settings.steps)
    known = any(entry["method"] == method for entry in catalogue.describe_methods())
    if known:
        for p in ("float32", "auto"):
            runs[f"whylens {p}"] = lambda p=p: kept.update({p: ours(bench, method, settings, p, target)})
    seconds = interleaved(runs, bench.repeats, warm=False, clock=bench.clock)
    median = medians(seconds)
    called = min(median["loop, one step a pass"], median["loop, all steps a pass"])
    result = {
        "work": f"{method}, {settings.iterations} iterations of {settings.steps} steps, 28 x 28, EfficientNet-Lite0",
        "seconds": rounded(seconds),
        "ladder of the loop, times as fast": {n: round(called / s, 2) for n, s in median.items() if "loop" in n},
    }
    if known:
        apart = compared(bench, method, settings)
        assert apart < AGREES, f"{method}: the mask is {apart:.2g} from that of the plain loop"
        result["over the plain float32 loop at its best batch size (bar 2, aim 4)"] = {
            p: round(called / median[f"whylens {p}"], 2) for p in ("float32", "auto")
        }
        result["over the loop in channels last"] = {
            p: round(median["loop, channels last"] / median[f"whylens {p}"], 2) for p in ("float32", "auto")
        }
        result["largest difference of the masks, float64"] = apart
    return result
