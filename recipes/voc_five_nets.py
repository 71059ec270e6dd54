"""IoU of Grad-CAM and Grad-CAM++ with the object's mask for five nets on Pascal VOC, beside a published table.

    python recipes/voc_five_nets.py --data VOCdevkit/VOC2012 [--models torchvision:alexnet,torchvision:vgg16,...]
                                    [--images 200] [--threshold 0.5]

The images are those with a mask and objects of one class only. Nets of ImageNet are asked for their predicted class,
and an image counts for a net where that class is one of the VOC class (`IMAGENET`). Results are kept image by image.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from resumed import Kept, drawn_of, line, parser

import whylens
from whylens import Metric, annotations
from whylens.interval import mean
from whylens.metrics.iou import LEVELS

NETS = "torchvision:alexnet,torchvision:vgg16,torchvision:resnet101,torchvision:densenet161,torchvision:squeezenet1_1"
METHODS = ("grad_cam", "grad_cam_pp")

PAPER = {
    "alexnet": (0.29, 0.15),
    "vgg16": (0.22, 0.22),
    "resnet101": (0.32, 0.37),
    "densenet161": (0.39, 0.43),
    "squeezenet1_1": (0.24, 0.15),
}
"""IoU of Grad-CAM and Grad-CAM++ in a published report."""

CAVEAT = """The report shows one image per net and states neither which, nor where the map is cut: its figures are no
means, and no run can give them again. Ours are means over the images that a net gets right, with 95 % bootstrap
intervals: at the stated share of the map's maximum, and at the share that is best for the net."""

IMAGENET: dict[str, tuple[str, ...] | range] = {
    "aeroplane": ("airliner", "warplane"),
    "bicycle": ("bicycle-built-for-two", "mountain bike"),
    "boat": ("canoe", "catamaran", "container ship", "fireboat", "gondola", "lifeboat", "liner", "schooner",
             "speedboat", "trimaran", "yawl"),
    "bottle": ("beer bottle", "pill bottle", "pop bottle", "water bottle", "wine bottle"),
    "bus": ("minibus", "school bus", "trolleybus"),
    "car": ("ambulance", "beach wagon", "cab", "convertible", "jeep", "limousine", "minivan", "Model T", "racer",
            "sports car"),
    "cat": range(281, 286),
    "chair": ("barber chair", "folding chair", "rocking chair"),
    "cow": ("ox",),
    "diningtable": ("dining table",),
    "dog": range(151, 269),
    "horse": ("sorrel",),
    "motorbike": ("moped", "motor scooter"),
    "pottedplant": ("pot",),
    "sheep": ("bighorn", "ram"),
    "sofa": ("studio couch",),
    "train": ("bullet train", "electric locomotive", "passenger car", "steam locomotive"),
    "tvmonitor": ("monitor", "screen", "television"),
}  # fmt: skip
"""What of ImageNet counts as a VOC class, by torchvision's names or by outputs; no class of ImageNet is a person."""

BIRDS = (*range(7, 25), *range(80, 101), *range(127, 147))


def outputs(model: whylens.Model, name: str) -> set[int]:
    """The outputs that count as a VOC class: that of its own name, else those of `IMAGENET`; none for a person."""
    classes = list(model.classes or ())
    if name in classes:
        return {classes.index(name)}
    known = BIRDS if name == "bird" else IMAGENET.get(name, ())
    return {k if isinstance(k, int) else classes.index(k) for k in known if isinstance(k, int) or k in classes}


def images_of(options: argparse.Namespace) -> whylens.Images:
    """Images with a mask whose objects are all of one class, which is their label."""
    labels = {}
    for mask in sorted((options.data / "SegmentationClass").glob("*.png")):
        found = {
            entry.name for entry in annotations.read_voc(options.data / "Annotations" / f"{mask.stem}.xml").objects
        }
        if len(found) == 1 and found != {"person"}:
            labels[str(options.data / "JPEGImages" / f"{mask.stem}.jpg")] = found.pop()
    if not labels:
        raise SystemExit(f"{options.data} holds no image of one class with a mask in SegmentationClass.")
    images = whylens.load_images(list(labels), labels=list(labels.values()), masks=options.data)
    return drawn_of(images, options)


def run(options: argparse.Namespace, spec: str, images: whylens.Images, known: Kept) -> None:
    """IoU at the stated threshold and at all of them, for every image of one net that is not known yet."""
    model = whylens.load_model(spec, weights=options.weights, device=options.device)
    metric = Metric("iou", params={"threshold": options.threshold})
    for number, image in enumerate(images.ids, 1):
        if known.find(label_of(spec, options), image) is None:
            one = images.subset([image])
            many = whylens.explain_many(model, one, methods=METHODS)
            right = int(many[METHODS[0]].predictions[0]) in outputs(model, str(one.labels[0]))
            scores = {name: whylens.measure(model, one, e, metric=metric) for name, e in many.items()}
            values = {name: [round(float(v), 5) for v in (s.values[0], *s.curve[0])] for name, s in scores.items()}
            known.add(label_of(spec, options), image, right=right, values=values)
        if number % 20 == 0 or number == len(images):
            print(f"{spec}: {number}/{len(images)} images", file=sys.stderr)


def label_of(spec: str, options: argparse.Namespace) -> str:
    return f"{spec} at {options.threshold}"


def table(options: argparse.Namespace, images: Sequence[str], known: Kept) -> Iterator[str]:
    """Ours and the report's, in Markdown."""
    heads = [
        f"{name}, {what}" for name in METHODS for what in ("report", f"ours at {options.threshold}", "ours at best")
    ]
    yield line(["net", "right", *heads])
    yield line(["---"] * (2 + len(heads)))
    for spec in options.models.split(","):
        rows = [row for row in (known.find(label_of(spec, options), image) for image in images) if row is not None]
        right = [row for row in rows if row["right"]]
        cells = [spec, f"{len(right)}/{len(rows)}"]
        for k, name in enumerate(METHODS):
            paper = PAPER.get(spec.rpartition(":")[2])
            ious = np.array([row["values"][name] for row in right]).reshape(-1, 1 + len(LEVELS))
            cells += ["" if paper is None else f"{paper[k]:.2f}", *ours(ious)]
        yield line(cells)


def ours(ious: np.ndarray) -> list[str]:
    """Mean at the stated threshold, and at the one that is best for the net."""
    there = ious[~np.isnan(ious).any(1)]
    if not len(there):
        return ["-", "-"]
    best = int(there[:, 1:].mean(0).argmax())
    return [str(mean(there[:, 0])), f"{mean(there[:, 1 + best])} at {float(LEVELS[best]):g}"]


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__, images=200, out="voc_five_nets.jsonl")
    made.add_argument("--models", default=NETS, help="several, separated by commas")
    made.add_argument("--threshold", type=float, default=0.5, help="share of the map's maximum where it is cut")
    options = made.parse_args(arguments)
    images = images_of(options)
    known = Kept(options.out, f"{options.weights} {options.data.resolve().name} {options.seed}")
    for spec in options.models.split(","):
        run(options, spec, images, known)
    print(f"{len(images)} images of {options.data.resolve().name}, torch {torch.__version__}\n")
    print("\n".join(table(options, images.ids, known)))
    print(f"\n{CAVEAT}")


if __name__ == "__main__":
    main()
