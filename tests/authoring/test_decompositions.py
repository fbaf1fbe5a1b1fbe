"""The own backward passes against torch's, on every form that they claim to cover."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from gossipfl.authoring import decompositions as own  # noqa: E402

functional = torch.nn.functional
CASES = list(
    itertools.product(
        [(2, 2), (3, 3), (3, 2)],  # kernel
        [(1, 1), (2, 2), (3, 1)],  # stride
        [(0, 0), (1, 1)],  # padding
        [(1, 1), (2, 1)],  # dilation
    )
)


def picture(*shape: int, ties: bool = False) -> Any:
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(shape, generator=generator)
    return torch.relu(x).round(decimals=0) if ties else x


def gradients(output: Any, inputs: list[Any]) -> tuple[Any, list[Any]]:
    """A random output gradient and what torch's autograd makes of it."""
    generator = torch.Generator().manual_seed(7)
    grad = torch.randn(output.shape, generator=generator)
    return grad, list(torch.autograd.grad(output, inputs, grad))


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), CASES)
@pytest.mark.parametrize("size", [(8, 8), (9, 7)])
@pytest.mark.parametrize("ties", [False, True])
def test_max_pool(
    kernel: Any, stride: Any, padding: Any, dilation: Any, size: Any, ties: bool
) -> None:
    x = picture(2, 3, *size, ties=ties).requires_grad_(True)
    output = functional.max_pool2d(x, kernel, stride, padding, dilation)
    grad, (expected,) = gradients(output, [x])
    found, dummy = own.max_pool2d_with_indices(x.detach(), kernel, stride, padding, dilation)
    assert torch.equal(found, output)
    back = own.max_pool2d_backward(
        grad, x.detach(), kernel, stride, padding, dilation, False, dummy
    )
    torch.testing.assert_close(back, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [c[:3] for c in CASES[::2]])
@pytest.mark.parametrize("size", [(8, 8), (9, 7)])
def test_average_pool(kernel: Any, stride: Any, padding: Any, size: Any) -> None:
    x = picture(2, 3, *size).requires_grad_(True)
    grad, (expected,) = gradients(functional.avg_pool2d(x, kernel, stride, padding), [x])
    back = own.avg_pool2d_backward(grad, x.detach(), kernel, stride, padding, False, True, None)
    torch.testing.assert_close(back, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), CASES)
def test_convolution_in_two_dimensions(
    groups: int, kernel: Any, stride: Any, padding: Any, dilation: Any
) -> None:
    _convolution(functional.conv2d, (8, 9), kernel, stride, padding, dilation, groups)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (3, 2, 2)])
def test_convolution_in_one_dimension(
    groups: int, stride: int, padding: int, dilation: int
) -> None:
    _convolution(functional.conv1d, (16,), (3,), (stride,), (padding,), (dilation,), groups)


def _convolution(
    convolve: Any, size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> None:
    x = picture(2, 4, *size).requires_grad_(True)
    weight = picture(8, 4 // groups, *kernel).requires_grad_(True)
    bias = picture(8).requires_grad_(True)
    output = convolve(x, weight, bias, stride, padding, dilation, groups)
    grad, expected = gradients(output, [x, weight, bias])
    with torch.no_grad():
        found = own.convolution_backward(
            grad,
            x,
            weight,
            [8],
            stride,
            padding,
            dilation,
            False,
            [0] * len(size),
            groups,
            [True, True, True],
        )
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_what_is_not_covered_says_so() -> None:
    x = picture(1, 1, 5, 5)
    with pytest.raises(own.Unsupported, match="ceil_mode"):
        own.max_pool2d_with_indices(x, (2, 2), (2, 2), (0, 0), (1, 1), True)
    with pytest.raises(own.Unsupported, match="count_include_pad"):
        own.avg_pool2d_backward(x, x, (2, 2), (2, 2), (1, 1), False, False, None)
    with pytest.raises(own.Unsupported, match="transposed"):
        own.convolution_backward(
            x, x, x, None, (1, 1), (0, 0), (1, 1), True, (0, 0), 1, (True,) * 3
        )
