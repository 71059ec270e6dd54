"""Weights from a file: safetensors, or what torch reads without unpickling objects. Nothing else is ever executed."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError

_WRAPPERS = ("state_dict", "model_state_dict", "model", "model_state", "net", "weights")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")


def read(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by name, freed of the wrappers that training loops put around them.

    Raises InputError for a damaged file, and for a pickle of objects with the way to convert it.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise InputError(f"weights: '{path.name}' is no readable safetensors file: {error}.") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is in the file is not ours: a damaged one makes torch raise anything
        raise InputError(f"weights: '{path.name}' {_refusal(path, error)}") from None
    return _unwrapped(held, path.name)


def _refusal(path: Path, error: Exception) -> str:
    """Why torch does not read a file, and the way out."""
    try:
        with path.open("rb") as file:
            head = file.read(2)
    except OSError as closed:
        return f"cannot be read: {closed.strerror or closed}."
    if "TorchScript" in str(error):
        return "is a TorchScript program, not a state dict. Convert it: torch.save(program.state_dict(), 'weights.pt')."
    if isinstance(error, pickle.UnpicklingError) and head in (
        b"PK",
        b"\x80\x02",
        b"\x80\x03",
        b"\x80\x04",
        b"\x80\x05",
    ):
        return (
            "holds pickled objects, not tensors alone; opening it could run any code. "
            "Where you trust it, convert it once: torch.save(net.state_dict(), 'weights.pt')."
        )
    return "is damaged, cut short, or no file of torch.save. Fetch it again, or save net.state_dict()."


def _unwrapped(held: Any, name: str) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    if not isinstance(held, Mapping) or not held or not all(isinstance(v, Tensor) for v in held.values()):
        raise InputError(f"weights: '{name}' holds no state dict (names and tensors). Save net.state_dict().")
    return {str(k): v for k, v in held.items()}


def _bare(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes of wrappers around the net, one inside the other, until a name fits."""
    while not set(state) & set(own):
        prefix = next((p for p in _PREFIXES if all(k.startswith(p) for k in state)), None)
        if prefix is None:
            break
        state = {k.removeprefix(prefix): v for k, v in state.items()}
    return state


def fill(make: Callable[[int | None], nn.Module], path: str | Path) -> nn.Module:
    """A net made by ``make(classes)`` with the weights of a file; a head of another size is made to fit.

    Raises InputError naming the first entries that do not match.
    """
    state, name = read(path), Path(path).name
    net = make(None)
    own = net.state_dict()
    state = _bare(state, own)
    unlike = [k for k in own if k in state and own[k].shape != state[k].shape]
    heads = {state[k].shape[0] for k in unlike if own[k].shape[1:] == state[k].shape[1:]}
    if heads and all(size % min(heads) == 0 for size in heads):  # a detector's box head has four values per class
        net = make(min(heads))
        own = net.state_dict()
        unlike = [k for k in own if k in state and own[k].shape != state[k].shape]
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    missing = [k for k in missing if not k.endswith("num_batches_tracked")]
    for problem, keys in (("lacks", missing), ("has unknown", extra), ("has other shapes for", unlike)):
        if keys:
            listed = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise InputError(f"weights: '{name}' does not fit this net: it {problem} {listed}.")
    net.load_state_dict(state, strict=False)
    return net
