"""Speed of the methods that mask: LIME, RISE, KernelSHAP, I-GOS, iGOS++, side by side with peers in one process.

    python benchmarks/speed_masked.py [--repeats 5] [--rows lime rise kernel_shap igos igos_pp] [--share 1.0]
                                      [--threads 2] [--sizes 1 4 8 16 32 64] [--photo chelsea] [--busy] [--out FILE]

Two figures per row: against the peer as its users call it (the bar), and against the peer given our memory layout and
dtype (what remains). The ladder is the plain program with batch size, channels last, folded batch norm and bfloat16
switched on one after another. Runs are taken in turn; a figure is a ratio of medians. `--share` takes that share of
the draws or iterations, `--sizes 16` tries no other batch size of plain nets; rows of an earlier call that are not
asked for stay in the file. `--busy` counts CPU seconds of the process instead of the clock's, for a machine that does
other things: then with `--threads 1`.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations, count
from pathlib import Path
from typing import Any

import numpy as np
import speed_igos
import torch
from plain_nets import SIZES, Plain, best_size, ladder
from side_by_side import HERE, Clock, interleaved, medians, rounded, written
from torch import Tensor

import whylens

PRECISIONS = ("float32", "auto")
UNITS = 50  # superpixels of KernelSHAP, which adds twice as many masks to those asked for
TOP = 5  # segments whose stability is measured


@dataclass(frozen=True)
class Bench:
    """What every row shares."""

    model: whylens.Model
    frame: Tensor  # (1, 3, 224, 224) in [0, 1]
    nets: dict[str, Plain]
    repeats: int
    share: float
    clock: Clock

    def turns(self, runs: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
        return interleaved(runs, self.repeats, warm=False, clock=self.clock)

    def in_half(self, method: str, samples: int) -> bool:
        """Whether "auto" left float32 for this photo: its tolerance decides."""
        exact, auto = (self.ours(method, precision, samples=samples).maps for precision in PRECISIONS)
        return not torch.allclose(exact, auto, rtol=0, atol=1e-5 * float(exact.abs().max()))

    def draws(self, full: int) -> int:
        return max(64, round(full * self.share))

    def ours(self, method: str, precision: str, seed: int = 0, **params: Any) -> whylens.Explanation:
        return whylens.explain(self.model, self.frame, method=method, params=params, precision=precision, seed=seed)


def opened(options: argparse.Namespace) -> Bench:
    """EfficientNet-Lite0 with the weights of its package, and a photo of scikit-image."""
    import skimage.data

    model = whylens.load_model("efficientnet-lite0", device="cpu")
    frame = model.prepare(torch.from_numpy(getattr(skimage.data, options.photo)()).permute(2, 0, 1))[0][None]
    model.net.eval()
    whole = replace(model.preprocess, resize=None)  # the frame is cut: both sides take it as it is
    model = whylens.Model(model.net, preprocess=whole, classes=model.classes, name=model.name)
    whylens.explain(model, frame, method="rise", params={"samples": 64}, precision="auto")
    nets = {name: best_size(plain, frame, options.sizes) for name, plain in ladder(model, frame).items()}
    clock = time.process_time if options.busy else time.perf_counter
    return Bench(model, frame, nets, options.repeats, options.share, clock)


# ---- LIME ------------------------------------------------------------------------------------------------------------


def lime_package(plain: Plain, photo: np.ndarray, draws: int, batch: int, seed: int) -> np.ndarray:
    """The lime package as its users call it → whether a pixel ``(H, W)`` is in one of the largest segments."""
    from lime.lime_image import LimeImageExplainer

    def classify(pictures: np.ndarray) -> np.ndarray:
        frames = torch.from_numpy(pictures.transpose(0, 3, 1, 2)).float()
        with torch.no_grad():
            return plain(frames).softmax(1).numpy()

    found = LimeImageExplainer(random_state=seed).explain_instance(
        photo, classify, top_labels=1, num_samples=draws, batch_size=batch
    )
    values = sorted(found.local_exp[found.top_labels[0]], key=lambda pair: -pair[1])
    return np.isin(found.segments, [unit for unit, _ in values[:TOP]])


def largest(explanation: whylens.Explanation) -> np.ndarray:
    """Whether a pixel ``(H, W)`` is in one of the largest segments of a LIME map."""
    values = explanation.maps[0, 0]
    return np.isin(values.numpy(), values.unique().topk(TOP).values.numpy())


def stability(tops: list[np.ndarray]) -> float:
    """Mean intersection over union of the largest segments' pixels, over pairs of seeds."""
    return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in combinations(tops, 2)]))


