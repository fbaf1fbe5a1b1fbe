"""How the backward passes of convolution and pooling are written with operators that ONNX has.

torch's own core_aten table leaves `convolution_backward` and the pooling backwards whole, and the
ONNX exporter then writes something else without a word. Each function here has the signature of
the aten operator that it replaces. A case that is not covered raises `Unsupported`, never guesses;
the self-check (`selfcheck.py`) is the second net.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch._decomp import core_aten_decompositions

aten = torch.ops.aten
Tensor = torch.Tensor


class Unsupported(Exception):
    """The model uses a form of an operator that has no decomposition here."""


def table() -> dict[Any, Callable[..., Any]]:
    """The decompositions handed to `make_fx`: core_aten plus the ones of this module."""
    merged = dict(core_aten_decompositions())
    merged[aten.convolution_backward.default] = convolution_backward
    merged[aten.max_pool2d_with_indices.default] = max_pool2d_with_indices
    merged[aten.max_pool2d_with_indices_backward.default] = max_pool2d_backward
    merged[aten.avg_pool2d_backward.default] = avg_pool2d_backward
    merged[aten.empty_permuted.default] = empty_permuted
    return merged


def empty_permuted(size: Sequence[int], order: Sequence[int], **options: Any) -> Tensor:
    """Memory that is about to be overwritten: zeros are one of the values it may hold."""
    return torch.zeros(size, dtype=options.get("dtype") or torch.float32)


def convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of an ordinary convolution of any rank: (input, weight, bias) as asked for."""
    if transposed:
        raise Unsupported("a transposed convolution (ConvTranspose) has no backward here")
    space = range(x.dim() - 2)
    grad_x = grad_weight = grad_bias = None
    if output_mask[0]:
        missing = [
            x.shape[2 + i]
            - (
                (grad.shape[2 + i] - 1) * stride[i]
                - 2 * padding[i]
                + dilation[i] * (weight.shape[2 + i] - 1)
                + 1
            )
            for i in space
        ]
        grad_x = aten.convolution(
            grad, weight, None, stride, padding, dilation, True, missing, groups
        )
    if output_mask[1]:
        if groups == 1:
            grad_weight = _weight_gradient(grad, x, weight, stride, padding, dilation)
        else:
            grad_weight = _grouped_weight_gradient(
                grad, x, weight, stride, padding, dilation, groups
            )
    if output_mask[2]:
        grad_bias = grad.sum([0, *(2 + i for i in space)])
    return grad_x, grad_weight, grad_bias


