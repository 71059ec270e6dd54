"""The demo: two photos, a real network, several methods, one page. Everything it needs is in packages."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from typing import Any

from ..errors import WhylensError
from ..explain import explain_many
from ..output import prepare_folder, summary, write_explanations
from ..sources import load_images
from ..zoo import load_model

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


def run(out: Path, *, device: str = "auto", progress: bool = False) -> dict[str, Any]:
    """Explain the photos, write pictures, raw maps, JSON and the page to `out`; gives the summary."""
    model = load_model("efficientnet-lite0", device=device)
    images = load_images([str(path) for path in photos()])
    folder = prepare_folder(out)
    many = explain_many(model, images, methods=METHODS, progress=progress)
    written = write_explanations(folder, many, images, title="whylens: why these two photos?", intro=INTRO)
    return summary(folder, many, written)
