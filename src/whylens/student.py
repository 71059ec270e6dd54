"""Student: a small net learns what a black box says of masked copies, a second one hides what it can do without.

Both belong to one image and are pure functions of tensors drawn by seed: the same for every image, and nothing of
torch's own random state is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, isfinite, log2, pi, sqrt

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor

from .passes import Baseline
from .regions import Regions

SIDE = 64
"""Largest side of what the networks see; larger frames are area-pooled by a whole number."""

BATCH = 32
"""Copies per step."""

RATE, MASK_RATE = 6e-3, 2e-3
"""Largest step sizes of the student and of the mask network: the mask must not close before the student answers."""

NOISE = 0.1
"""Noise on what the student sees, as a share of the copies' own size: a dim mask loses what it shows, so that a
student with large weights cannot do with one."""

_HELD_OUT = 5  # one part in so many of the draws, the last, is not learnt from
_OPEN = 2.0  # the mask begins at sigmoid(2), nearly open
_MEMORY = 0.1  # share of the last step in the running error
_MASKER, _STUDENT = (8, 16, 32), (8, 16, 16)


@dataclass(frozen=True)
class Lesson:
    """One image as it is learnt: at most `SIDE` rows and columns.

    `picture` ``(C, h, w)``; `pieces` ``(U, h, w, C)``, what each unit adds to the fill where it is kept, so that the
    copies less their fill are ``masks @ pieces``; `within` how surely the neighbours down ``(h - 1, w)`` and across
    ``(h, w - 1)`` belong to one unit; masks ``(M, U)``, the black box's scores ``(M,)`` and weights ``(M,)``.
    """

    picture: Tensor
    pieces: Tensor
    within: tuple[Tensor, Tensor]
    masks: Tensor
    scores: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Price:
    """What the mask costs, in shares of the scores' variance: its area, change within units, being undecided."""

    area: float
    change: float
    undecided: float


@dataclass(frozen=True)
class Learnt:
    """The mask ``(h, w)`` in [0, 1], and how well the student answers for copies that it has not met (R²)."""

    mask: Tensor
    r_squared: float


