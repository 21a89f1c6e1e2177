"""A training step: loss, gradients, update; on a GPU recorded once an epoch and replayed."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from trainables.config import Device
from trainables.training.sgd import Sgd

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]

WARM_UP_STEPS = 2
"""Steps that run unrecorded, as libraries choose and allocate at their first calls what a recording may not."""


class Step(Protocol):
    """Moves the weights of a model by a batch."""

    def begin_epoch(self) -> None:
        """Called before the first step of each epoch; between two calls the model changes by its steps alone."""
        ...

    def __call__(self, images: Tensor, labels: Tensor, lr: float) -> Tensor:
        """The loss of the batch before the step, a scalar on the device that the next call may overwrite."""
        ...


class EagerStep:
    """One operation after the other."""

    def __init__(self, model: nn.Module, optimizer: Sgd, loss: Loss) -> None:
        self._model = model
        self._optimizer = optimizer
        self._loss = loss

    def begin_epoch(self) -> None:
        """Nothing is kept from step to step."""

    def __call__(self, images: Tensor, labels: Tensor, lr: float | Tensor) -> Tensor:
        """See `Step`."""
        loss = self._loss(self._model, images, labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step(lr)
        return loss.detach()


class RecordedStep:
    """The same operations as one CUDA graph, recorded anew each epoch.

    At the sizes of CIFAR the GPU waits for Python: a step of ResNet-18 is some 700 short kernels. A replay launches
    them all at once. What Python decides inside `loss` is decided when it is recorded; the first steps of an epoch run
    one operation after the other and count like any other.
    """

    def __init__(self, eager: EagerStep) -> None:
        self._eager = eager
        self._stream = torch.cuda.Stream()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._unrecorded = WARM_UP_STEPS

    def begin_epoch(self) -> None:
        """Forget the recording: a method may have changed the model."""
        self._graph = None
        self._unrecorded = WARM_UP_STEPS

    def __call__(self, images: Tensor, labels: Tensor, lr: float) -> Tensor:
        """See `Step`."""
        if self._unrecorded:
            self._unrecorded -= 1
            return self._apart(images, labels, lr)
        if self._graph is None:
            self._record(images, labels, lr)
        else:
            self._images.copy_(images)
            self._labels.copy_(labels)
            self._lr.fill_(lr)
        self._replay()
        return self._loss

    def _apart(self, images: Tensor, labels: Tensor, lr: float) -> Tensor:
        """A step on a stream of its own, as one before a recording must be."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            loss = self._eager(images, labels, lr)
        torch.cuda.current_stream().wait_stream(self._stream)
        return loss

    def _record(self, images: Tensor, labels: Tensor, lr: float) -> None:
        self._images, self._labels = images.clone(), labels.clone()
        self._lr = torch.tensor(lr, device=images.device)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._loss = self._eager(self._images, self._labels, self._lr)

    def _replay(self) -> None:
        if self._graph is not None:
            self._graph.replay()


def step_of(model: nn.Module, optimizer: Sgd, loss: Loss, device: Device) -> Step:
    """The fastest step of `device`."""
    eager = EagerStep(model, optimizer, loss)
    return RecordedStep(eager) if device == "cuda" else eager
