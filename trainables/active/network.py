"""The selection network as strategies see it: what it says of images, read once, and what its training shows."""

import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.active.scoring import read_pool
from trainables.config import Device, Precision
from trainables.data.load import Dataset
from trainables.errors import DivergedError
from trainables.models.build import last_layer

UNREAD = -1


class ReadNetwork:
    """A trained network that reads images once, when they are first asked for; see `trainables.active.pool.Network`.

    Args:
        model: trained.
        data: its training images, at the size the network was trained at.
        device: where it reads.
        precision: of reading.
        features: whether they will be asked for.
        dropout: share of the features that `dropout_logits` drops.
        flips: see `Network.flips`, for all training images (N,); None where nobody counted.

    """

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        *,
        device: Device,
        precision: Precision,
        features: bool,
        dropout: float,
        flips: Tensor | None,
    ) -> None:
        self.seconds = 0.0
        self._model = model
        self._data = data
        self._device: Device = device
        self._precision: Precision = precision
        self._reads_features = features
        self._dropout = dropout
        self._flips = flips
        self._rows = torch.full((len(data.train),), UNREAD)
        self._logits = torch.empty(0, data.classes)
        self._features: Tensor | None = None

    def logits(self, indices: Tensor) -> Tensor:
        """See `Network.logits`."""
        rows = self._read(indices)
        return self._logits[rows]

    def features(self, indices: Tensor) -> Tensor:
        """See `Network.features`."""
        rows = self._read(indices)
        if self._features is None:
            msg = "the images were read without features; ReadNetwork(features=True)"
            raise RuntimeError(msg)
        return self._features[rows]

    def dropout_logits(self, indices: Tensor, passes: int, source: torch.Generator) -> Tensor:
        """See `Network.dropout_logits`."""
        features, last = self.features(indices), self._last()
        weight = last.get_parameter("weight").detach().cpu().float()
        bias = dict(last.named_parameters()).get("bias")
        shift = None if bias is None else bias.detach().cpu().float()
        start = time.perf_counter()
        kept = 1 - self._dropout
        drawn = (features * (torch.rand(features.shape, generator=source) < kept).div(kept) for _ in range(passes))
        found = torch.stack([F.linear(part, weight, shift) for part in drawn])
        self.seconds += time.perf_counter() - start
        return found

    def flips(self, indices: Tensor) -> Tensor:
        """See `Network.flips`."""
        if self._flips is None:
            msg = "nobody counted the changes of predicted classes"
            raise RuntimeError(msg)
        return self._flips[indices]

    def _last(self) -> nn.Module:
        return self._model.get_submodule(last_layer(self._model))

    def _read(self, indices: Tensor) -> Tensor:
        """The rows of `indices`; those not yet read are read."""
        unread = indices[self._rows[indices] == UNREAD].unique()
        if len(unread):
            start = time.perf_counter()
            reading = read_pool(
                self._model,
                self._data.train.images[unread],
                self._data,
                precision=self._precision,
                device=self._device,
                features=self._reads_features,
            )
            self._keep(unread, reading.logits, reading.features)
            self.seconds += time.perf_counter() - start
        return self._rows[indices]

    def _keep(self, indices: Tensor, logits: Tensor, features: Tensor | None) -> None:
        if not bool(logits.isfinite().all()):
            msg = "the selection network gives scores that are no numbers; try a smaller lr"
            raise DivergedError(msg)
        self._rows[indices] = torch.arange(len(indices)) + len(self._logits)
        self._logits = torch.cat([self._logits, logits])
        if features is not None:
            self._features = features if self._features is None else torch.cat([self._features, features])


class FlipCounter:
    """Counts how often the predicted class of each training image changes from epoch to epoch.

    A hook of the training loop; every epoch costs a reading of all training images, whatever `pool_cap` says.
    """

    def __init__(self, data: Dataset, device: Device, precision: Precision) -> None:
        self.flips = torch.zeros(len(data.train), dtype=torch.int64)
        self.seconds = 0.0
        self._data = data
        self._device: Device = device
        self._precision: Precision = precision
        self._last: Tensor | None = None

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Nothing to do."""

    def loss(self, model: nn.Module, images: Tensor, logits: Tensor, task: Tensor) -> Tensor:
        """The task's."""
        return task

    def after_step(self, model: nn.Module, lr: float) -> None:
        """Nothing to do."""

    def adopt(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Nothing to do."""

    def after_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Read all images and compare."""
        start = time.perf_counter()
        images = self._data.train.images
        reading = read_pool(model, images, self._data, precision=self._precision, device=self._device, features=False)
        predicted = reading.logits.argmax(1)
        if self._last is not None:
            self.flips += predicted != self._last
        self._last = predicted
        self.seconds += time.perf_counter() - start


def drop_features(model: nn.Module, share: float) -> None:
    """Let the last layer see its inputs through dropout, in training mode alone."""

    def drop(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (F.dropout(inputs[0], share, training=layer.training),)

    model.get_submodule(last_layer(model)).register_forward_pre_hook(drop)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights and buffers, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
