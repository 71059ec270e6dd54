"""Accuracy after the map is added to the image, and the gap between right and wrong predictions, for six methods.

    python recipes/ax_accuracy.py --data imagenet/val --layout imagenet --net resnet34 [--modes add,multiply]
    python recipes/ax_accuracy.py --data chest_xray --layout pneumonia --net resnet34 --model net.py:make
    python recipes/ax_accuracy.py --data COVID-19_Radiography_Dataset --layout covid --model net.py:make

`--net` says beside which published figures ours stand, and is the torchvision net where no --model is given. Layouts:
"imagenet", class folders; "pneumonia", class folders in --split; "covid", CLASS/images/*.png, of each class every third
image. Where the model does not know the folders' names, folders in order of their names are the outputs. Results are
kept image by image: a stopped run goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from resumed import Kept, drawn_of, kept, line, machine, opened, parser
from scipy.stats import rankdata

import whylens
from whylens.interval import mean

METHODS = ("saliency", "input_x_gradient", "grad_cam", "deconvolution", "guided_backprop", "deep_lift")
TOGETHER = 16

PAPER = {
    ("imagenet", "resnet34"): (0.722, 0.715, 0.526, 0.703, 0.659, 0.706, 0.610),
    ("imagenet", "alexnet"): (0.551, 0.530, 0.347, 0.542, 0.364, 0.484, 0.407),
    ("pneumonia", "resnet34"): (0.691, 0.691, 0.601, 0.671, 0.691, 0.689, 0.619),
    ("pneumonia", "resnet34_sub"): (0.708, 0.708, 0.643, 0.713, 0.700, 0.712, 0.668),
    ("pneumonia", "alexnet"): (0.628, 0.628, 0.510, 0.606, 0.636, 0.635, 0.546),
    ("covid", "cxc_multi_spa"): (0.865, 0.821, 0.624, 0.784, 0.245, 0.578, 0.562),
}
"""Accuracy before, then after x + h with each of `METHODS`: Tjoa et al. 2021, arXiv:2201.00009, table 2."""

CAVEAT = """The paper's nets for X-rays are fine-tuned and not public, its splits reshuffled: only the order of the
methods compares. Its Grad-CAM is that of the first convolution without a ReLU (--layer names a layer; the ReLU stays),
h is added behind the net's normalisation (--space normalised), and the accuracies in its own table 1 differ from the
baselines here. It shows the gap in plots alone."""


def images_of(options: argparse.Namespace, model: whylens.Model) -> whylens.Images:
    """The labelled images of the layout, so many as asked."""
    if options.layout == "covid":
        files = [
            file for folder in sorted(options.data.glob("*/images")) for file in sorted(folder.glob("*.png"))[2::3]
        ]
        names = [file.parents[1].name for file in files]
    else:
        found = whylens.load_images(options.data / options.split if options.layout == "pneumonia" else options.data)
        files, names = [Path(str(uri)) for uri in found.uris], [str(label) for label in found.labels]
    if not files:
        raise SystemExit(f"{options.data} holds no images in the layout '{options.layout}'.")
    return drawn_of(whylens.load_images(list(files), labels=numbers(names, model)), options)


def numbers(names: Sequence[str], model: whylens.Model) -> list[int]:
    """The output of each label: by its name, or by the place of its folder where the model knows other names."""
    folders = sorted(set(names))
    known = [name.lower() for name in model.classes or ()]
    if all(name.lower() in known for name in folders):
        return [known.index(name.lower()) for name in names]
    if known and len(folders) != len(known):
        raise SystemExit(f"{len(folders)} class folders, but {len(known)} outputs with other names.")
    return [folders.index(name) for name in names]


def requests(options: argparse.Namespace) -> list[whylens.Method]:
    """The six methods; Grad-CAM at the layer asked for."""
    layer = options.layer or None
    return [whylens.Method(name, layer=layer if name == "grad_cam" else None, label=name) for name in METHODS]


def run(options: argparse.Namespace, model: whylens.Model, images: whylens.Images, known: Kept) -> None:
    """Every method and mode on every image that is not known yet."""
    for mode in options.modes.split(","):
        label = label_of(options, mode)
        missing = [image for image in images.ids if known.find(label, image) is None]
        for start in range(0, len(missing), TOGETHER):
            part = images.subset(missing[start : start + TOGETHER])
            many = whylens.explain_many(model, part, methods=requests(options), seed=options.seed)
            measured = {name: values(model, part, e, mode, options.space) for name, e in many.items()}
            for k, image in enumerate(part.ids):
                known.add(label, image, values={name: [v[k] for v in found] for name, found in measured.items()})
            print(f"{mode}: {start + len(part)}/{len(missing)} images", file=sys.stderr)


def values(
    model: whylens.Model, images: whylens.Images, found: whylens.Explanation, mode: str, space: str
) -> list[list[float]]:
    """By image: right before, right after, CO score."""
    params = {"mode": mode, "space": space}
    after = whylens.measure(model, images, found, metric="accuracy_after", params=params)
    co = whylens.measure(model, images, found, metric="co_score", params=params)
    return [[float(v) for v in each] for each in (co.checks["correct"], after.values, co.values)]


def label_of(options: argparse.Namespace, mode: str) -> str:
    return f"{mode} {options.space} {options.layer}"


def held(options: argparse.Namespace, mode: str, images: Sequence[str], known: Kept) -> dict[str, np.ndarray]:
    """What is known by method: right before, right after, CO score ``(3, N)``."""
    rows = [row for row in (known.find(label_of(options, mode), image) for image in images) if row is not None]
    return {name: np.array([row["values"][name] for row in rows], float).reshape(-1, 3).T for name in METHODS}


def accuracy_table(options: argparse.Namespace, images: Sequence[str], known: Kept) -> Iterator[str]:
    """Accuracy before and after, theirs and ours, in Markdown."""
    modes = options.modes.split(",")
    paper = PAPER.get((options.layout, options.net), ("",) * 7)
    yield line(["method", "paper, x + h", *(f"ours, {mode}" for mode in modes)])
    yield line(["---"] * (2 + len(modes)))
    found = [held(options, mode, images, known) for mode in modes]
    yield line(["none", said(paper[0]), *(str(mean(f[METHODS[0]][0])) for f in found)])
    for k, name in enumerate(METHODS, 1):
        yield line([name, said(paper[k]), *(str(mean(f[name][1])) for f in found)])


def gap_table(options: argparse.Namespace, images: Sequence[str], known: Kept) -> Iterator[str]:
    """CO scores of right and wrong predictions, and how well they tell them apart, in Markdown."""
    yield line(["method", "mode", "median CO, right", "median CO, wrong", "AUROC", "right", "wrong"])
    yield line(["---"] * 7)
    for mode in options.modes.split(","):
        for name, (before, _, co) in held(options, mode, images, known).items():
            right, wrong = (co[(before == side) & ~np.isnan(co)] for side in (1, 0))
            medians = [f"{np.median(each):.3g}" if len(each) else "-" for each in (right, wrong)]
            yield line([name, mode, *medians, auroc_words(right, wrong), str(len(right)), str(len(wrong))])


def auroc_words(right: np.ndarray, wrong: np.ndarray, draws: int = 1000) -> str:
    """The share of pairs in which the right one has more, with its bootstrap interval."""
    if not len(right) or not len(wrong):
        return "-"
    rng = np.random.default_rng(0)
    drawn = [auroc(rng.choice(right, len(right)), rng.choice(wrong, len(wrong))) for _ in range(draws)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{auroc(right, wrong):.3f} [{low:.3f}, {high:.3f}]"


def auroc(right: np.ndarray, wrong: np.ndarray) -> float:
    ranks = rankdata(np.concatenate([right, wrong]))[: len(right)].sum()
    return float((ranks - len(right) * (len(right) + 1) / 2) / (len(right) * len(wrong)))


def said(figure: float | str) -> str:
    return figure if isinstance(figure, str) else f"{figure:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__, images=10_000, out="ax_accuracy.jsonl")
    made.set_defaults(model="")
    made.add_argument("--layout", choices=("imagenet", "pneumonia", "covid"), default="imagenet")
    made.add_argument("--net", default="", help="whose published figures: resnet34, resnet34_sub, alexnet")
    made.add_argument("--split", default="test", help="folder of the pneumonia set")
    made.add_argument("--layer", default="", help="layer of Grad-CAM; default: the feature layer")
    made.add_argument("--modes", default="add")
    made.add_argument("--space", choices=("frame", "normalised"), default="frame")
    options = made.parse_args(arguments)
    options.net = options.net or ("cxc_multi_spa" if options.layout == "covid" else "resnet34")
    options.model = options.model or f"torchvision:{options.net}"
    model = opened(options)
    images, known = images_of(options, model), kept(options)
    run(options, model, images, known)
    print(f"{options.model}, {len(images)} images of {options.data.resolve().name}, {machine(model)}\n")
    print("\n".join(accuracy_table(options, images.ids, known)))
    print("\nThe gap:\n")
    print("\n".join(gap_table(options, images.ids, known)))
    print(f"\n{CAVEAT}")


if __name__ == "__main__":
    main()
