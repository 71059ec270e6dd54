"""How little of a photo is enough, and in how many ways: the locality study on real cut-outs.

    python benchmarks/locality.py [--scenes 100] [--half report] [--seed 0] [--threads 1] [--baseline black]
                                  [--edges soft]

EfficientNet-Lite0 on the scenes of `cutouts_scenes.py` that it gets right, its predicted class as target, in the
published setting: 7 x 7 cells with soft edges on black, I-GOS as the guide, beam 3, 15 candidates, 10 sets. Rankings by
I-GOS and Grad-CAM stand beside the search. Every photo is kept in the cache folder when it is done, so a stopped run
goes on. The figures go to `locality.json`, the table to
standard output, and the curves as a picture beside the photos.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from cutouts_scenes import CACHE, fetch, images_of, scenes_of
from side_by_side import HERE, commit

import whylens
from whylens.study import study
from whylens.study_summary import SEARCH

PAPER = {"within a fifth": 0.8, "more than one": 0.3}
"""Shares of 5,000 photos of ImageNet, with other nets: Li et al. 2021, Applied AI Letters, section 4.1; "about"."""

DIFFERS = (
    "Theirs: 5,000 photos of ImageNet, VGG-19, and a search whose width is not told. Ours: cut-outs pasted on other "
    "photos, that the net gets right; EfficientNet-Lite0; the objects fill 14 % of the frame on average."
)


def table(said: Mapping[str, Any]) -> Iterator[str]:
    """The two headline figures beside the published ones, in Markdown."""
    yield "| what | ours | published |"
    yield "| --- | --- | --- |"
    for name, found in said["within a fifth"].items():
        theirs = f"about {PAPER['within a fifth']:.2f}" if name == SEARCH else "less"
        yield f"| enough within 20 % of the frame, {name} | {shown(found)} | {theirs} |"
    for name, found in said["more than one"].items():
        theirs = f"about {PAPER['more than one']:.2f}" if name == "t1" else ""
        yield f"| more than one explanation, {name} | {shown(found)} | {theirs} |"


def shown(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--half", choices=("choose", "report"), default="report")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--baseline", choices=("black", "auto", "mean", "blur"), default="black")
    parser.add_argument("--edges", choices=("soft", "hard"), default="soft")
    parser.add_argument("--out", type=Path, default=HERE / "locality.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tree, model = fetch(), whylens.load_model("efficientnet-lite0", device="cpu")
    scenes = scenes_of(model, tree, options.half, options.scenes, options.seed)
    params = {"baseline": options.baseline, "edges": options.edges}
    name = f"{options.half}-{options.scenes}-{options.seed}-{options.baseline}-{options.edges}"
    made = study(model, images_of(tree, scenes), out=CACHE / "locality" / name, params=params, progress=True)
    said = made.summary()
    made.write(CACHE / "locality" / f"{name}-tables")
    report = {
        "commit": commit(),
        "machine": f"{options.threads} threads, no GPU",
        "torch": str(torch.__version__),
        "half": options.half,
        "seed": options.seed,
        "stamps": len({scene.stamp for scene in scenes}),
        "settings": made.plan["settings"],
        "guide": made.plan["guide"],
        "mean area of the object": round(sum(scene.area for scene in scenes) / len(scenes), 3),
        "published": {**PAPER, "differs": DIFFERS},
        **said,
    }
    options.out.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", "utf-8")
    print("\n".join(table(said)))
    return int(bool(made.failures))


if __name__ == "__main__":
    sys.exit(main())
