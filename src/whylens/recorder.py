"""Recorder: maps of a fixed set of images at the epochs of a training, which goes on as if nobody had looked."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor, nn

from . import __version__
from ._files import create_once, prepare_folder, write_atomic
from .batches import Batches
from .contract import Method
from .errors import InputError
from .explain import Request, jobs_for
from .fixed_set import FixedSet, eight_bit, on_object, overlap_of
from .model import Model
from .pixel_class import PixelClass, predicted_pixels
from .probe import score_kind
from .record import FORMAT, Record
from .run.plan import is_sealed, sealed
from .run.schema import SIDE
from .snapshot import Snapshot, epoch_file, snapshot_bytes
from .sources import load_images

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PREDICTED = "predicted"
"""The target that is the predicted class of each epoch."""


class Recorder:
    """Records maps of a fixed set of images while a net is trained; `step(epoch)` in the loop, or a callback.

    `model` is the net in training, or a `Model` around it; `images` is whatever `load_images` takes, read once, with
    `masks` and labels where there are any. `method` is one method. `target` is an output by number or name, or one
    per image; the default is the true class where every image has a label that the model knows, else "predicted".
    For a net of `task` "segmentation" it is the class whose pixels are explained. Epochs are recorded in steps of
    `every`, or those in `epochs`. A folder `out` that holds this record already is gone on with: an epoch it holds
    is refused, or with `replace` written anew.

    Training is not touched: not gradients, modes, buffers, `requires_grad`, nor the random state of torch, numpy and
    python. Raises InputError for what cannot be done as asked, or a folder that holds another record.
    """

    def __init__(
        self,
        model: Model | nn.Module,
        images: Any,
        *,
        out: str | Path,
        method: Request = "grad_cam",
        target: Any = None,
        every: int = 1,
        epochs: Sequence[int] | None = None,
        replace: bool = False,
        seed: int = 0,
    ) -> None:
        self.model = model if isinstance(model, Model) else Model(model)
        self.every, self.epochs, self.replace, self.seed = _count(every, "every", 1), epochs, replace, seed
        self.method = Method.read(method)
        with untouched(self.model.net):
            self.set = FixedSet.read(self.model, load_images(images))
            self.target = self._target(target)
            said = self._said()
        self.folder = prepare_folder(Path(out))
        _begin(self.folder, said, self.set)
        self.record = Record(self.folder)

    def __repr__(self) -> str:
        return f"Recorder('{self.folder}', {len(self.set.ids)} images, {len(self.record)} epochs)"

    # ---- recording ---------------------------------------------------------------------------------------

    def due(self, epoch: int) -> bool:
        """Whether this epoch is to be recorded."""
        return epoch in self.epochs if self.epochs is not None else epoch % self.every == 0

    def step(self, epoch: int, *, accuracy: float | None = None) -> Snapshot | None:
        """Record an epoch, if it is due; `accuracy` is your own, of more images than these, to be drawn beside.

        Raises InputError where the folder holds this epoch and `replace` was not said.
        """
        epoch = _count(epoch, "epoch", 0)
        if not self.due(epoch):
            return None
        path = epoch_file(self.folder, epoch)
        if path.exists() and not self.replace:
            raise InputError(
                f"Recorder: '{self.folder}' holds epoch {epoch} already. To write it anew say replace=True; to keep it "
                "give another folder."
            )
        began = time.perf_counter()
        with untouched(self.model.net):
            made = self._look(epoch)
        made = replace(made, accuracy=accuracy, seconds=round(time.perf_counter() - began, 4))
        try:
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, snapshot_bytes(made))
        except OSError as error:
            raise InputError(f"Recorder: '{path}' cannot be written: {error.strerror or error}.") from None
        self.record.refresh()
        return made

    def lightning(self) -> Any:
        """A callback for a Trainer of Lightning; epochs are numbered as it numbers them, from 0."""
        from .trainers import lightning

        return lightning(self)

    def hugging_face(self) -> Any:
        """A callback for a Trainer of Hugging Face; epochs are numbered as it logs them, from 1."""
        from .trainers import hugging_face

        return hugging_face(self)

    # ---- reading -----------------------------------------------------------------------------------------

    def table(self) -> list[dict[str, Any]]:
        """One row per epoch, as `Record.table`."""
        return self.record.table()

    def figure(self) -> tuple[Figure, Axes]:
        """Curves over the epochs, as `Record.figure`."""
        return self.record.figure()

    def film(self, **view: Any) -> tuple[Figure, Axes]:
        """A strip of images by epochs, as `Record.film`."""
        return self.record.film(**view)

    # ---- one epoch ---------------------------------------------------------------------------------------

    def _look(self, epoch: int) -> Snapshot:
        model, held = self.model, self.set
        kind = score_kind(model, "auto")
        (job,) = jobs_for(model, [self.method], target=self.target, count=len(held.ids), seed=self.seed)
        batches = Batches(model, [job], kind)
        for frames in held.batches():
            batches.run(frames)
        sure = torch.cat([row.sure for row in job.rows])
        e = job.finish(model, held.images, {}, kind)
        predicted, overlap, predictions = None, None, e.predictions
        if model.task == "segmentation":
            predicted, sure = predicted_pixels(model, held, self.target.index)
            overlap = overlap_of(predicted == self.target.index, held)
            e = replace(e, targets=torch.full_like(e.targets, self.target.index))
        correct = (predictions == held.labels).float()
        iou, focus = on_object(model, e, held)
        return Snapshot(
            epoch=epoch,
            maps=_pooled(e.maps),
            targets=e.targets,
            predictions=predictions,
            probabilities=sure,
            scores=e.scores,
            correct=correct.masked_fill((held.labels < 0) | (predictions < 0), torch.nan),
            iou=iou,
            focus=focus,
            checks=e.checks,
            seconds=0.0,
            predicted=predicted,
            overlap=overlap,
        )

    def _target(self, target: Any) -> Any:
        """What is explained, as `explain` takes it."""
        if self.model.finds_boxes:
            raise InputError(
                "Recorder: a detector's boxes move from epoch to epoch, and a record holds one map per image. "
                "Explain each checkpoint: explain(model, images, target=Instances(boxes=[...]))."
            )
        if self.model.task == "segmentation":
            return PixelClass(self.model, target)
        if target is None:
            return None if bool((self.set.labels < 0).any()) else self.set.labels.tolist()
        return None if isinstance(target, str) and target == PREDICTED else target

    def _said(self) -> dict[str, Any]:
        """What a record says of itself; two that say the same are the same."""
        model, method, facts = self.model, self.method, self.method.facts
        (job,) = jobs_for(model, [method], target=self.target, count=len(self.set.ids), seed=self.seed)
        frame = self.set.frames.shape[1:]
        fixed, function = job.target.fixed, job.target.function
        return {
            "kind": "whylens.Record",
            "format": FORMAT,
            "model": model.name,
            "task": model.task,
            "classes": model.classes,
            "method": method.plain_name,
            "label": method.key,
            "params": job.params,
            "seed": self.seed,
            "layer": model.layer(method.layer, tuple(frame)).name if "layer" in facts.needs else None,
            "score": "function" if function is not None else score_kind(model, "auto"),
            "signed": facts.signed,
            "unit": facts.unit,
            "target": function.__name__ if function else PREDICTED if fixed is None else fixed.tolist(),
            "ids": self.set.ids,
            "labels": self.set.labels.tolist(),
            "has_mask": [mask is not None for mask in self.set.masks],
            "frame": list(frame),
            "content": self.set.mark(),
        }


# ---- on disk and in memory -------------------------------------------------------------------------------


def _begin(folder: Path, said: dict[str, Any], held: FixedSet) -> None:
    """Write the images and, last, what the record says of itself; or hold them against what is there."""
    from safetensors.torch import save

    path = folder / "record.json"
    said = json.loads(json.dumps(said, default=str))
    try:
        if not path.exists():
            tensors = {"frames": eight_bit(held.frames), "masks": held.pixels}
            write_atomic(folder / "images.safetensors", save(tensors))
            create_once(path, sealed({**said, "whylens": __version__}), whole=is_sealed)
    except OSError as error:
        raise InputError(f"Recorder: '{folder}' cannot be written: {error.strerror or error}.") from None
    there = Record(folder).said
    for name, value in said.items():
        if there.get(name) != value:
            raise InputError(
                f"Recorder: '{folder}' holds another record: its {name.replace('_', ' ')} differs. "
                "Give another folder, or what it was begun with."
            )


def _pooled(maps: Tensor) -> Tensor:
    """Maps as a run stores them: summed over channels, area-pooled to at most 56 x 56."""
    summed = maps.sum(1, keepdim=True)
    return F.adaptive_avg_pool2d(summed, (min(SIDE, summed.shape[2]), min(SIDE, summed.shape[3])))


@contextmanager
def untouched(net: nn.Module) -> Iterator[None]:
    """After: the random state of torch, numpy and python and every buffer of the net as before.

    Each pass inside keeps modes, gradients and `requires_grad` by itself. A buffer is written only where it changed,
    so that a graph which still needs it stays valid.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    states: list[tuple[Callable[[Any], object], Any]] = [
        (random.setstate, random.getstate()),
        (np.random.set_state, np.random.get_state()),
    ]
    buffers = {name: buffer.detach().clone() for name, buffer in net.named_buffers()}
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        for restore, state in states:
            restore(state)
        with torch.no_grad():
            for name, buffer in net.named_buffers():
                if name in buffers and not torch.equal(buffer, buffers[name]):
                    buffer.copy_(buffers[name])


def _count(value: Any, name: str, low: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise InputError(f"Recorder: {name} must be an integer >= {low}. Got {value!r}.")
    return value
