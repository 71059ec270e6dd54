"""I-GOS and iGOS++ as plain float32 loops over one image: the reference for speed, and a second opinion on the masks.

Written from the equations (Qi, Khorram, Li 2020; Khorram, Lawson, Li 2021). Masks here are 1 where the image is kept.
The noise of a step is drawn once per iteration and serves the gradient and every trial of the line search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from plain_nets import Plain
from side_by_side import interleaved, medians, rounded
from torch import Tensor

if TYPE_CHECKING:
    from speed_masked import Bench

AGREES = 1e-3  # largest difference of two masks at which they are the same
FULL = {"igos": 15, "igos_pp": 20}  # iterations


@dataclass(frozen=True)
class Settings:
    """Settings of both methods, under the names of ours."""

    iterations: int = 15
    steps: int = 20
    size: int = 28
    area: float = 1.0  # weight of the mean of what is removed
    smooth: float = 20.0  # weight of total variation
    noise: float = 0.1  # standard deviation in a frame in [0, 1]
    first: float = 1000.0  # step at which the line search starts
    decay: float = 0.2
    slope: float = 1e-4  # share of the linear descent that a step must reach
    smallest: float = 1e-5
    seed: int = 0


Score = Callable[[Tensor], Tensor]  # frames (B, C, H, W) → the target's probability (B,)
Path = Callable[[Tensor, Tensor], Tensor]  # mask over the frame, shares (B, 1, 1, 1) → frames (B, C, H, W)


# ---- adapt here: how ours is called and how its draws and objective are made ---------------------------------------


def drawn(settings: Settings, iteration: int, frame: Tensor) -> Tensor:
    """Noise of each step of an iteration ``(S, C, H, W)``, as ours draws it."""
    rng = torch.Generator().manual_seed(settings.seed * 1_000_003 + iteration)
    return settings.noise * torch.randn((settings.steps, *frame.shape[1:]), generator=rng)


def bilateral(mask: Tensor, frame: Tensor) -> Tensor:
    """Half of the total variation, half of it over the frame with less weight on the photo's own edges."""
    large = blown_up(mask, frame)
    weighed = mask.new_zeros(())
    for axis in (2, 3):
        edges = (-(frame.diff(dim=axis) ** 2).mean(1, keepdim=True) / 0.01).exp()
        weighed = weighed + (edges * large.diff(dim=axis) ** 2).mean()
    return (variation(mask) + weighed) / 2


def ours(bench: Bench, method: str, settings: Settings, precision: str, target: int) -> Tensor:
    """The mask ``(1, 1, size, size)`` that whylens gives, 1 where the image is kept."""
    import whylens

    params = {name: getattr(settings, name) for name in ("iterations", "steps", "size", "area", "smooth", "noise")}
    found = whylens.explain(
        bench.model, bench.frame, method=method, target=target, params={**params, "baseline": "blur"},
        precision=precision, seed=settings.seed,
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


def descend(
    masks: list[Tensor],
    data: Callable[[list[Tensor], Tensor, bool], Tensor],
    penalty: Callable[[list[Tensor]], Tensor],
    frame: Tensor,
    settings: Settings,
) -> list[Tensor]:
    """Gradient steps on masks, each as long as a line search allows; one length for all masks."""
    for iteration in range(settings.iterations):
        noise = drawn(settings, iteration, frame)
        leaves = [mask.clone().requires_grad_() for mask in masks]
        value = data(leaves, noise, True)
        regular = penalty(leaves)
        regular.backward()
        gradients = [leaf.grad for leaf in leaves]
        start = float(value + regular.detach())
        fall = settings.slope * sum(float((g**2).sum()) for g in gradients)
        length = settings.first
        with torch.no_grad():
            while length >= settings.smallest:
                tried = [(m - length * g).clamp(0, 1) for m, g in zip(masks, gradients, strict=True)]
                if float(data(tried, noise, False) + penalty(tried)) <= start - length * fall:
                    masks = tried
                    break
                length *= settings.decay
    return masks


def igos_plain(score: Score, frame: Tensor, baseline: Tensor, settings: Settings, together: int = 20) -> Tensor:
    """I-GOS: the mask ``(1, 1, size, size)`` that removes the target, `together` steps in one pass."""

    def delete(large: Tensor, share: Tensor) -> Tensor:
        return baseline + share * large * (frame - baseline)

    def data(masks: list[Tensor], noise: Tensor, gradient: bool) -> Tensor:
        return integrated(score, delete, blown_up(masks[0], frame), noise, together, gradient)

    def penalty(masks: list[Tensor]) -> Tensor:
        return settings.area * (1 - masks[0]).abs().mean() + settings.smooth * variation(masks[0])

    return descend([torch.ones(1, 1, settings.size, settings.size)], data, penalty, frame, settings)[0]


def igos_pp_plain(score: Score, frame: Tensor, baseline: Tensor, settings: Settings, together: int = 20) -> Tensor:
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

    first, second = descend([torch.ones(1, 1, settings.size, settings.size)] * 2, data, penalty, frame, settings)
    return first * second


LOOPS = {"igos": igos_plain, "igos_pp": igos_pp_plain}


def of(plain: Plain, target: int) -> Score:
    return lambda frames: plain(frames).softmax(1)[:, target]


def row(bench: Bench, method: str) -> dict[str, Any] | None:
    """A method at 28 x 28 against its plain loop; where whylens has it not, the plain loops alone."""
    from whylens import catalogue

    settings = Settings(iterations=max(1, round(FULL[method] * bench.share)))
    loop, frame, baseline = LOOPS[method], bench.frame, filled(bench)
    target = int(bench.nets["float32"].logits(frame).argmax())
    kept: dict[str, Tensor] = {}

    def plain(name: str, net: Plain, together: int) -> None:
        kept[name] = loop(of(net, target), frame, baseline, settings, together)

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
        apart = float((kept["float32"] - kept["loop"]).abs().max())
        assert apart < AGREES, f"{method}: the mask is {apart:.2g} from that of the plain loop"
        result["over the plain float32 loop at its best batch size (bar 2, aim 4)"] = {
            p: round(called / median[f"whylens {p}"], 2) for p in ("float32", "auto")
        }
        result["over the loop in channels last"] = {
            p: round(median["loop, channels last"] / median[f"whylens {p}"], 2) for p in ("float32", "auto")
        }
        result["largest difference of the masks"] = apart
    return result
