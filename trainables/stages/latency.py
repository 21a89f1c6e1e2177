"""Stage `latency`: how fast a packed network runs here, beside the dense network it came from.

No stage of a trial's path but an observation on one machine. It is taken alone, in a process of its own that answers
requests one by one: `python -m trainables.stages.latency DATA_ROOT` reads a request a line and writes an answer a line,
both in JSON. What a runtime does to its process, a crash above all, ends with that process.
"""

import os
import sys
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import torch

from trainables.config import Runtime
from trainables.data.load import Dataset, normalise
from trainables.data.samples import calibration_images, checked_images
from trainables.errors import DataError, ExportError, InfeasibleError, TrialError
from trainables.export.packed import unpack
from trainables.measure.latency import Timing, time_interleaved
from trainables.measure.request import BASELINE_RUNTIME, Answer, Metrics, Request
from trainables.models.compact import Compact
from trainables.runtimes.agreement import check_agreement, rule_for
from trainables.runtimes.base import Images, Predictor
from trainables.runtimes.registry import open_network, rounds_to_int8
from trainables.sources import importable
from trainables.stages.datasets import Datasets
from trainables.training.loop import predict
from trainables.training.state import reset_state

CHECKED_AT_ONCE = 100
NETWORKS_KEPT = 3


@dataclass(frozen=True, slots=True)
class Loaded:
    """A network in a runtime, and the share of test images for which it predicts what it should."""

    predictor: Predictor
    agreement: float


class Bench:
    """Loads and checks networks; keeps the last few, which serve several batch sizes or trials."""

    def __init__(self, data_root: Path) -> None:
        self._datasets = Datasets(data_root)
        self._kept: dict[tuple[object, ...], Loaded] = {}

    def data(self, request: Request) -> Dataset:
        """The images of a request."""
        return self._datasets.of(request.data, request.seed)

    def load(self, path: str, runtime: Runtime, request: Request) -> Loaded:
        """The network of a packed file in a runtime, after a check of its predictions.

        Raises:
            ExportError: they differ from those of the packed network.
            InfeasibleError: the runtime cannot run it.

        """
        identity = (path, runtime, request.threads, request.data, request.seed)
        found = self._kept.pop(identity, None) or self._opened(path, runtime, request)
        while len(self._kept) >= NETWORKS_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[identity] = found
        return found

    def _opened(self, path: str, runtime: Runtime, request: Request) -> Loaded:
        data, network = self.data(request), _network(path)
        predictor = open_network(runtime, network, calibration_images(data, request.seed), request.threads)
        return Loaded(predictor, _agreement(runtime, predictor, network, data))


def observe(request: Request, bench: Bench) -> Metrics:
    """Time a network beside its dense parent, after a check that both predict what the packed networks do.

    The dense parent runs in fp32 in the same runtime, where it can, and always in `BASELINE_RUNTIME`.

    Raises:
        ExportError: an exported network predicts something else.
        InfeasibleError: the runtime cannot run this network.
        TrialError: the files or the images are not what they should be.

    """
    reset_state(threads=1)  # torch only checks here; a pool of its threads would disturb what is timed
    network = bench.load(request.network, request.runtime, request)
    predictors = {
        "latency": network.predictor,
        "dense": bench.load(request.dense, BASELINE_RUNTIME, request).predictor,
    }
    if request.runtime != BASELINE_RUNTIME:
        with suppress(InfeasibleError):  # a runtime of few bits runs no fp32 network: there is nothing to compare with
            predictors["same_runtime_dense"] = bench.load(request.dense, request.runtime, request).predictor
    times = time_interleaved(predictors, _batch(bench.data(request), request.batch), request.repeats)
    same = times["dense"] if request.runtime == BASELINE_RUNTIME else times.get("same_runtime_dense")
    return {
        **_figures("latency", times["latency"]),
        **_figures("dense", times["dense"]),
        **_figures("same_runtime_dense", same),
        "runtime_agreement": network.agreement,
        "calls": times["latency"].calls,
    }


def _network(path: str) -> Compact:
    try:
        return unpack(Path(path).read_bytes())[0]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _agreement(runtime: Runtime, exported: Predictor, network: Compact, data: Dataset) -> float:
    """Share of equal predictions."""
    sample = checked_images(data)
    images = np.ascontiguousarray(normalise(sample.images, data).numpy())
    parts = [exported(images[start : start + CHECKED_AT_ONCE]) for start in range(0, len(images), CHECKED_AT_ONCE)]
    expected = predict(network.model, sample, data).numpy()
    rule = rule_for(network, rounded=runtime in ("openvino", "onnxruntime") and rounds_to_int8(network))
    return check_agreement(expected, np.concatenate(parts), rule).agreement


def _batch(data: Dataset, size: int) -> Images:
    """Test images, normalised, repeated where there are fewer; shape (size, C, H, W)."""
    places = torch.arange(size) % len(data.test)
    return np.ascontiguousarray(normalise(data.test.images[places], data).numpy())


def _figures(name: str, timing: Timing | None) -> Metrics:
    median, q1, q3 = (timing.median_ms, timing.q1_ms, timing.q3_ms) if timing else (None, None, None)
    return {f"{name}_ms": median, f"{name}_q1_ms": q1, f"{name}_q3_ms": q3}


def answer(request: Request, bench: Bench) -> Answer:
    """What came of one request; whatever goes wrong is an answer too."""
    started = time.perf_counter()
    try:
        metrics = observe(request, bench)
    except Exception as error:
        return _failed(error, time.perf_counter() - started)
    return Answer(status="complete", busy_s=time.perf_counter() - started, metrics=metrics)


def _failed(error: Exception, busy_s: float) -> Answer:
    if isinstance(error, InfeasibleError):
        return Answer(status="infeasible", busy_s=busy_s, error=str(error))
    kinds = {ExportError: "export", DataError: "data", MemoryError: "oom"}
    failure = next((name for kind, name in kinds.items() if isinstance(error, kind)), "bug")
    text = str(error) if isinstance(error, TrialError) else "".join(traceback.format_exception(error)).strip()
    return Answer.model_validate({"status": "failed", "busy_s": busy_s, "failure": failure, "error": text})


def serve(requests: Iterable[str], answers: TextIO, data_root: Path) -> None:
    """Answer requests, a line of JSON each, until there are no more."""
    bench = Bench(data_root)
    for line in requests:
        answers.write(answer(Request.model_validate_json(line), bench).model_dump_json() + "\n")
        answers.flush()


def main() -> None:
    """Serve standard input; arguments are the folder of the data sets and, if any, that of a user's own models."""
    code_folder = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    # A library that prints would put its words among the answers.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers, importable(code_folder):
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        serve(sys.stdin, answers, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
