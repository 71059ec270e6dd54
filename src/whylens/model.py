"""Model: a net, how photos enter it, the names of its classes, and where its features stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from . import layers, rcnn, stages
from ._state import as_found
from .black_box import BlackBox
from .detections import Detections
from .errors import InputError, NetError, WhylensError, no_such
from .grid import Grid
from .placement import Placement
from .preprocess import Preprocess

Task = Literal["classification", "multilabel", "detection", "segmentation", "tabular"]
Output = Literal["logits", "probabilities"]


class Model:
    """A net with all that whylens must know of it; the net itself is never changed.

    A plain callable, frames ``(N, C, H, W)`` → scores ``(N, K)`` as a tensor, array or list, is a black box: it has
    no gradients and no layers, and `differentiable` is False. It is called without gradients, on `device`.
    `preprocess` takes photos to what the net takes: a `Preprocess`, "imagenet", torchvision's
    ``weights.transforms()``, timm's data configuration, an image processor of transformers, or None: the net then
    takes your tensors as they are. `classes` are the names of the outputs in order. `layer` is the feature layer, by
    dotted name or module; without it `layers.find` decides. `output` says what the net returns; "probabilities" keep
    methods and scores that need logits from being misread. `reshape_transform` turns the layer's output into
    ``(N, C, h, w)`` where that cannot be inferred.

    With `task` "detection" a Faster or Mask R-CNN of torchvision, with any backbone, is explained at its boxes. It
    normalises by itself: of `preprocess` only what leads to the frame counts. Where `classes` lack the background,
    which is output 0, it is put before them.

    Raises InputError where two of these contradict each other.
    """

    def __init__(
        self,
        net: nn.Module | Callable[[Tensor], Any],
        *,
        preprocess: Any = None,
        classes: Sequence[str] | None = None,
        layer: str | nn.Module | None = None,
        task: Task = "classification",
        output: Output = "logits",
        device: str | torch.device | None = None,
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
        name: str | None = None,
        differentiable: bool = True,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(net, nn.Module):
            net, differentiable = _black_box(net, layer, device), False
        for word, value, known in (("task", task, get_args(Task)), ("output", output, get_args(Output))):
            if value not in known:
                raise InputError(f"Model: {word} must be one of {', '.join(known)}. Got {value!r}.")
        self.net = getattr(net, "_orig_mod", net)  # a compiled net is explained through the one it was made from
        self.preprocess = None if preprocess is None else Preprocess.read(preprocess)
        self.classes = None if classes is None else tuple(str(c) for c in classes)
        self.task: Task = task
        self.output: Output = output
        self.reshape_transform = reshape_transform
        self.name = name or (self.net.name if isinstance(self.net, BlackBox) else type(self.net).__name__)
        self.differentiable = differentiable
        self.source = dict(source) if source else None
        if self.finds_boxes:
            self._fit_rcnn()
        if device is not None:
            self.net.to(pick_device(device))
        self._layer = None if layer is None else layers.resolve(self.net, layer)
        self._layers: dict[tuple[str | None, tuple[int, ...]], layers.FeatureLayer] = {}
        self._stages: dict[tuple[str, tuple[int, ...], int], tuple[layers.FeatureLayer, ...]] = {}

    def __repr__(self) -> str:
        size = "tensors as they are" if self.preprocess is None else "x".join(map(str, self.preprocess.size))
        count = "" if self.classes is None else f", {len(self.classes)} classes"
        return f"Model({self.name!r}, {self.task}, {size}{count})"

    # ---- how photos enter --------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the net's parameters live."""
        first = next(self.net.parameters(), None)
        first = next(self.net.buffers(), None) if first is None else first
        return torch.device("cpu") if first is None else first.device

    @property
    def dtype(self) -> torch.dtype:
        """What the net computes in."""
        return next((p.dtype for p in self.net.parameters() if p.is_floating_point()), torch.float32)

    def prepare(self, pixels: Tensor, orientation: int = 1) -> tuple[Tensor, Placement | None]:
        """Pixels ``(C, rows, columns)`` → frame ``(C, H, W)`` in [0, 1] and its Placement on the photo.

        Without preprocess the pixels are the frame: 8-bit values become [0, 1], floats stay as they are.
        A row of a table ``(F,)`` has no Placement.
        """
        if self.preprocess is not None:
            return self.preprocess.frame(pixels, orientation)
        frame = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
        if frame.ndim != 3:
            return frame, None
        return frame, Placement.identity(frame.shape[1], frame.shape[2], orientation)

    def forward(self, frames: Tensor) -> Any:
        """Whatever the net returns for frames ``(N, C, H, W)``; differentiable; modes are the caller's business."""
        with self._net_errors(frames):
            return self.net(self._given(frames))

    def _given(self, frames: Tensor) -> Tensor:
        """What the net takes; a detector of torchvision normalises by itself."""
        if self.preprocess is None:
            return frames
        plain: dict[str, Any] = {"mean": (0.0,) * self.preprocess.channels, "std": (1.0,) * self.preprocess.channels}
        return (replace(self.preprocess, **plain) if self.finds_boxes else self.preprocess).normalise(frames)

    @contextmanager
    def _net_errors(self, frames: Tensor) -> Iterator[None]:
        """What the net raises at its input, as one sentence with the net's own error as the cause."""
        try:
            yield
        except (torch.OutOfMemoryError, WhylensError):
            raise
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            if "allocate memory" in str(error):
                raise
            first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise NetError(
                f"{self.name} cannot take frames {tuple(frames.shape)}: {first[:200]}. "
                "Give the size and channels it was made for, in its preprocess or your tensors."
            ) from error

    def scores(self, output: Any) -> Tensor:
        """Class scores ``(N, K)`` in what the net returned: a tensor, `.logits`, a mapping, or the first of several."""
        if self.finds_boxes:
            raise InputError(f"{self.name} finds objects and has no scores of whole images. Use model.detect(frames).")
        if hasattr(output, "logits"):
            output = output.logits
        elif isinstance(output, Mapping):
            output = next((output[k] for k in ("logits", "out") if k in output), next(iter(output.values()), None))
        elif isinstance(output, tuple | list) and output:
            output = output[0]
        if not isinstance(output, Tensor):
            raise InputError(
                f"The net returns {type(output).__name__}, in which no class scores can be found. "
                "Wrap it so that it returns (N, K) scores, or give a target function on its output."
            )
        scores: Tensor = output[:, None] if output.ndim == 1 else output
        if scores.ndim != 2:
            raise InputError(
                f"The net must return class scores (N, K). Got {tuple(scores.shape)}. "
                "For maps of scores give a target function: target=lambda output: output[...].mean(...)."
            )
        if self.classes is not None and scores.shape[1] != len(self.classes):
            raise InputError(
                f"The model has {len(self.classes)} class names, and the net {scores.shape[1]} outputs. "
                "Give one name per output, in the net's order."
            )
        if self.task in ("classification", "tabular") and self.output == "logits":
            _refuse_probabilities(scores.detach())
        return scores

    def probabilities(self, scores: Tensor) -> Tensor:
        """Class scores ``(N, K)`` → probabilities: softmax, or one sigmoid each for multilabel and single outputs."""
        if self.output == "probabilities":
            return scores
        return scores.sigmoid() if self.independent(scores.shape[1]) else scores.softmax(1)

    def independent(self, classes: int) -> bool:
        """Whether each output is its own yes or no."""
        return self.task == "multilabel" or classes == 1

    def with_net(self, net: nn.Module) -> Model:
        """This net with other weights: images enter in the same way, and the same code makes it."""
        return Model(
            net,
            preprocess=self.preprocess,
            classes=self.classes,
            layer=self.layer_name,
            task=self.task,
            output=self.output,
            reshape_transform=self.reshape_transform,
            name=self.name,
            differentiable=self.differentiable,
            source=self.source,
        )

    def predict(self, frames: Tensor) -> Tensor:
        """Probabilities ``(N, K)`` of frames ``(N, C, H, W)``, without gradients, the net left as found."""
        with as_found(self.net), torch.no_grad():
            return self.probabilities(self.scores(self.forward(frames.to(self.device, self.dtype)))).float()

    # ---- places in an image ------------------------------------------------------------------------------

    @property
    def finds_boxes(self) -> bool:
        """Whether it is a detector that can be explained box by box: `detect` is there for it."""
        return self.task == "detection" and rcnn.is_rcnn(self.net)

    def detect(self, frames: Tensor, *, threshold: float = 0.5) -> tuple[Detections, ...]:
        """The objects in each of the frames ``(N, C, H, W)`` with a score of at least `threshold`; the net as found.

        A frame's sides are multiples of what the net pads to (32). The net's own thresholds hold too: what it leaves
        out (`net.roi_heads.score_thresh`) is not found here.
        """
        if not self.finds_boxes:
            raise InputError(
                f"detect: {self.name} must be a Faster or Mask R-CNN of torchvision with task='detection'. "
                f"Got {type(self.net).__name__}, {self.task}."
            )
        rcnn.check_size(self.net, tuple(frames.shape), self.name)
        given = self.normalised(frames.to(self.device, self.dtype))
        with as_found(self.net), torch.no_grad(), self._net_errors(frames):
            found = [rcnn.detect(self.net, frame[None]) for frame in given]  # one by one: nothing else bears on them
        return tuple(one.take(one.scores >= threshold) for one in found)

    def normalised(self, frames: Tensor) -> Tensor:
        """Frames ``(N, C, H, W)`` under the net's mean and standard deviation, also where the net does that itself."""
        preprocess = self._for_frames(frames) if self.finds_boxes else self.preprocess
        return frames if preprocess is None else preprocess.normalise(frames)

    def view(self, net: nn.Module, frames: Tensor, *, task: Task, layer: layers.FeatureLayer | None = None) -> Model:
        """A part of this model as a classifier of frames of that shape, by a net whose layers have the same names.

        `layer` is its feature layer where the caller of this model chose none; grids known here are known there.
        """
        made = Model(
            net,
            preprocess=self._for_frames(frames) if self.finds_boxes else self.preprocess,
            classes=self.classes,
            task=task,
            output=self.output,
            reshape_transform=self.reshape_transform,
            name=self.name,
            differentiable=self.differentiable,
        )
        made._layer, made._layers = self._layer, self._layers
        if layer is not None:
            self._layers[layer.name, tuple(frames.shape[-3:])] = layer
            made._layer = made._layer or layer.name
        return made

    def _fit_rcnn(self) -> None:
        """The net's own normalisation in `preprocess`, and a name for the background."""
        if self.preprocess is not None:
            self.preprocess = replace(self.preprocess, **rcnn.normalisation(self.net))
        if self.classes and "background" not in self.classes[0].lower():
            self.classes = ("background", *self.classes)

    def _for_frames(self, frames: Tensor) -> Preprocess:
        """How a detector takes frames of that size, whether or not photos are prepared for it."""
        size = (int(frames.shape[-2]), int(frames.shape[-1]))
        if self.preprocess is None:
            return Preprocess(size, **rcnn.normalisation(self.net))
        return self.preprocess if self.preprocess.size == size else replace(self.preprocess, size=size)

    # ---- classes -----------------------------------------------------------------------------------------

    def class_index(self, name: str) -> int:
        """The output that carries this class name; any case, and one of the comma-separated synonyms is enough."""
        if self.classes is None:
            raise InputError(f"The model has no class names, so '{name}' is unknown. Give classes=[...] or a number.")
        plain = name.strip().lower()
        exact = [i for i, c in enumerate(self.classes) if c.lower() == plain]
        loose = [i for i, c in enumerate(self.classes) if plain in (part.strip().lower() for part in c.split(","))]
        found = exact or loose
        if not found:
            raise no_such("class", name, list(self.classes), f"The model knows {len(self.classes)} classes.")
        if len(found) > 1:
            raise InputError(f"The class '{name}' is the name of outputs {found}. Give the number of one of them.")
        return found[0]

    def class_name(self, index: int) -> str:
        """The name of an output, or its number where there are no names."""
        known = self.classes is not None and 0 <= index < len(self.classes)
        return self.classes[index] if known and self.classes is not None else str(index)

    # ---- the feature layer -------------------------------------------------------------------------------

    @property
    def input_shape(self) -> tuple[int, int, int] | None:
        """``(C, H, W)`` of a frame where the preprocess fixes it."""
        return None if self.preprocess is None else (self.preprocess.channels, *self.preprocess.size)

    @property
    def layer_name(self) -> str | None:
        """The feature layer the caller chose; None where the rule decides."""
        return self._layer

    def layer(self, layer: str | nn.Module | None = None, shape: tuple[int, ...] | None = None) -> layers.FeatureLayer:
        """The feature layer, or the grid of the one named, for frames of `shape` ``(C, H, W)``.

        Raises InputError with candidates where the rule cannot decide or the layer is no grid.
        """
        shape = shape or self.input_shape
        if shape is None or len(shape) != 3:
            raise InputError("The model fixes no frame size, so a layer needs shape=(C, H, W) to be looked at.")
        name = self._layer if layer is None else layers.resolve(self.net, layer)
        key = (name, tuple(shape))
        if key not in self._layers:
            self._layers[key] = self._look(name, shape)
        return self._layers[key]

    def stages(self, last: layers.FeatureLayer, shape: tuple[int, ...], count: int) -> tuple[layers.FeatureLayer, ...]:
        """At most `count` layers for frames of `shape` ``(C, H, W)``: those before the feature layer `last`, and it."""
        key = (last.name, tuple(shape), count)
        if key not in self._stages:
            self._stages[key] = stages.find(self.net, *self._trial(shape), last, count)
        return self._stages[key]

    def _look(self, name: str | None, shape: tuple[int, ...]) -> layers.FeatureLayer:
        if not self.differentiable:
            raise InputError(f"{self.name} gives no gradients, so it has no feature layer. Use a gradient-free method.")
        if name is not None and self.reshape_transform is not None:
            grid = Grid("given", (0, 0), 0, transform=self.reshape_transform)
            return layers.FeatureLayer(name, grid, "chosen by the caller, laid out by reshape_transform")
        noise, run = self._trial(shape)
        if name is None:
            return layers.find(self.net, noise, run)
        return layers.describe(self.net, name, noise, run)

    def _trial(self, shape: tuple[int, ...]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """A frame of noise ``(1, *shape)`` and the net as a function of it: where features stand is asked of them."""
        noise = torch.rand((1, *shape), generator=torch.Generator().manual_seed(0)).to(self.device, self.dtype)
        awake = layers.awakened(self.net)

        def run(frame: Tensor) -> Tensor:
            with self._net_errors(frame):
                output = torch.func.functional_call(self.net, awake, (self._given(frame),))
                pixels = layers.first_tensor(output) if self.task == "segmentation" else None
                whole = pixels is not None and pixels.ndim == 4  # then scores (1, K): a grid of them is the answer
                return pixels.mean((2, 3)) if pixels is not None and whole else layers.trial_scores(output)

        return noise, run


def _black_box(given: Any, layer: Any, device: str | torch.device | None) -> BlackBox:
    """A callable as a module; what cannot be called with frames is refused."""
    if isinstance(given, type):
        raise InputError(f"Model: net must be a module or a function. Got the class {given.__name__}. Make one of it.")
    if not callable(given):
        raise InputError(
            f"Model: net must be a torch.nn.Module, or a function of frames (N, C, H, W). Got {type(given).__name__}."
        )
    if layer is not None:
        raise InputError("Model: a function has no layers. Leave layer out, or give the net itself.")
    return BlackBox(given, device=None if device is None else pick_device(device))


def pick_device(device: str | torch.device) -> torch.device:
    """ "auto" is the first accelerator there is, else the CPU; a device that is not there is refused."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"The device '{device}' cannot be used: {first}. Use device='auto' or 'cpu'.") from None
    return chosen


def _refuse_probabilities(scores: Tensor) -> None:
    """Scores that are non-negative with every row summing to 1 are probabilities, whatever was declared."""
    if scores.shape[1] > 1 and bool((scores >= 0).all()) and bool(((scores.sum(1) - 1).abs() < 1e-4).all()):
        raise InputError(
            "The net returns probabilities (every row sums to 1) where logits are needed. "
            "Leave out its softmax, or say output='probabilities'."
        )