def _weight_gradient(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """dW[o,i,k] = sum over n,p of grad[n,o,p] x[n,i,p*stride + k*dilation - padding]

    which is a convolution with batch and channels, and stride and dilation, changing places.
    """
    result = aten.convolution(
        x.transpose(0, 1),
        grad.transpose(0, 1),
        None,
        dilation,
        padding,
        stride,
        False,
        [0] * (x.dim() - 2),
        1,
    )
    for axis in range(2, weight.dim()):  # a stride that does not divide leaves extra taps
        result = result.narrow(axis, 0, weight.shape[axis])
    gradient: Tensor = result.transpose(0, 1)
    return gradient


def _grouped_weight_gradient(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """The same for groups (and for vmap, which turns examples into groups): im2col, then matmul."""
    rank = x.dim() - 2
    pads = [amount for i in reversed(range(rank)) for amount in (padding[i], padding[i])]
    padded = functional.pad(x, pads)
    out = grad.shape[2:]
    columns = []
    for tap in _taps(weight.shape[2:]):
        window = padded
        for i in range(rank):
            start = tap[i] * dilation[i]
            window = _strided(window, 2 + i, start, out[i], stride[i])
        columns.append(window)
    batch, places = x.shape[0], int(torch.Size(out).numel())
    per_group = weight.shape[1] * len(columns)
    stacked = torch.stack(columns, 2).reshape(batch, groups, per_group, places)
    grad = grad.reshape(batch, groups, weight.shape[0] // groups, places)
    return (grad @ stacked.transpose(-1, -2)).sum(0).reshape(weight.shape)


def max_pool2d_with_indices(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """Max of the window's taps. The indices are a dummy: only the backward here reads them."""
    window = _Window.of(kernel, stride, padding, dilation, ceil_mode)
    best: Tensor | None = None
    for tap in window.slices(x):
        best = tap if best is None else torch.maximum(best, tap)
    if best is None:
        raise Unsupported("a pooling window without elements")
    return best, torch.zeros_like(best, dtype=torch.int64)


def max_pool2d_backward(
    grad: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """The gradient goes to the first tap that holds the maximum, as torch's own kernel does.

    Ties are the rule after a ReLU (zeros), so "first wins" is not a detail.
    """
    window = _Window.of(kernel, stride, padding, dilation, ceil_mode)
    best, _ = max_pool2d_with_indices(x, kernel, stride, padding, dilation, ceil_mode)
    zero = torch.zeros((), dtype=grad.dtype)
    taken: Tensor | None = None
    parts = []
    for tap in window.slices(x):
        equal = tap == best
        first = equal if taken is None else equal & ~taken
        taken = equal if taken is None else taken | equal
        parts.append(torch.where(first, grad, zero))
    return window.scatter(parts, x)


def avg_pool2d_backward(
    grad: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """Each tap of a window gets an equal share of its gradient."""
    window = _Window.of(kernel, stride, padding, (1,), ceil_mode)
    if any(window.padding) and not count_include_pad:
        raise Unsupported("average pooling with padding and count_include_pad=False")
    share = grad / (divisor or window.kernel[0] * window.kernel[1])
    return window.scatter([share] * (window.kernel[0] * window.kernel[1]), x)


class _Window:
    """A 2-D pooling window: cuts an image into one strided slice per tap, and back."""

    def __init__(
        self,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> None:
        self.kernel, self.stride, self.padding, self.dilation = kernel, stride, padding, dilation

    @classmethod
    def of(
        cls,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        ceil_mode: bool,
    ) -> _Window:
        if ceil_mode:
            raise Unsupported("pooling with ceil_mode=True")
        return cls(_pair(kernel), _pair(stride or kernel), _pair(padding), _pair(dilation))

    def places(self, x: Tensor) -> tuple[int, int]:
        """Height and width of the output."""
        sizes = []
        for i in range(2):
            room = x.shape[-2 + i] + 2 * self.padding[i]
            sizes.append((room - self.dilation[i] * (self.kernel[i] - 1) - 1) // self.stride[i] + 1)
        return sizes[0], sizes[1]

    def slices(self, x: Tensor) -> list[Tensor]:
        """One [..., places] slice per tap, in row-major order. Padding is minus infinity."""
        if any(self.padding):
            high, wide = self.padding
            x = functional.pad(x, [wide, wide, high, high], value=float("-inf"))
        high, wide = _Window(self.kernel, self.stride, (0, 0), self.dilation).places(x)
        found = []
        for row, column in _taps(self.kernel):
            part = _strided(x, -2, row * self.dilation[0], high, self.stride[0])
            found.append(_strided(part, -1, column * self.dilation[1], wide, self.stride[1]))
        return found

    def scatter(self, parts: list[Tensor], x: Tensor) -> Tensor:
        """The transpose of `slices`: adds each tap's [..., places] values to where they came from.

        Windows that tile the image are one reshape. Others are spread by zeros and added up.
        """
        high, wide = self.places(x)
        lead = list(x.shape[:-2])
        if self.kernel == self.stride and not any(self.padding) and self.dilation == (1, 1):
            rows, columns = self.kernel
            stacked = torch.stack(parts, -1).reshape(*lead, high, wide, rows, columns)
            tiled = stacked.transpose(-3, -2).reshape(*lead, high * rows, wide * columns)
            return _fit(tiled, x.shape[-2], x.shape[-1], 0, 0)
        total: Tensor | None = None
        for (row, column), part in zip(_taps(self.kernel), parts, strict=True):
            spread = _spread(part, self.stride)
            placed = _fit(
                spread,
                x.shape[-2] + 2 * self.padding[0],
                x.shape[-1] + 2 * self.padding[1],
                row * self.dilation[0],
                column * self.dilation[1],
            )
            total = placed if total is None else total + placed
        if total is None:
            raise Unsupported("a pooling window without elements")
        total = total.narrow(-2, self.padding[0], x.shape[-2])
        return total.narrow(-1, self.padding[1], x.shape[-1])


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return (values[0], values[-1])


def _taps(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """All index tuples below `sizes`, row-major."""
    found: list[tuple[int, ...]] = [()]
    for size in sizes:
        found = [(*tap, i) for tap in found for i in range(size)]
    return found


def _strided(x: Tensor, axis: int, start: int, count: int, step: int) -> Tensor:
    """`count` elements along `axis` from `start`, every `step`-th."""
    part: Tensor = aten.slice(x, axis, start, start + (count - 1) * step + 1, step)
    return part


def _spread(x: Tensor, stride: tuple[int, int]) -> Tensor:
    """Puts stride - 1 zeros after each row and column."""
    lead, (high, wide) = list(x.shape[:-2]), (x.shape[-2], x.shape[-1])
    x = x.reshape(*lead, high, 1, wide, 1)
    x = functional.pad(x, [0, stride[1] - 1, 0, 0, 0, stride[0] - 1])
    return x.reshape(*lead, high * stride[0], wide * stride[1])


def _fit(x: Tensor, high: int, wide: int, top: int, left: int) -> Tensor:
    """`x` moved down by `top` and right by `left` on zeros of [..., high, wide], cut to fit."""
    x = x.narrow(-2, 0, min(x.shape[-2], high - top))
    x = x.narrow(-1, 0, min(x.shape[-1], wide - left))
    below, beside = high - top - x.shape[-2], wide - left - x.shape[-1]
    if not (top or left or below or beside):
        return x
    return functional.pad(x, [left, beside, top, below])
