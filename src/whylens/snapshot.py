"""Snapshot: what a recorder keeps of one epoch, and the file it stands in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import DamageError
from .metrics.iou import LEVELS

THRESHOLDS = LEVELS
"""Shares of a map's maximum, 0.05 to 0.95, at which it is cut for its IoU with the mask."""

FIXED = 9
"""Which of them is the fixed one: 0.5."""

CURVES = {"accuracy": "accuracy", "focus": "focus", "iou": "IoU"}
"""What is watched, and what it is called."""

UNSEEN, OBJECT, IGNORED = 0, 1, 2  # pixels of a stored mask


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What was recorded at one epoch, one entry per image.

    `maps` ``(N, 1, h, w)``, summed over channels and pooled to at most 56 x 56; `targets`, `predictions` ``(N,)``, -1
    where there is none; `probabilities` of the prediction, `scores` of the target; `correct` is NaN without a label.
    `iou` ``(N, T)`` at `THRESHOLDS` and `focus` ``(N,)``, the share of the map's mass on the object, are NaN without a
    mask. A segmentation net has no prediction of the image but `predicted` ``(N, H, W)``, the class of every pixel,
    and `overlap` ``(N,)``, the IoU of the pixels predicted as the target and the mask; its `probabilities` are the
    target's, mean over the object. `accuracy` is what the caller gave, if anything.
    """

    epoch: int
    maps: Tensor
    targets: Tensor
    predictions: Tensor
    probabilities: Tensor
    scores: Tensor
    correct: Tensor
    iou: Tensor
    focus: Tensor
    checks: Mapping[str, Tensor]
    seconds: float
    accuracy: float | None = None
    predicted: Tensor | None = None
    overlap: Tensor | None = None


def epoch_file(folder: Path, epoch: int) -> Path:
    """Where an epoch stands."""
    return folder / "epochs" / f"{epoch:06d}.safetensors"


def read_snapshot(path: Path, epoch: int) -> Snapshot:
    """A snapshot from its file."""
    tensors, said = read_tensors(path)
    checks = {name.removeprefix("checks."): tensors.pop(name) for name in list(tensors) if name.startswith("checks.")}
    accuracy = said.get("accuracy")
    return Snapshot(
        epoch=epoch,
        checks=checks,
        seconds=float(said["seconds"]),
        accuracy=None if accuracy is None else float(accuracy),
        **tensors,
    )


def snapshot_bytes(held: Snapshot) -> bytes:
    """A snapshot as the content of its file."""
    from safetensors.torch import save

    tensors = {name: value for name, value in vars(held).items() if isinstance(value, Tensor)}
    tensors |= {f"checks.{name}": value for name, value in held.checks.items()}
    said = {"epoch": str(held.epoch), "seconds": repr(held.seconds)}
    said |= {} if held.accuracy is None else {"accuracy": repr(held.accuracy)}
    made: bytes = save({name: value.contiguous() for name, value in tensors.items()}, said)
    return made


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name and what is said of them; DamageError where the file is missing or torn."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise DamageError(f"'{path}' is missing.") from None
    except (SafetensorError, OSError) as error:
        raise DamageError(f"'{path}' is damaged: {error}.") from None
