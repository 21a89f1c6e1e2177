"""The contract of a compression method: a small object that fills some hooks."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainables.data.samples import CALIBRATION_IMAGES
from trainables.models.compact import Compact


class Method:
    """Hooks around the training loop; each does nothing unless a method fills it.

    They are called in the order in which they stand here. What a hook keeps from one epoch to a later one lies in
    buffers of the model, or follows from the number of the epoch before which `before_epoch` is called: a training
    that was stopped goes on with the buffers as they were and a method that has seen `transform` and `calibrate`
    alone. It may not read or set any global state, randomness included: what it draws comes from `self.seed` and the
    stream "method".

    Attributes:
        seed: of the trial, set before any hook is called.
        calibration_images: how many training images `calibrate` sees at most.

    """

    seed: int = 0
    calibration_images: int = CALIBRATION_IMAGES

    def chosen_images(self, available: int) -> Tensor | None:
        """Which of the `available` training images the method may see, int64; None: all.

        Raises:
            InfeasibleError: it needs more than there are.

        """
        return None

    def apart_images(self, available: int) -> Tensor | None:
        """Which others `judge` sees and nothing else does, int64; None: none, and `judge` is not called."""
        return None

    def transform(self, model: nn.Module, example: Tensor) -> None:
        """Change the dense network in place before training; `example` is one image, shape (1, C, H, W)."""

    def calibrate(self, model: nn.Module, images: Tensor) -> None:
        """See a few normalised training images, shape (N, C, H, W), before the first step."""

    def judge(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        """See the images that are set apart, normalised, (N, C, H, W), before the first step; labels (N,)."""

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Called before epoch `epoch` (from 0) of `epochs`; may put other layers or parameters into the model.

        New parameters are trained from then on, beginning with no momentum; `adopt` has to tell them from a checkpoint.
        """

    def adopt(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Give the model the structure that it had when `tensors`, its parameters and buffers by name, were stored.

        Called after `transform` and `calibrate` where a training goes on. Only a method whose `before_epoch` changes
        the structure has to fill it; the values are set afterwards.
        """

    def loss(self, model: nn.Module, images: Tensor, logits: Tensor, task: Tensor) -> Tensor:
        """What a step minimises, a scalar: the task's loss `task`, or it and more.

        `images` (N, C, H, W) are the step's, normalised; `logits` (N, classes) what `model` gave for them.

        On a GPU the first two steps of each epoch call this; a third call is recorded, and replayed from then on. What
        Python decides in it is decided then, so it may not count calls; `after_step` is called after every step.
        """
        return task

    def after_step(self, model: nn.Module, lr: float) -> None:
        """Called after each optimizer step, which had the rate `lr`."""

    def after_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Called after epoch `epoch` (from 0) of `epochs`."""

    def protected(self, epoch: int, epochs: int) -> bool:
        """Whether the network after epoch `epoch` (from 0) of `epochs` says little of what it will be at the end.

        While it does, no study may stop a trial for being worse than others.
        """
        return False

    @torch.no_grad()
    def finalize(self, model: nn.Module) -> Compact:
        """The trained network without what training alone needed; its outputs in eval mode are unchanged."""
        return Compact(model)
