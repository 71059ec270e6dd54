"""How little of a photo is enough, and in how many ways: the locality study of structured attention graphs.

    python recipes/sufficient_sets.py --data imagenet/val [--model torchvision:vgg19] [--images 5000] [--grid 7]
                                      [--methods grad_cam] [--references FOLDER] [--beam 3]

In the published setting: 7 x 7 cells with soft edges on black, I-GOS as the guide, sets that keep 90 % of the predicted
class. Prints the published figures beside ours; `--out` is a folder that keeps every photo when it is done, and the
curves of the search and of the rankings as a picture. `--references` is a folder with the eight photos whose sets the
authors' code comes with, by the numbers in their names: their sets are put to the test on the model at hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from resumed import drawn, line, machine, opened, parser

import whylens
from whylens.study import study
from whylens.study_summary import AREA, LIMITS, PAPER, SEARCH

REFERENCES = {
    "225": ("peacock", ((11, 30), (10, 30), (17, 30, 37))),
    "4756": ("peacock", ((16, 18), (16, 17), (17, 18))),
    "1505": ("racing car", ((25, 30), (24, 30), (24, 32))),
    "15839": ("racing car", ((9, 18, 31), (22, 23, 30, 31))),
    "5853": ("racing car", ((23,), (22, 33), (30, 31))),
    "13135277": ("school bus", ((9, 18), (2, 9), (18, 30))),
    "24219078": ("school bus", ((23, 29, 30), (9, 10, 25), (9, 11, 18, 23))),
    "8228523": ("school bus", ((18, 25), (15, 23), (18, 24))),
}
"""Sets of the authors' code (VGG-19 of torchvision, black, 90 %), by the number that ends a photo's name."""

CAVEAT = f"""Published: {PAPER}. Their
figure names no width of the search; the code's own is a beam of 3 with 15 candidates and ten sets, which is ours too.
The guide is drawn with noise, so sets may differ where several are enough."""


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """The published setting, at the size and width asked."""
    return {"grid": options.grid, "baseline": "black", "edges": "soft", "beam": options.beam}


def table(said: dict[str, Any]) -> Iterator[str]:
    """The shares of photos beside the published ones."""
    yield line(["what", "ours", "published"])
    yield line(["---"] * 3)
    for name, found in said["within a fifth"].items():
        yield line([f"within {AREA:.0%} of the frame, {name}", shown(found), "0.80" if name == SEARCH else "less"])
    for name, found in said["more than one"].items():
        yield line([f"more than one, sharing {LIMITS[name]}", shown(found), "0.30" if name == "t1" else ""])


def shown(found: dict[str, Any]) -> str:
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def references(options: argparse.Namespace, model: whylens.Model) -> Iterator[str]:
    """Their sets on the model at hand: what each keeps, and whether it passes every single removal; and ours."""
    photos = {path.stem.split("_")[-1]: path for path in sorted(options.references.iterdir())}
    there = [number for number in REFERENCES if number in photos]
    if not there:
        raise SystemExit(f"--references: {options.references} holds none of the numbers {', '.join(REFERENCES)}.")
    own = settings(options)
    grid, baseline = own.pop("grid"), own.pop("baseline")
    yield line(["photo", "their sets: kept of the whole photo's score", "pass", "ours", "the same"])
    yield line(["---"] * 5)
    for number in there:
        word, theirs = REFERENCES[number]
        graph = whylens.attention_graph(model, photos[number], grid=grid, baseline=baseline, params=own)
        kept = [graph.what_if(patches) / graph.score_full for patches in theirs]
        passed = [minimal(graph, patches) for patches in theirs]
        ours = [node.patches for node in graph.roots]
        yield line(
            [
                f"{word} {number} ({graph.subject.target_name})",
                "; ".join(f"{spoken(p)}: {share:.2f}" for p, share in zip(theirs, kept, strict=True)),
                f"{sum(passed)} of {len(passed)}",
                "; ".join(map(spoken, ours)),
                str(len({*ours} & {*theirs})),
            ]
        )


def minimal(graph: whylens.AttentionGraph, patches: Sequence[int]) -> bool:
    """Whether the patches are enough, and not with any one less."""
    least = graph.threshold * graph.score_full
    fewer = [[other for other in patches if other != patch] for patch in patches]
    return graph.what_if(patches) > least and all(graph.what_if(part) <= least for part in fewer)


def spoken(patches: Sequence[int]) -> str:
    return " ".join(map(str, patches))


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__, images=5000, out="sufficient_sets")
    made.set_defaults(model="torchvision:vgg19")
    made.add_argument("--grid", type=int, default=7)
    made.add_argument("--beam", type=int, default=3)
    made.add_argument("--methods", default="grad_cam", help="rankings beside I-GOS, with commas between")
    made.add_argument("--references", type=Path, help="folder of the authors' eight photos")
    options = made.parse_args(arguments)
    model, images = opened(options), drawn(options)
    methods = options.methods.replace("-", "_").split(",")
    found = study(
        model,
        images,
        out=options.out,
        methods=methods,
        params=settings(options),
        seed=options.seed,
        progress=sys.stderr.isatty(),
    )
    found.write(options.out / "tables")
    print(f"{options.model}, {len(found.done)} images of {options.data.resolve().name}, {machine(model)}\n")
    print("\n".join(table(found.summary())))
    if options.references:
        print("\n" + "\n".join(references(options, model)))
    print(f"\n{CAVEAT}")


if __name__ == "__main__":
    main()
