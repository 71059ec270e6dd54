"""Trainers: the recorder as a callback of Lightning and of Hugging Face, neither of which needs to be installed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from .recorder import Recorder


def lightning(recorder: Recorder) -> Any:
    """A callback that records at the end of every training epoch, on the first process."""

    def on_train_epoch_end(_self: Any, trainer: Any, pl_module: nn.Module, *_rest: Any) -> None:
        if trainer.is_global_zero:
            _refuse_other(recorder, pl_module)
            recorder.step(trainer.current_epoch)

    return _callback(("lightning.pytorch", "pytorch_lightning"), "Callback", on_train_epoch_end)


def hugging_face(recorder: Recorder) -> Any:
    """A callback that records at the end of every epoch, on the first process."""

    def on_epoch_end(_self: Any, _args: Any, state: Any, _control: Any, model: Any = None, **_rest: Any) -> None:
        if state.is_world_process_zero:
            _refuse_other(recorder, model)
            recorder.step(round(state.epoch))

    return _callback(("transformers",), "TrainerCallback", on_epoch_end)


def _callback(modules: tuple[str, ...], base: str, hook: Any) -> Any:
    """An object with this hook, of the trainer's own class where that package is loaded: it asks for that."""
    bases = tuple(getattr(sys.modules[name], base) for name in modules if name in sys.modules)
    return type("RecorderCallback", bases or (object,), {hook.__name__: hook, "__doc__": "Records each epoch."})()


def _refuse_other(recorder: Recorder, trained: Any) -> None:
    """Refuse to record a net that is not the one in training."""
    own = {id(parameter) for parameter in recorder.model.net.parameters()}
    if trained is not None and not any(id(parameter) in own for parameter in trained.parameters()):
        raise InputError(
            "Recorder: it holds another net than the one in training. Give it the module that the trainer trains."
        )
