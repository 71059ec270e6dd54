"""ONNX files: a black box that gives scores and no gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..black_box import BlackBox
from ..errors import InputError, MissingExtra
from ..preprocess import Preprocess
from . import Opened

SPELLING = "FILE.onnx"


class Session:
    """An onnxruntime session as a function; one input, the first output; fixed batch sizes are met one by one."""

    def __init__(self, session: Any) -> None:
        self.session = session
        entry = session.get_inputs()[0]
        self.entry, self.shape = entry.name, tuple(entry.shape)
        self.exit = session.get_outputs()[0].name

    def __call__(self, x: Tensor) -> Any:
        """Scores of ``(N, C, H, W)``."""
        given_rows = x.cpu()
        fixed = self.shape[0] if isinstance(self.shape[0], int) else None
        parts = torch.split(given_rows, fixed) if fixed else (given_rows,)
        outputs = []
        for part in parts:
            short = 0 if fixed is None else fixed - len(part)
            given = torch.cat([part, part[-1:].expand(short, *part.shape[1:])]) if short else part
            outputs.append(self._run(given)[: len(part)])
        return np.concatenate(outputs)

    def _run(self, given: Tensor) -> Any:
        try:
            return self.session.run([self.exit], {self.entry: given.contiguous().numpy()})[0]
        except Exception as error:  # onnxruntime raises its own types, none of them public
            first = " ".join(str(error).split()).partition(" Please")[0]
            raise InputError(
                f"The ONNX file takes frames {self.shape} and refuses {tuple(given.shape)}: {first[:200]}. "
                "Give a preprocess that fits it."
            ) from None


def names() -> list[str]:
    """Any file."""
    return []


def answers(spec: str) -> bool:
    """``....onnx``."""
    return spec.lower().endswith(".onnx")


def open(spec: str, weights: str) -> Opened:
    """The session; a frame size fixed in the graph gives ImageNet's preprocessing unless another is named."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("Opening ONNX files", "onnxruntime", "onnx") from None
    if weights != "default":
        raise InputError("An ONNX file holds its own weights; leave --weights out.")
    if not Path(spec).is_file():
        raise InputError(f"No file '{spec}'.")
    try:
        session = onnxruntime.InferenceSession(spec, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own types, none of them public
        first = str(error).splitlines()[0]
        raise InputError(f"'{Path(spec).name}' is no readable ONNX file: {first[:200].rstrip(' .')}.") from None
    run = Session(session)
    preprocess = None
    if len(run.shape) == 4 and run.shape[1] == 3 and all(isinstance(s, int) for s in run.shape[2:]):
        side = (int(run.shape[2]), int(run.shape[3]))
        preprocess = Preprocess(side, round(min(side) / 0.875) if side[0] == side[1] else None)
    return Opened(BlackBox(run, name=Path(spec).name), preprocess, differentiable=False)
