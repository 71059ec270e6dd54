"""The demo: two photos explained; then a planted shortcut learnt, audited, found, unlearnt and reported.

All it needs is in packages. `planted` is the shortcut set by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import torch

from .._files import prepare_folder
from ..errors import WhylensError
from ..explain import explain_many
from ..images import Images
from ..interval import Interval, wilson
from ..model import Model
from ..output import summary, write_explanations
from ..run.audit import audit
from ..run.read import Run
from ..sources import load_images
from ..view.report import report
from ..zoo import load_model
from .loop import ACTS, acted, first, grouped, judged
from .planted import Planted, fit, plant, turned

PHOTOS = ("coffee", "chelsea")
METHODS = (
    "grad_cam",
    "grad_cam_pp",
    "layer_cam",
    "saliency",
    "guided_backprop",
    "deep_lift",
    "integrated_gradients:steps=96",
)
METRICS = ("energy_inside", "pointing_game")

INTRO = (
    "EfficientNet-Lite0, trained on ImageNet, looked at two photos. Each method shows what in the photo speaks for "
    "the predicted class. The methods share their passes: the passes below each map are what it would take alone.\n\n"
    "A map that failed a check says so."
)


def photos() -> list[Path]:
    """The demo's photos, as files of the scikit-image package."""
    spec = util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise WhylensError(
            "The demo's photos come with scikit-image, which is not installed: pip install scikit-image."
        )
    return [Path(spec.origin).parent / "data" / f"{name}.png" for name in PHOTOS]


def run(
    out: Path, *, images: int = 2000, device: str = "auto", progress: bool = False, told: Callable[[str], object] = str
) -> dict[str, Any]:
    """Explain two photos; then plant a set with a shortcut, train a net on it, and find and mend what it learnt.

    The net's view of `images` pictures is audited and grouped, and the first group worth a look is kept alone, masked,
    and trained away; a report shows all of it. Everything goes to `out`, and what is there already is not made again.
    `told` hears what is being done. Gives the summary of the photos, with the planted set under "planted".
    """
    folder = prepare_folder(out)
    told("1 of 6: explaining two photos with EfficientNet-Lite0")
    model = load_model("efficientnet-lite0", device=device)
    shown = load_images([str(path) for path in photos()])
    many = explain_many(model, shown, methods=METHODS, progress=progress)
    written = write_explanations(folder, many, shown, title="whylens: why these two photos?", intro=INTRO)
    said = summary(folder, many, written)
    told(f"2 of 6: drawing {2 * images} pictures to learn from and {images} to audit, a tag on some of one class")
    planted = plant(folder / "planted", train=2 * images, test=images, swapped=max(8, images // 2), progress=progress)
    told("3 of 6: training a small net on them")
    net = fit(planted, progress=progress)
    told(f"4 of 6: auditing {images} pictures")
    audited = audit(net, planted.test, out=folder / "run", metrics=METRICS, progress=progress)
    told("5 of 6: grouping what it goes by, and testing what is worth a look")
    looped = _loop(planted, net, audited, folder / "mended", progress, told)
    page = report(audited, folder / "report.html")
    return {**said, "planted": {**_planted(planted, net, audited), **looped, "report": str(page)}}


def _loop(
    planted: Planted, net: Model, audited: Run, mended: Path, progress: bool, told: Callable[[str], object]
) -> dict[str, Any]:
    """What is worth a look, how much of the first of it is the tag, and what acts on it change."""
    groups = grouped(audited, net, progress=progress)
    found = first(groups)
    said = {"points": len(groups.points), "groups": len(groups), "worth_a_look": sum(g.reasons > 1 for g in groups)}
    if found is None:
        told("6 of 6: nothing is worth a look, so there is nothing to act on")
        return {**said, "found": None, "acts": {}}
    told(f"6 of 6: acting on '{found.name}', the first worth a look: {', '.join(ACTS)}")
    acts = acted(groups, found, net, planted, mended, progress=progress, told=told)
    return {**said, "found": judged(groups, found, net, planted), "acts": acts}


def _planted(planted: Planted, net: Model, audited: Run) -> dict[str, Any]:
    """How good the net is, and how much of it is the tag."""
    found, held = turned(net, planted), audited.summary()
    swapped = accuracy(net, planted.swapped)
    return {
        "tagged": planted.tagged,
        "run": str(audited.folder),
        "images": len(audited),
        "failed": held.failed,
        "accuracy": [held.accuracy.value, held.accuracy.low, held.accuracy.high],
        "accuracy_swapped": [swapped.value, swapped.low, swapped.high],
        "turned": [found.value, found.low, found.high],
        "turned_of": found.n,
    }


def accuracy(model: Model, images: Images, *, batch: int = 64) -> Interval:
    """The share of images whose class the model predicts, with Wilson's interval."""
    hits = 0
    for start in range(0, len(images), batch):
        part = images.subset(slice(start, start + batch))
        frames = torch.stack([model.prepare(photo.pixels, photo.orientation)[0] for photo in part])
        guesses = model.predict(frames).argmax(1).tolist()
        hits += sum(model.class_name(g) == label for g, label in zip(guesses, part.labels, strict=True))
    return wilson(hits, len(images))