def lesson(
    frames: Tensor, filled: Baseline, found: Regions, n: int, masks: Tensor, scores: Tensor, weights: Tensor
) -> Lesson:
    """The lesson of image `n` of frames ``(N, C, H, W)`` from masks ``(M, U)`` over its own units."""
    frame, fill = frames[n].float(), filled.frames[n if len(filled.frames) > 1 else 0].to(frames).float()
    H, W = frame.shape[1:]
    step = -(-max(H, W) // SIDE)
    size = (-(-H // step), -(-W // step))
    shows = F.one_hot(found.labels[n], masks.shape[1]).permute(2, 0, 1).to(frame)
    pieces = torch.stack([F.adaptive_avg_pool2d((frame - fill) * unit, size) for unit in shows])
    share = F.adaptive_avg_pool2d(shows[None], size)[0]
    within = (share[:, 1:] * share[:, :-1]).sum(0), (share[:, :, 1:] * share[:, :, :-1]).sum(0)
    return Lesson(
        F.adaptive_avg_pool2d(frame[None], size)[0],
        pieces.permute(0, 2, 3, 1).contiguous(),
        within,
        *(values.to(frame) for values in (masks, scores, weights)),
    )


def learn(given: Lesson, price: Price, *, steps: int, seed: int) -> Learnt:
    """Train both networks on the lesson by Adam.

    The loss of a step is the weighed squared error of its copies over the variance of all, plus the mask's price. Of
    the price is asked the share of the variance that the student explains by then: before it answers, hiding would
    cost nothing and the mask would close for good.
    """
    rng = torch.Generator().manual_seed(seed)
    C, (h, w) = len(given.picture), given.picture.shape[1:]
    masker = [p.to(given.picture).requires_grad_() for p in _masker_weights(C + 2, rng)]
    student = [p.to(given.picture).requires_grad_() for p in _student_weights(C + 2, rng)]
    where, scale = _where(given.picture), _scale(given.pieces)
    seen = torch.cat([_plain(given.picture), where], 1)
    answers, known = _standard(given), len(given.masks) - len(given.masks) // _HELD_OUT
    rows = torch.cat([torch.randperm(known, generator=rng) for _ in range(-(-steps * BATCH // known))])
    optimiser = torch.optim.Adam([{"params": masker}, {"params": student}], RATE)
    behind = 1.0  # running share of the variance that the student does not explain
    for k in range(steps):
        for group, rate in zip(optimiser.param_groups, (MASK_RATE, RATE), strict=True):
            group["lr"] = rate * _pace((k + 0.5) / steps)
        part = rows[k * BATCH : (k + 1) * BATCH]
        mask = _mask(seen, masker)
        shown = _copies(given, part, scale) * mask
        noise = torch.randn((len(part), h, w, C), generator=rng).to(shown).permute(0, 3, 1, 2)
        error = given.weights[part] * (_answer(shown + NOISE * noise, where, student) - answers[part]) ** 2
        missed = error.mean() / given.weights[:known].mean()
        behind = behind + _MEMORY * (float(missed.detach()) - behind)
        loss = missed + max(0.0, 1 - behind) * _cost(mask, given.within, price)
        for weight, slope in zip(masker + student, torch.autograd.grad(loss, masker + student), strict=True):
            weight.grad = slope
        optimiser.step()
    with torch.no_grad():
        mask, left = _mask(seen, masker), torch.arange(known, len(answers))
        said = torch.cat(
            [_answer(_copies(given, part, scale) * mask, where, student) for part in torch.split(left, BATCH)]
        )
    return Learnt(mask[0, 0], _r_squared(said, answers[left], given.weights[left]))


# ---- the networks ----------------------------------------------------------------------------------------------------


def _masker_weights(into: int, rng: torch.Generator) -> list[Tensor]:
    """Of the mask network: two stages down, two up with what was before them, one value per cell."""
    a, b, c = _MASKER
    weights = _drawn([(a, into, 3, 3), (b, a, 3, 3), (c, b, 3, 3), (b, b + c, 3, 3), (a, a + b, 3, 3)], rng)
    last = 0.3 * torch.randn((1, a, 1, 1), generator=rng) * sqrt(2 / a)
    return [*weights, last, torch.full((1,), _OPEN)]


def _student_weights(into: int, rng: torch.Generator) -> list[Tensor]:
    """Of the student: three convolutions, the sum of each channel, one value."""
    a, b, c = _STUDENT
    weights = _drawn([(a, into, 3, 3), (b, a, 3, 3), (c, b, 3, 3)], rng)
    return [*weights, 0.1 * torch.randn((1, c), generator=rng) * sqrt(2 / c), torch.zeros(1)]


def _drawn(shapes: Sequence[tuple[int, ...]], rng: torch.Generator) -> list[Tensor]:
    """Kernels as of He et al. 2015, each with its bias of zeros."""
    drawn = []
    for shape in shapes:
        kernel = torch.randn(shape, generator=rng)
        drawn += [kernel * sqrt(2 / kernel[0].numel()), torch.zeros(shape[0])]
    return drawn


def _mask(seen: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """A U-Net: a mask ``(1, 1, h, w)`` in (0, 1) of what it sees ``(1, C + 2, h, w)``."""
    fine = _stage(seen, weights[0:2])
    middle = _stage(_halved(fine), weights[2:4])
    coarse = _stage(_halved(middle), weights[4:6])
    middle = _stage(torch.cat([middle, _like(coarse, middle)], 1), weights[6:8])
    fine = _stage(torch.cat([fine, _like(middle, fine)], 1), weights[8:10])
    return F.conv2d(fine, weights[10], weights[11]).sigmoid()


def _answer(shown: Tensor, where: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """What the student says ``(B,)`` of masked copies ``(B, C, h, w)``, told where each cell is.

    Channels are summed over the cells and divided by the root of their number, as a random sum grows.
    """
    shown = torch.cat([shown, where.expand(len(shown), -1, -1, -1)], 1)
    for k in (0, 2, 4):
        shown = _stage(shown, weights[k : k + 2], stride=2)
    strength = shown.sum((2, 3)) / sqrt(shown.shape[2] * shown.shape[3])
    said: Tensor = F.linear(strength, weights[6], weights[7])[:, 0]
    return said


def _stage(x: Tensor, weights: Sequence[Tensor], *, stride: int = 1) -> Tensor:
    return F.silu(F.conv2d(x, weights[0], weights[1], stride=stride, padding=1))


def _halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, (min(2, x.shape[2]), min(2, x.shape[3])), ceil_mode=True)


def _like(x: Tensor, other: Tensor) -> Tensor:
    return F.interpolate(x, size=other.shape[2:], mode="bilinear", align_corners=False)


# ---- what they see, and the loss -------------------------------------------------------------------------------------


def _plain(picture: Tensor) -> Tensor:
    """The picture ``(1, C, h, w)`` with its mean and contrast removed."""
    return ((picture - picture.mean((1, 2), keepdim=True)) / picture.std().clamp(min=1e-3))[None]


def _where(picture: Tensor) -> Tensor:
    """Row and column of each cell ``(1, 2, h, w)``, from -1 to 1."""
    h, w = picture.shape[1:]
    down = torch.linspace(-1, 1, h).to(picture)[:, None].expand(h, w)
    return torch.stack([down, torch.linspace(-1, 1, w).to(picture).expand(h, w)])[None]


def _scale(pieces: Tensor) -> Tensor:
    """Root mean square of the whole image less its fill."""
    return pieces.sum(0).square().mean().sqrt().clamp(min=1e-3)


def _copies(given: Lesson, part: Tensor, scale: Tensor) -> Tensor:
    """Copies less their fill ``(B, C, h, w)``, in channels-last memory."""
    flat = given.masks[part] @ given.pieces.flatten(1)
    return (flat / scale).view(len(part), *given.pieces.shape[1:]).permute(0, 3, 1, 2)


def _standard(given: Lesson) -> Tensor:
    """Scores ``(M,)`` in whole sixteenths of their deviation, less their weighed mean, over their weighed deviation.

    Training multiplies a difference in the last digit, and the last digits of a score depend on the rows beside it.
    """
    deviation = max(float(given.scores.std()), float(given.scores.abs().max()) * 2**-12, 1e-30)
    step = 2.0 ** round(log2(deviation / 16)) if isfinite(deviation) else 1.0
    scores = (given.scores / step).round()
    share = given.weights / given.weights.sum()
    moved = scores - share @ scores
    return moved / (share @ moved**2).sqrt().clamp(min=1e-12)


def _pace(done: float) -> float:
    """Share of the largest step size: it rises over the first fifth of the steps and falls as a cosine after."""
    return 5 * done if done < 0.2 else 0.5 + 0.5 * cos(pi * (done - 0.2) / 0.8)


def _cost(mask: Tensor, within: tuple[Tensor, Tensor], price: Price) -> Tensor:
    """Price of a mask: its mean, its total variation inside units (nothing was asked there), and m (1 - m)."""
    down = (within[0] * (mask[..., 1:, :] - mask[..., :-1, :]).abs()).sum()
    across = (within[1] * (mask[..., 1:] - mask[..., :-1]).abs()).sum()
    undecided = (mask * (1 - mask)).mean()
    return price.area * mask.mean() + price.change * (down + across) / mask.numel() + price.undecided * undecided


def _r_squared(said: Tensor, answers: Tensor, weights: Tensor) -> float:
    share = weights / weights.sum()
    total = share @ (answers - share @ answers) ** 2
    return 1 - float(share @ (said - answers) ** 2 / total.clamp(min=1e-12))
