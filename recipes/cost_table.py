"""Seconds of LIME, Grad-CAM and Grad-CAM++ for one image, beside a published comparison on ResNet-50.

    python recipes/cost_table.py --data imagenet/val [--model torchvision:resnet50] [--images 20]
                                 [--settings lime:samples=1000]

One image at a time, as in the comparison; one image that is not counted comes first. The published seconds were taken
on another machine and with settings of LIME that are not given: compare the ratios. Results are kept image by image.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence

from resumed import Kept, drawn, kept, line, machine, opened, parser

import whylens

PAPER = {"lime": 177.18, "grad_cam": 2.19, "grad_cam_pp": 3.44}
"""Seconds for one image on ResNet-50, as reported to this project; their machine and settings are not known."""


def requests(settings: Sequence[str]) -> list[whylens.Method]:
    """The three methods, with settings where given."""
    given = {request.plain_name: request for request in map(whylens.Method.read, settings)}
    strange = sorted(set(given) - set(PAPER))
    if strange:
        raise SystemExit(f"--settings: the table holds {', '.join(PAPER)}. Got {strange[0]}.")
    return [given.get(name, whylens.Method(name)) for name in PAPER]


def run(model: whylens.Model, images: whylens.Images, methods: Sequence[whylens.Method], known: Kept) -> None:
    """Time every method on every image that is not known yet."""
    for method in methods:
        missing = [image for image in images.ids if known.find(method.key, image) is None]
        if missing:
            timed(model, images, method, missing[0])
        for number, image in enumerate(missing, 1):
            known.add(method.key, image, seconds=timed(model, images, method, image))
            print(f"{method.key}: {number}/{len(missing)} images", file=sys.stderr)


def timed(model: whylens.Model, images: whylens.Images, method: whylens.Method, image: str) -> float:
    """Seconds from the file to the map."""
    began = time.perf_counter()
    whylens.explain(model, images.subset([image]), method=method, precision="auto", batch_size=1)
    return round(time.perf_counter() - began, 4)


def table(images: Sequence[str], methods: Sequence[whylens.Method], known: Kept) -> Iterator[str]:
    """Median seconds, theirs and ours, and each as a multiple of its Grad-CAM."""
    ours = {method.plain_name: median(images, method, known) for method in methods}
    yield line(["method", "paper, s", "ours, s", "paper, times Grad-CAM", "ours, times Grad-CAM", "images"])
    yield line(["---"] * 6)
    for method in methods:
        name = method.plain_name
        ratios = [f"{times[name] / times['grad_cam']:.1f}" for times in (PAPER, ours)]
        yield line([method.key, f"{PAPER[name]:.2f}", f"{ours[name]:.3f}", *ratios, str(len(images))])


def median(images: Sequence[str], method: whylens.Method, known: Kept) -> float:
    rows = [known.find(method.key, image) for image in images]
    return float(statistics.median(row["seconds"] for row in rows if row is not None))


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__, images=20, out="cost_table.jsonl")
    made.add_argument("--settings", action="append", default=[], help="method:parameter=value,...; may be repeated")
    options: argparse.Namespace = made.parse_args(arguments)
    methods = requests(options.settings)
    model, images, known = opened(options), drawn(options), kept(options)
    run(model, images, methods, known)
    print(f"{options.model}, {machine(model)}\n")
    print("\n".join(table(images.ids, methods, known)))


if __name__ == "__main__":
    main()
