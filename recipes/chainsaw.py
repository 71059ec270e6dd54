"""What a net goes by when it says "chain saw": the four groups of SOXAI's figure 1a, looked for on your own data.

    python recipes/chainsaw.py --data imagenet/val [--model torchvision:resnet50] [--images 50] [--others 200]
                               [--method gsinquire] [--per image] [--folder n03000684] [--target "chain saw"]

The images of one class folder, and so many of the other folders, are audited; the evidence of those that the net takes
for the class is grouped, and every group is tested by keeping it alone, removing it, and pasting it on the others.
Prints the four published groups, then ours. `--out` is a folder: the run, which goes on where it was stopped, the
contact sheet `groups.png`, the picture `map.png` and `groups.csv`.

No program knows what the eye sees. Look at the sheet and name the groups that are one of the four, in Python:
    groups = whylens.open_groups("chainsaw/run").rename("chain saw 3", "ear-muffs")
The same command again then sets them beside the paper's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from resumed import line, machine, opened, parser

import whylens
from whylens.groups.draw import scatter, sheet
from whylens.groups.intervene import Tested

PAPER = {
    "cutting part": ("chain and guide bar", "the object"),
    "handle": ("handle", "the object"),
    "ear-muffs": ("ear-muffs, worn by who saws", "bias"),
    "logs": ("logs and wooden sculptures, often without a chainsaw", "bias"),
}
"""Groups of figure 1a: by name, what they show, and what the authors take it for."""

CAVEAT = """Published: Zeng et al. 2024 (SOXAI), figure 1a, ResNet-50 trained on ImageNet-1k. It is qualitative: four
groups seen by eye in a t-SNE of GSInquire's explanations, no sizes, no tests, and neither the number of images nor the
layer is given. GSInquire is proprietary; ours is a reading of its public description. Ours are found by HDBSCAN in PCA
space, one point per region of a map (--per image: one per image, as in the paper), among the images that the net takes
for the class, whether or not it is right. The validation set has 50 images of the class."""


def images_of(options: argparse.Namespace, model: whylens.Model) -> whylens.Images:
    """Images of the class, labelled, and of other folders, without a label: their classes may have other names."""
    if not (options.data / options.folder).is_dir():
        raise SystemExit(f"{options.data} holds no class folder '{options.folder}'. Name it: --folder.")
    found = whylens.load_images(options.data)
    own = [i for i, label in enumerate(found.labels) if label == options.folder]
    other = [i for i, label in enumerate(found.labels) if label != options.folder]
    draws = ((own, options.images), (other, options.others))
    rows = [i for part, most in draws for i in np.random.default_rng(options.seed).permutation(part)[:most].tolist()]
    target = model.class_index(options.target)
    labels = {found.ids[i]: target if found.labels[i] == options.folder else None for i in rows}
    return whylens.load_images(found.subset([found.ids[i] for i in rows]), labels=list(labels.values()))


def published() -> Iterator[str]:
    """The paper's groups, in Markdown."""
    yield line(["paper's group", "shows", "is"])
    yield line(["---"] * 3)
    for name, (shows, kind) in PAPER.items():
        yield line([name, shows, kind])


def table(groups: whylens.Groups, target: str) -> Iterator[str]:
    """Our groups of the class, worth a look first, in Markdown; in brackets a random region of the same shape."""
    yield line(["our group", "paper", "images", "of the class", "right", "decides", "needed", "carries"])
    yield line(["---"] * 8)
    for group in of_class(groups, target):
        tests = ["-"] * 3 if group.tested is None else list(tested(group.tested))
        kind = PAPER[group.name][1] if group.name in PAPER else ""
        share, right = (f"{found.value:.0%}" if found.n else "-" for found in (group.share, group.accuracy))
        yield line([group.name, kind, str(group.size), share, right, *tests])


def of_class(groups: whylens.Groups, target: str) -> list[whylens.groups.describe.Group]:
    return [group for group in groups if group.class_name == target]


def tested(found: Tested) -> Iterator[str]:
    pairs = (
        (found.decides, found.decides_control),
        (found.needed, found.needed_control),
        (found.carries, found.carries_control),
    )
    return (f"{own.value:.0%} ({control.value:.0%})" if own.n else "-" for own, control in pairs)


def grouped(options: argparse.Namespace, model: whylens.Model, images: whylens.Images) -> whylens.Groups:
    """The run and its grouping, gone on with where they are there."""
    watched = sys.stderr.isatty()
    run = whylens.audit(
        model, images, out=options.out / "run", methods=[options.method], seed=options.seed, workers=1, progress=watched
    )
    return whylens.group(
        run, run.labels[0], per=options.per, seed=options.seed, tests=50, model=model, images=images, progress=watched
    )


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__, images=50, out="chainsaw")
    made.add_argument("--others", type=int, default=200, help="images of other folders, on which evidence is pasted")
    made.add_argument("--method", default="gsinquire", help="whose maps; grad_cam takes a minute")
    made.add_argument("--per", choices=("region", "image"), default="region")
    made.add_argument("--folder", default="n03000684", help="the class's folder")
    made.add_argument("--target", default="chain saw", help="the class, as the model calls it")
    options = made.parse_args(arguments)
    model = opened(options)
    images = images_of(options, model)
    groups = grouped(options, model, images)
    ours = of_class(groups, options.target)
    print(f"{options.model}, {len(images)} images of {options.data.resolve().name}, {machine(model)}\n")
    print("\n".join(published()))
    print(f"\nOurs, {groups.settings['method']} per {groups.settings['per']}: {len(ours)} groups of '{options.target}'")
    print(f"stability {groups.stability:.2f}; in brackets a random region of the same shape\n")
    print("\n".join(table(groups, options.target)))
    named = [group.name for group in ours if group.name in PAPER]
    print(f"\nNamed as one of the four: {', '.join(named) or 'none yet'}. Look at {options.out / 'groups.png'}.")
    groups.to_csv(options.out / "groups.csv")
    scatter(groups, images=images)[0].savefig(options.out / "map.png")
    if ours:
        sheet(groups, [group.name for group in ours], images=images).savefig(options.out / "groups.png")
    print(f"\n{CAVEAT}")


if __name__ == "__main__":
    main()
