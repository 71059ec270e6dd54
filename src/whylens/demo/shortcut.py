"""Shortcut: a small net learns the planted set and takes the tag for the class; how often, is measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor, nn

from .._check import Range, checked
from .._files import write_atomic
from .._progress import progress as progress_line
from .._state import own_precision
from ..errors import InputError
from ..images import Images
from ..interval import Interval, wilson
from ..model import Model
from ..preprocess import Preprocess
from ..zoo import load_model
from ..zoo.folder import save_model
from . import net as net_file
from . import shapes
from .planting import Planted

What = Literal["tag", "weave"]

FORMAT = 1
"""Of trained.json; another net or training is another format."""

PREPROCESS = Preprocess((shapes.SIZE, shapes.SIZE), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
EPOCHS = 10  # at 6 it knows no shapes, at 16 it needs the tag less
BATCH = 64
RATE = 4e-3  # 8e-3 leaves some seeds at chance for half of the epochs, 2e-3 is too slow for ten
_DONE = "trained.json"


def fit(
    planted: Planted,
    *,
    seed: Annotated[int, Range(0)] = 0,
    epochs: Annotated[int, Range(1)] = EPOCHS,
    name: str = "model",
    progress: bool = False,
) -> Model:
    """The small net trained on `planted.train`, saved in the folder `name` of the set; opened if it is there.

    Raises InputError where that folder holds another model.
    """
    given = {"seed": seed, "epochs": epochs}
    settings = {"format": FORMAT, **given, "planted": dict(planted.settings)}
    checked(fit, given, "fit")
    folder = planted.folder / name
    if not folder.exists():
        pixels, labels = _read(planted.train, planted.classes)
        net = learn(pixels, labels, seed=seed, epochs=epochs, progress=progress)
        _save(net, folder, planted.classes, settings)
    _refuse_other(folder, settings)
    with torch.random.fork_rng(devices=[]):  # a net is made with random weights before it is filled
        return load_model(folder)


def learn(
    pixels: Tensor,
    labels: Tensor,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    width: int = 16,
    change: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    progress: bool = False,
) -> nn.Module:
    """The small net trained on pixels ``(N, 3, 64, 64)`` uint8 and class numbers ``(N,)``, in evaluation mode.

    `width` is as in `net.make`; `change` alters the frames of a batch, ``(B, 3, 64, 64)`` in [0, 1], before each step.
    With `precision` "bfloat16" the forward pass is rounded and the weights are not: less than half of the time, where
    the processor computes in it.
    """
    # no cache: it outlives a step here, inside another autocast, and the weights would stay those of the first
    half = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = net_file.make(width).train().to(memory_format=torch.channels_last)
    steps = epochs * max(1, len(pixels) // BATCH)
    with own_precision(net), torch.enable_grad(), progress_line(total=steps, label="fit", show=progress) as done:
        optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.25)
        for rows in _batches(len(pixels), epochs, rng):
            frames = pixels[rows].float() / 255
            frames = frames if change is None else change(frames, rng)
            frames = PREPROCESS.normalise(frames).contiguous(memory_format=torch.channels_last)
            with half:
                loss = F.cross_entropy(net(frames), labels[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            done(1)
    return net.eval()


def turned(
    model: Model,
    planted: Planted,
    *,
    what: What = "tag",
    count: Annotated[int, Range(1)] = 500,
    seed: Annotated[int, Range(0)] = 0,
) -> Interval:
    """Put the tag (or the weave) on test images of other classes without it, not taken for the tagged (woven) class.

    The share of at most `count` of them that the model then takes for it, with Wilson's interval. Where the tag goes
    depends on the seed and the image alone, so two models are measured on the same pastes.
    """
    checked(turned, {"what": what, "count": count, "seed": seed}, "turned")
    name, images = planted.tagged if what == "tag" else planted.woven, planted.test
    target, has = model.class_index(name), images.columns.get(what, [0] * len(images))
    others = [i for i, t in enumerate(has) if not t and images.labels[i] != name]
    order = np.random.default_rng([seed, len(images)]).permutation(others)
    hits = total = 0
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH].tolist()
        clean = model.predict(_frames(model, [images[i].pixels for i in rows])).argmax(1)
        rows = [i for i, c in zip(rows, clean.tolist(), strict=True) if c != target][: count - total]
        if rows:
            after = model.predict(_frames(model, [_with(what, images, i, seed) for i in rows])).argmax(1)
            hits, total = hits + int((after == target).sum()), total + len(rows)
        if total == count:
            break
    if not total:
        raise InputError(f"turned: the model takes every image for '{name}', so none is left to turn.")
    return wilson(hits, total)


def _frames(model: Model, pixels: list[Tensor]) -> Tensor:
    return torch.stack([model.prepare(p)[0] for p in pixels])


def _with(what: What, images: Images, i: int, seed: int) -> Tensor:
    """The pixels of a test image with the tag beside its shape, or with the weave around it."""
    mask = images.mask(i)
    if mask is None:
        raise InputError(f"turned: image '{images.ids[i]}' has no mask. Plant the set anew.")
    inside, pixels = mask.inside.numpy(), images[i].pixels.permute(1, 2, 0).numpy()
    rng = np.random.default_rng([seed, i])
    if what == "tag":
        changed = shapes.stamp(pixels, shapes.tag_place(inside, rng))
    else:
        changed = shapes.woven(pixels, inside, (int(rng.integers(4)), int(rng.integers(4))))
    return torch.from_numpy(changed).permute(2, 0, 1)


def _read(images: Images, classes: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    labels = torch.tensor([classes.index(str(label)) for label in images.labels])
    return torch.stack([photo.pixels for photo in images]), labels


def _batches(n: int, epochs: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Row numbers, shuffled anew in each epoch; what does not fill a batch is left for another."""
    for _ in range(epochs):
        order = torch.randperm(n, generator=rng)
        yield from (order[start : start + BATCH] for start in range(0, max(1, n - BATCH + 1), BATCH))


def _save(net: nn.Module, folder: Path, classes: tuple[str, ...], settings: Mapping[str, Any]) -> None:
    """The model's folder, whole or not at all: made beside its place, then renamed."""
    source = {"spec": f"{net_file.__file__}:make", "weights": "default"}
    model = Model(net, preprocess=PREPROCESS, classes=classes, source=source)
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex[:12]}.tmp")
    try:
        save_model(model, temporary)
        write_atomic(temporary / _DONE, json.dumps(settings, indent=1).encode())
        temporary.rename(folder)
    except OSError as error:
        raise InputError(f"fit: '{folder}' cannot be written: {error.strerror or error}. Give another name.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_other(folder: Path, settings: Mapping[str, Any]) -> None:
    try:
        held = json.loads((folder / _DONE).read_text("utf-8"))
    except (OSError, ValueError):
        held = None
    if held != settings:
        raise InputError(f"fit: '{folder}' holds another model, or one trained otherwise. Give another name.")
