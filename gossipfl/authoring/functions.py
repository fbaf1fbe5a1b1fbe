"""The five functions of a bundle, written in torch over one flat parameter vector.

Losses are log_softmax and gather, never `cross_entropy`: its export is wrong without a word.
A weight of 0 marks padding, so partial batches and Poisson samples need no dynamic shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from gossipfl.bundle.manifest import Task

Function = Callable[..., tuple[Tensor, ...] | Tensor]


class FlatModel:
    """A module whose parameters are slices of one float32 vector, in `named_parameters` order."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self.named = [(name, tuple(p.shape)) for name, p in module.named_parameters()]
        self._sizes = [p.numel() for _, p in module.named_parameters()]

    @property
    def count(self) -> int:
        return sum(self._sizes)

    def pack(self) -> Tensor:
        """The module's current parameters as the flat vector."""
        return torch.cat([p.detach().reshape(-1) for p in self.module.parameters()])

    def call(self, flat: Tensor, x: Tensor) -> Tensor:
        """The module's output with its parameters taken from `flat`."""
        pieces = torch.split(flat, self._sizes)
        named = {
            name: piece.reshape(shape)
            for (name, shape), piece in zip(self.named, pieces, strict=True)
        }
        output: Tensor = functional_call(self.module, named, (x,))
        return output


def example_losses(task: Task, output: Tensor, y: Tensor) -> Tensor:
    """float32[B]: negative log likelihood, or half the mean squared error, of each example."""
    if task is Task.REGRESSION:
        losses = 0.5 * (output - y) * (output - y)
    else:
        log_p = torch.log_softmax(output, -1)
        losses = -log_p.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    return _mean_of_rest(losses)


def example_correct(task: Task, output: Tensor, y: Tensor) -> Tensor:
    """float32[B]: share of right answers in each example; 0 for regression (no such thing)."""
    if task is Task.REGRESSION:
        return torch.zeros_like(output.reshape(output.shape[0], -1)[:, 0])
    return _mean_of_rest((output.argmax(-1) == y).to(torch.float32))


def _mean_of_rest(values: Tensor) -> Tensor:
    """The mean over all axes but the first."""
    return values if values.dim() == 1 else values.reshape(values.shape[0], -1).mean(1)


@dataclass(frozen=True, slots=True)
class Functions:
    """What is exported: each takes tensors only and has static shapes.

    gradient(params, x, y, w) -> grads, loss          gradient of sum(w l) / max(sum w, 1)
    per_example(params, x, y, w, clip) -> grad_sum, loss   each example's gradient clipped in L2
    single(params, x, y) -> grads, loss                of one example, for the Scan form
    evaluate(params, x, y, w) -> loss_sum, correct
    predict(params, x) -> logits
    """

    gradient: Function
    per_example: Function
    single: Function
    evaluate: Function
    predict: Function


CLIP_EPSILON = 1e-6  # keeps a zero gradient from dividing by zero; Opacus uses the same


def functions(model: FlatModel, task: Task) -> Functions:
    """The functions of `model` for `task`."""

    def mean_loss(params: Tensor, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        losses = example_losses(task, model.call(params, x), y)
        return (losses * w).sum() / w.sum().clamp(min=1.0)

    def one_loss(params: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return example_losses(task, model.call(params, x[None]), y[None]).sum()

    def gradient(params: Tensor, x: Tensor, y: Tensor, w: Tensor) -> Any:
        return grad_and_value(mean_loss)(params, x, y, w)

    def single(params: Tensor, x: Tensor, y: Tensor) -> Any:
        return grad_and_value(one_loss)(params, x, y)

    def per_example(params: Tensor, x: Tensor, y: Tensor, w: Tensor, clip: Tensor) -> Any:
        grads, losses = vmap(grad_and_value(one_loss), (None, 0, 0))(params, x, y)
        norms = (grads * grads).sum(-1).sqrt()
        factor = w * torch.clamp(clip / (norms + CLIP_EPSILON), max=1.0)
        return factor @ grads, (losses * w).sum() / w.sum().clamp(min=1.0)

    def evaluate(params: Tensor, x: Tensor, y: Tensor, w: Tensor) -> Any:
        output = model.call(params, x)
        loss_sum = (example_losses(task, output, y) * w).sum()
        return loss_sum, (example_correct(task, output, y) * w).sum()

    def predict(params: Tensor, x: Tensor) -> Tensor:  # a bound method would confuse make_fx
        return model.call(params, x)

    return Functions(gradient, per_example, single, evaluate, predict)
