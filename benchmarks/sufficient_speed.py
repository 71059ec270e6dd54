"""Speed of sufficient sets and their graph, 7 x 7, over one plain call per mask, side by side in one process.

    python benchmarks/sufficient_speed.py [--repeats 5] [--threads 2] [--photos chelsea coffee] [--grid 7]
                                          [--sample 120] [--busy] [--out FILE]

EfficientNet-Lite0 in the published setting (soft edges, black, beam 3, 15 candidates, 10 sets); the guide is made
before the clock starts, for both sides. The peer makes the same search with a plain program: one call of the net for
each mask that the search asks for, mask by mask. Two figures: against it as it is (the bar), and against it with our
memory layout, folded batch norm and each distinct mask once, in batches of its best size (what remains). How much comes
from not scoring a mask twice is told. A plain call costs the same for every mask, so of thousands of them only
`--sample`, spread over all, are called, and their seconds stand for all. Runs are taken in turn; a figure is a ratio of
medians. `--busy` counts CPU seconds of the process instead of the clock's, for a machine that does other things: then
with `--threads 1`.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from plain_nets import Plain, best_size, ladder
from side_by_side import HERE, Clock, interleaved, medians, rounded, written
from torch import Tensor

import whylens
from whylens.graph import GUIDE, maps_of, read_guide, search_settings
from whylens.passes import Passes
from whylens.probe import Probe
from whylens.structured.dag import Grown, grow
from whylens.structured.diverse import by_overlap, diverse
from whylens.structured.sets import Scored, children
from whylens.structured.sufficient import Sufficient, sufficient

NODES, EXPAND = 200, 0.4


def opened(photo: str) -> tuple[whylens.Model, Tensor]:
    """EfficientNet-Lite0 with the weights of its package, and the frame ``(1, 3, 224, 224)`` of a photo."""
    import skimage.data

    model = whylens.load_model("efficientnet-lite0", device="cpu")
    frame, _ = model.prepare(torch.from_numpy(getattr(skimage.data, photo)()).permute(2, 0, 1))
    model.net.eval()
    return model, frame[None]


def ours(probe: Probe, maps: Tensor, settings: dict[str, Any]) -> tuple[Sufficient, Grown]:
    """The sets and the graph as `attention_graph` makes them."""
    (found,) = sufficient(probe, guide=maps, **settings)
    roots = [found.sets[k] for k in diverse(found.sets, found.scores, by_overlap(1))]
    with found.score.held():
        return found, grow(found.score, roots, least=EXPAND * found.full, most=NODES)


def peer(plain: Plain, frame: Tensor, sets: list[int], grid: int) -> list[Tensor]:
    """So many masks through a plain net, each laid over the photo, `plain.size` in a call."""
    found = []
    with torch.no_grad():
        for start in range(0, len(sets), plain.size):
            members = sets[start : start + plain.size]
            masks = torch.tensor([[m >> k & 1 for k in range(grid * grid)] for m in members]).float()
            tiles = masks.view(-1, 1, grid, grid)
            kept = F.interpolate(tiles, size=frame.shape[2:], mode="bilinear", align_corners=True)
            found.append(plain(frame * kept).softmax(1))
    return found


def described(score: Scored, order: list[int], least: float, settings: dict[str, Any]) -> list[int]:
    """Every mask that the search asks for as its authors describe it, in its order; none is remembered.

    All successors of a level are scored; what is enough loses patches one after another as long as it stays enough;
    the best of the rest are the next beam. It ends after the level that has more than the wanted number of sets.
    """
    asked: list[int] = []

    def ask(members: int) -> float:
        asked.append(members)
        return score([members])[0]

    frontier, roots = [0], set[int]()
    for _ in order:
        new = [m | 1 << k for m in frontier for k in [k for k in order if not m >> k & 1][: settings["candidates"]]]
        scores = [(ask(members), members) for members in new]
        frontier = []
        for value, members in sorted(scores, reverse=True):
            if value > least:
                roots.add(shrunk(members, ask, least))
            elif len(frontier) < settings["beam"]:
                frontier.append(members)
        if len(roots) > settings["max_sets"] or not frontier:
            break
    return asked


def shrunk(members: int, ask: Callable[[int], float], least: float) -> int:
    """The set without every patch that can go, tried one after another until none can."""
    again = True
    while again:
        again = False
        for child in children(members):
            if ask(child) > least:
                members, again = child, True
                break
    return members


def row(photo: str, options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    model, frame = opened(photo)
    settings = search_settings({"grid": options.grid, "baseline": "black", "edges": "soft"}, {}, "benchmark")
    target = model.predict(frame).argmax(1)
    guide = read_guide(GUIDE, model, settings)
    if guide is None:
        raise SystemExit("the search has a guide")
    probe = Probe(Passes(model, frame), target)
    maps = maps_of(probe, guide, 0)
    found, grown = ours(probe, maps, settings)
    distinct = list(found.score.known)
    asked = list(islice(cycle(distinct), found.score.asked))
    graph = len(grown.edges) + sum(members in found.sets for members in grown.sets)
    again = found.units.scored(probe, found.baseline)
    order = found.units.values(maps).argsort(descending=True, stable=True).tolist()
    published = described(again, order, found.threshold * found.full, settings) + asked[:graph]
    nets = ladder(model, frame)
    whole = peer(best_size(nets["float32"], frame, [4]), frame, distinct[:64], options.grid)
    theirs = torch.cat(whole)[:, int(target)]
    torch.testing.assert_close(theirs, torch.tensor([found.score.known[m] for m in distinct[:64]]), rtol=0, atol=1e-3)
    one = {name: best_size(plain, frame, [1]) for name, plain in nets.items()}
    batch = best_size(nets["channels last, folded"], frame)

    every: dict[str, float] = {"whylens": 1.0}
    runs: dict[str, Callable[[], Any]] = {}

    def plainly(name: str, plain: Plain, sets: list[int]) -> None:
        part = sets[:: -(-len(sets) // options.sample)]
        every[name] = len(sets) / len(part)
        runs[name] = lambda: peer(plain, frame, part, options.grid)

    batched = f"channels last, folded, distinct, {batch.size} a call"
    plainly("one plain call per mask asked", one["float32"], asked)
    plainly("one plain call per mask of the search as described", one["float32"], published)
    plainly("one plain call per distinct mask", one["float32"], distinct)
    plainly("channels last, folded, per mask asked", one["channels last, folded"], asked)
    plainly(batched, batch, distinct)
    runs["whylens"] = lambda: ours(probe, maps, settings)
    taken = interleaved(runs, options.repeats, warm=False, clock=clock)
    seconds = {name: [s * every[name] for s in taken[name]] for name in runs}
    median = medians(seconds)
    mine = median["whylens"]
    return {
        "row": photo,
        "work": f"sets and graph, {options.grid} x {options.grid}, EfficientNet-Lite0, 224, float32",
        "clock": "CPU seconds of the process" if options.busy else "seconds",
        "repeats": options.repeats,
        "masks called of each plain program, at most": options.sample,
        "masks asked": found.score.asked,
        "masks scored": found.score.scored,
        "masks asked by the search as described, and our graph": len(published),
        "share not scored again": round(1 - found.score.scored / found.score.asked, 3),
        "sets": len(found.sets),
        "nodes": len(grown.sets),
        "seconds": rounded(seconds),
        "times as fast as one plain call per mask (bar 5, aim 10)": {
            "ours": round(median["one plain call per mask asked"] / mine, 2),
            "as described": round(median["one plain call per mask of the search as described"] / mine, 2),
        },
        "times as fast as the plain program in our layout, folded, each mask once, in batches": round(
            median[batched] / mine, 2
        ),
        "times as fast, all": {name: round(s / mine, 2) for name, s in median.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--photos", nargs="+", default=["chelsea", "coffee"])
    parser.add_argument("--grid", type=int, default=7)
    parser.add_argument("--sample", type=int, default=120)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "sufficient_speed.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.busy else time.perf_counter
    written(options.out, [row(photo, options, clock) for photo in options.photos])


if __name__ == "__main__":
    main()
