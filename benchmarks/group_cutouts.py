"""Groups on real photos: EfficientNet-Lite0 on cut-outs pasted on backgrounds, audited and grouped; sheets to look at.

    python benchmarks/group_cutouts.py [--scenes 480] [--seed 0] [--work FOLDER] [--threads 1]

Scenes are those of `cutouts_scenes.py`, right or wrong, every cut-out in turn; once of all cut-outs, once of those
whose class at least three share, so that classes have pictures enough to hold more than one group. No shortcut is
planted: what the groups are is to be looked at. The background, the cut-out and whether its class was found are columns
of the run. The audit goes on where it was stopped, a grouping that is there is opened. Figures go to
`group_cutouts.json`, contact sheets and maps to the work folder.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from cutouts_scenes import BACKGROUNDS, CACHE, Scene, Stamp, draw, fetch, images_of, judged, read_stamps
from shortcut_judged import alarm
from shortcut_reach import told
from side_by_side import HERE, written

import whylens
from whylens.groups.draw import scatter, sheet
from whylens.interval import wilson

WITHIN = ("class", "set")
SHARED = {"all cut-outs": 1, "classes of three cut-outs or more": 3}


def chosen(shared: int) -> list[Stamp]:
    """Cut-outs whose classes are those of at least so many cut-outs."""
    stamps = read_stamps()
    often = Counter(stamp.classes for stamp in stamps)
    return [stamp for stamp in stamps if often[stamp.classes] >= shared]


def scenes(model: whylens.Model, tree: Path, stamps: list[Stamp], count: int, seed: int) -> list[Scene]:
    """The first `count` scenes, every cut-out once before one comes twice."""
    right = {stamp.name: stamp.classes for stamp in stamps}
    turns = -(-count // len(stamps))
    made = [draw(tree, stamp, turn, seed, BACKGROUNDS) for turn in range(turns) for stamp in stamps][:count]
    return [s for start in range(0, count, 32) for s in judged(model, tree, made[start : start + 32], right)]


def listed(tree: Path, found: list[Scene], path: Path) -> whylens.Images:
    """The scenes as a list of files with masks and columns of their own."""
    images = images_of(tree, found)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "mask", "background", "cut_out", "found"])
        for scene, uri in zip(found, images.uris, strict=True):
            photo = Path(str(uri))
            mask = tree.parent / "masks" / photo.name
            table.writerow([photo, mask, scene.background, Path(scene.stamp).stem, int(scene.right)])
    return whylens.load_images(path)


def judged_group(group: Any, backgrounds: dict[int, str]) -> dict[str, Any]:
    """A group in figures, with the commonest background among its images."""
    names = [backgrounds[i] for i in group.ids]
    most = max(sorted(set(names)), key=names.count)
    tests = {} if group.tested is None else {k: told(v) for k, v in vars(group.tested).items()}
    return {
        "name": group.name,
        "images": group.size,
        "reasons of its class": group.reasons,
        "on the object": told(group.inside),
        "in the rest of its class": told(group.inside_rest),
        "commonest background": [most, names.count(most)],
        "named": [str(a) for a in group.associations],
        **tests,
        "alarm": alarm(tests),
    }


def report(name: str, shared: int, count: int, seed: int, work: Path) -> dict[str, Any]:
    """Scenes of these cut-outs audited and grouped, within each class and over the whole set."""
    tree, model = fetch(), whylens.load_model("efficientnet-lite0", device="cpu")
    found = scenes(model, tree, chosen(shared), count, seed)
    folder = work / f"{shared}-{count}-{seed}"
    images = listed(tree, found, folder / "scenes.csv")
    run = whylens.audit(
        model, images, out=folder / "run", methods=["grad_cam"], metrics=["energy_inside"], workers=1, progress=True
    )
    columns = run.table(["image_id", "background", "prediction"]).to_pydict()
    backgrounds = dict(zip(columns["image_id"], columns["background"], strict=True))
    said: dict[str, Any] = {
        "which": name,
        "scenes": len(found),
        "cut-outs": len({s.stamp for s in found}),
        "right": told(wilson(sum(s.right for s in found), len(found))),
        "classes predicted": len(set(columns["prediction"])),
    }
    for within in WITHIN:
        groups = whylens.group(run, within=within, name=within, seed=seed, model=model, progress=True)
        odd = [g for g in groups if g.reasons > 1]
        said[f"within the {within}"] = {
            "points": len(groups.points),
            "groups": len(groups),
            "stability": round(groups.stability, 4),
            "trustworthiness": round(groups.layout.trust, 4),
            "worth a look": [judged_group(g, backgrounds) for g in odd],
            "largest": [judged_group(g, backgrounds) for g in sorted(groups, key=lambda g: -g.size)[:8]],
        }
        largest = [g.name for g in sorted(groups, key=lambda g: -g.size)[:8]]
        for part in range(0, len(odd) or 1, 8):
            shown = [g.name for g in odd[part : part + 8]] or largest
            sheet(groups, shown).savefig(folder / f"{within}-{part // 8}.png", dpi=100)
        scatter(groups)[0].savefig(folder / f"{within}-map.png", dpi=100)
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=480)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=CACHE / "groups")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "group_cutouts.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [report(name, k, options.scenes, options.seed, options.work) for name, k in SHARED.items()]
    written(options.out, rows, seed=options.seed)


if __name__ == "__main__":
    main()
