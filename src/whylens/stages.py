"""Stages: where features stand before the feature layer, one layer for each earlier resolution.

The rule, on the same trial run as that of the feature layer:

1. A module whose output is a grid, that runs once, is more than pooling, and gives its output before the feature layer
   does, is a candidate. It is a stage only if all that the scores know of the frame passes through it: with its output
   held still, another frame gives the same scores. A branch beside a shortcut is none.
2. Of each finer resolution the last such candidate is taken, the nearest resolutions to the feature layer first.
3. Where there is no finer one (ViT), the outermost candidates of the same resolution are, evenly spaced.
4. Where there are none, the feature layer is alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ._state import as_found, hooked
from .errors import InputError
from .grid import Size
from .layers import FeatureLayer, _is_no_feature, _same_memory, _Seen, _trial, with_first

Run = Callable[[Tensor], Tensor]


def find(net: nn.Module, frame: Tensor, run: Run, last: FeatureLayer, count: int) -> tuple[FeatureLayer, ...]:
    """At most `count` layers in order of execution, the feature layer `last` at the end.

    `run` maps ``(1, C, H, W)`` to scores ``(1, K)``, as in `layers.find`.
    """
    seen, scores = _trial(net, frame, run, (int(frame.shape[-2]), int(frame.shape[-1])))
    features = next((s for s in seen if s.name == last.name), None)
    if count < 2 or features is None or features.grid is None:
        return (last,)
    earlier = _earlier(seen, features)
    sizes = dict.fromkeys(_size(s) for s in earlier if _cells(s) > _cells(features))
    chosen: list[_Seen] = []
    for size in sorted(sizes, key=lambda s: s[0] * s[1]):
        same = sorted((s for s in earlier if _size(s) == size), key=lambda s: -s.left)
        chosen = [*_through(net, frame, run, scores, same), *chosen]
        if len(chosen) == count - 1:
            break
    if not sizes:
        blocks = list(_through(net, frame, run, scores, _outermost(earlier, features), every=True))
        chosen = _spaced(blocks, count - 1)
    return (*(_layer(call) for call in chosen), last)


def _earlier(seen: list[_Seen], features: _Seen) -> list[_Seen]:
    """Candidates that gave their output before the feature layer had its own; of several names the outermost."""
    calls = Counter(s.name for s in seen)
    made = min(s.left for s in seen if _same_memory(s.output, features.output))
    done = [s for s in seen if s.left < made and s.grid is not None and calls[s.name] == 1]
    done = [s for s in done if not (_is_no_feature(s) or s.passes_on())]
    return [s for s in done if not any(_same_memory(s.output, o.output) and s.left < o.left for o in done)]


def _through(
    net: nn.Module, frame: Tensor, run: Run, scores: Tensor, calls: Iterable[_Seen], every: bool = False
) -> Iterable[_Seen]:
    """The first of these calls, or every one, through which all that the scores know of the frame passes."""
    for call in calls:
        value = call.output.detach()

        def hold(_module: nn.Module, _inputs: Any, output: Any, value: Tensor = value) -> Any:
            return with_first(output, value.clone())

        with as_found(net), torch.no_grad(), hooked({call.module: hold}):
            held = run(frame.flip(-1, -2) * 0.5)
        if torch.allclose(held, scores, rtol=1e-4, atol=1e-6):
            yield call
            if not every:
                return


def _outermost(calls: list[_Seen], features: _Seen) -> list[_Seen]:
    same = [s for s in calls if _size(s) == _size(features)]
    return [s for s in same if not any(s.name.startswith(other.name + ".") for other in same)]


def _spaced(calls: list[_Seen], count: int) -> list[_Seen]:
    """So many of the calls, evenly spaced, the last among them."""
    places = torch.linspace(0, len(calls), min(count, len(calls)) + 1)[1:].round().long() - 1
    return [calls[k] for k in places.tolist()]


def _size(call: _Seen) -> Size:
    return call.grid.size if call.grid is not None else (0, 0)


def _cells(call: _Seen) -> int:
    return _size(call)[0] * _size(call)[1]


def _layer(call: _Seen) -> FeatureLayer:
    grid = call.grid
    if grid is None:
        raise InputError(f"The layer '{call.name}' gives no grid.")
    return FeatureLayer(call.name, grid, f"{grid.size[0]} x {grid.size[1]} grid through which the scores pass whole")