def lime(bench: Bench) -> dict[str, Any]:
    draws, photo = bench.draws(1000), bench.frame[0].permute(1, 2, 0).double().numpy()
    first = bench.nets["float32"]
    tops: dict[str, list[np.ndarray]] = {}

    def turn(name: str, run: Callable[[int], np.ndarray]) -> Callable[[], None]:
        seeds, tops[name] = count(), []
        return lambda: tops[name].append(run(next(seeds)))

    def package(plain: Plain, batch: int) -> Callable[[int], np.ndarray]:
        return lambda seed: lime_package(plain, photo, draws, batch, seed)

    def ours(precision: str, samples: int) -> Callable[[int], np.ndarray]:
        return lambda seed: largest(bench.ours("lime", precision, seed, samples=samples))

    batch = best_size(first, bench.frame, (10, 32, 64)).size if bench.share == 1 else 10
    runs = {f"package, batch {batch}": turn("package", package(first, batch))}
    for name, plain in list(bench.nets.items())[1:]:
        runs[f"package, {name}"] = turn(name, package(plain, plain.size))
    for precision in PRECISIONS:
        runs[f"whylens {precision}"] = turn(f"whylens {precision}", ours(precision, draws))
    for part in (2, 4):
        name = f"whylens float32, {draws // part} draws"
        runs[name] = turn(name, ours("float32", draws // part))
    seconds = bench.turns(runs)
    median = medians(seconds)
    peer = median[f"package, batch {batch}"]
    return {
        "work": f"LIME, {draws} draws, EfficientNet-Lite0, 224, quickshift on both sides",
        "auto ran in bfloat16": bench.in_half("lime", draws),
        "seconds": rounded(seconds),
        "over the package at its best batch size (bar 3, aim 10 at equal stability)": {
            name: round(peer / s, 2) for name, s in median.items() if name.startswith("whylens")
        },
        "auto over the package in channels last and bfloat16": round(
            median["package, channels last, bfloat16"] / median["whylens auto"], 2
        ),
        "float32 over the package in channels last": round(
            median["package, channels last"] / median["whylens float32"], 2
        ),
        "ladder of the package, times as fast": {n: round(peer / s, 2) for n, s in median.items() if "package" in n},
        f"stability of the largest {TOP} segments over seeds": {n: round(stability(t), 3) for n, t in tops.items()},
    }


# ---- RISE and KernelSHAP ---------------------------------------------------------------------------------------------


def throughput(bench: Bench, method: str, full: int, besides: int = 0, **more: Callable[[], Any]) -> dict[str, Any]:
    """Masks per second of a method, which makes some `besides` those asked for, over frames of plain forwards."""
    masks, rows = bench.draws(full), bench.draws(512)
    alone = replace(bench.nets["float32"], size=1)
    runs: dict[str, Callable[[], Any]] = {"plain float32, batch 1": lambda: alone.forwards(bench.frame, rows // 8)}
    done = {"plain float32, batch 1": rows // 8}
    for name, plain in bench.nets.items():
        label = f"plain {name}, batch {plain.size}"
        runs[label] = lambda plain=plain: plain.forwards(bench.frame, rows)
        done[label] = -(-rows // plain.size) * plain.size
    for precision in PRECISIONS:
        runs[f"whylens {precision}"] = lambda p=precision: bench.ours(method, p, samples=masks)
        done[f"whylens {precision}"] = masks + besides
    for name, run in more.items():
        runs[name], done[name] = run, masks + besides
    seconds = bench.turns(runs)
    pace = {name: done[name] / s for name, s in medians(seconds).items()}
    plain = {name: p for name, p in pace.items() if name.startswith("plain")}
    best32 = max(p for name, p in plain.items() if "bfloat16" not in name)
    called = max(p for name, p in plain.items() if name.startswith("plain float32"))
    return {
        "work": f"{method}, {masks + besides} masks, EfficientNet-Lite0, 224",
        "auto ran in bfloat16": bench.in_half(method, masks),
        "seconds": rounded(seconds),
        "per second": {name: round(p, 1) for name, p in pace.items()},
        "of the best plain float32 forward, NCHW (bar 0.9, aim 0.95)": {
            p: round(pace[f"whylens {p}"] / called, 3) for p in PRECISIONS
        },
        "of the best plain forward in our layout, folding and dtype": {
            "float32": round(pace["whylens float32"] / best32, 3),
            "auto": round(pace["whylens auto"] / max(plain.values()), 3),
        },
        "ladder of plain forwards, times as fast": {n: round(p / called, 2) for n, p in plain.items()},
        **{f"over {n}": {p: round(pace[f"whylens {p}"] / pace[n], 2) for p in PRECISIONS} for n in more},
    }


def rise(bench: Bench) -> dict[str, Any]:
    return throughput(bench, "rise", 4000)


def kernel_shap(bench: Bench) -> dict[str, Any]:
    return throughput(bench, "kernel_shap", 2048, 2 * UNITS, **{"the shap package": lambda: shap_package(bench)})


def shap_package(bench: Bench) -> np.ndarray:
    """shap.KernelExplainer as its users call it on segments of a photo, at the best batch size."""
    import shap
    from skimage.segmentation import slic

    photo, plain = bench.frame[0].permute(1, 2, 0).numpy(), bench.nets["float32"]
    segments = slic(photo, n_segments=UNITS, compactness=10, start_label=0)
    units, fill = int(segments.max()) + 1, photo.mean((0, 1))
    target = int(plain.logits(bench.frame).argmax())

    def scores(kept: np.ndarray) -> np.ndarray:
        found = []
        for part in np.array_split(kept, -(-len(kept) // plain.size)):
            pictures = np.where(part[:, segments][..., None] > 0, photo, fill).astype(np.float32)
            found.append(plain.logits(torch.from_numpy(pictures.transpose(0, 3, 1, 2)))[:, target].numpy())
        return np.concatenate(found)

    explainer = shap.KernelExplainer(scores, np.zeros((1, units)), silent=True)
    return np.asarray(explainer.shap_values(np.ones((1, units)), nsamples=2 * UNITS + bench.draws(2048), silent=True))


ROWS: dict[str, Callable[[Bench], dict[str, Any] | None]] = {
    "lime": lime,
    "rise": rise,
    "kernel_shap": kernel_shap,
    "igos": lambda bench: speed_igos.row(bench, "igos"),
    "igos_pp": lambda bench: speed_igos.row(bench, "igos_pp"),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="batch sizes tried for plain nets")
    parser.add_argument("--photo", choices=("chelsea", "astronaut", "coffee", "rocket"), default="chelsea")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "speed_masked.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    bench = opened(options)
    how = {"repeats": options.repeats, "photo": options.photo, "share of draws or iterations": options.share}
    how["clock"] = "CPU seconds of the process" if options.busy else "seconds"
    rows = (
        {row["row"]: row for row in json.loads(options.out.read_text("utf-8"))["rows"]} if options.out.exists() else {}
    )
    for name in options.rows:
        found = ROWS[name](bench)
        if found is not None:
            rows[name] = {"row": name, **how, **found}
            written(options.out, list(rows.values()))


if __name__ == "__main__":
    main()
