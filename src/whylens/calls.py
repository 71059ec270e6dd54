"""Calls of torch functions: read once, repeated with other arguments, told apart by their plain names.

One name stands for every spelling: ``x.add_(y)``, ``x += y``, ``torch.add(x, y)`` and ``x + y`` are all "add".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Call:
    """One call of a torch function: its plain name, whether it writes into its first argument, its arguments."""

    function: Callable[..., Any]
    name: str
    in_place: bool
    args: tuple[Any, ...]
    options: dict[str, Any]

    @classmethod
    def read(cls, function: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Call:
        """The call that torch is about to make."""
        spelled = getattr(function, "__name__", "")
        writes = spelled.endswith("_") and not spelled.endswith("__")
        name = spelled.strip("_") if spelled != "__get__" else "__get__"
        return cls(function, name, writes or bool(options.get("inplace", False)), args, options)

    def argument(self, place: int, *names: str) -> Any:
        """An argument by place or by name."""
        if len(self.args) > place:
            return self.args[place]
        return next((self.options[n] for n in names if n in self.options), None)

    def __call__(self) -> Any:
        """The result as torch gives it."""
        return self.function(*self.args, **self.options)

    def value(self) -> Tensor:
        """The result in memory of its own; the arguments stay as they are."""
        args = (self.args[0].clone(), *self.args[1:]) if self.in_place else self.args
        result: Tensor = self.function(*args, **self.options)
        return result.clone() if any(result is given for given in args) and not self.in_place else result

    def replaced(self, place: int, names: tuple[str, ...], value: Any) -> Call:
        """The call with another argument there."""
        if len(self.args) > place:
            args = (*self.args[:place], value, *self.args[place + 1 :])
            return Call(self.function, self.name, self.in_place, args, self.options)
        name = next((n for n in names if n in self.options), names[0])
        return Call(self.function, self.name, self.in_place, self.args, {**self.options, name: value})


def tensors(value: Any) -> list[Tensor]:
    """Every tensor in nested lists, tuples and mappings."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors(v)]
    return [t for v in value for t in tensors(v)] if isinstance(value, tuple | list) else []


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


ELEMENTWISE = _names(
    "relu relu6 hardtanh clamp clamp_min clamp_max clip threshold leaky_relu elu selu celu silu mish gelu hardswish "
    "hardsigmoid softplus softsign logsigmoid prelu rrelu hardshrink softshrink tanhshrink sigmoid tanh erf exp log "
    "sqrt rsqrt square pow abs neg softmax log_softmax batch_norm layer_norm group_norm instance_norm rms_norm "
    "local_response_norm normalize dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout"
)
QUOTIENTS = _names("div divide true_divide rdiv")
ARITHMETIC = QUOTIENTS | _names("add sub subtract rsub mul multiply")
AFFINE = _names("linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d")
FIXED = _names(
    "mean sum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
    "interpolate upsample roi_pool"
)
PRODUCTS = _names("matmul bmm mm mv einsum")
ROUTING = _names(
    "__get__ getitem setitem view view_as reshape reshape_as flatten unflatten permute transpose t swapaxes swapdims "
    "movedim moveaxis squeeze unsqueeze expand expand_as broadcast_to repeat repeat_interleave tile cat concat "
    "concatenate stack hstack vstack dstack chunk split split_with_sizes tensor_split unbind narrow select "
    "index_select gather take_along_dim roll flip rot90 contiguous clone to type float double half bfloat16 type_as "
    "detach requires_grad pad pixel_shuffle pixel_unshuffle channel_shuffle unfold max_pool1d max_pool2d max_pool3d "
    "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d max_pool1d_with_indices max_pool2d_with_indices "
    "max_pool3d_with_indices adaptive_max_pool2d_with_indices max amax maximum min amin minimum topk sort where "
    "masked_fill copy index_put scatter register_hook retain_grad set_grad_enabled"
)
UNSEEN = _names(
    "Convolution Addmm Mm Bmm Add Sub Mul Div Mean Sum Relu Silu Sigmoid Gelu NativeBatchNorm NativeLayerNorm "
    "AvgPool2D AdaptiveAvgPool2D Softmax DifferentiableGraph"
)
"""Nodes of calls that the mode changes where it sees them: in a graph they come from parts that torch compiled."""
