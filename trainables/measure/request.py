"""What is asked of the process that times networks, and what it answers. Imports no tensor library."""

from typing import Literal

from pydantic import Field

from trainables.config import DataConfig, Runtime, Section

BASELINE_RUNTIME: Runtime = "openvino"
"""What runs the dense network that `latency_ratio` compares with: an honest fp32 baseline, not an eager framework."""

Metrics = dict[str, float | int | None]


class Request(Section):
    """What to time: the files of a packed network and of its dense parent, and how.

    `data` and `seed` are those of the trial: they give the training images that calibrate int8 activations.
    """

    network: str
    dense: str
    data: DataConfig
    seed: int
    runtime: Runtime
    batch: int = Field(ge=1)
    threads: int = Field(ge=1)
    repeats: int = Field(ge=1)


class Answer(Section):
    """What came of a request; `busy_s` is how long it took, in seconds."""

    status: Literal["complete", "failed", "infeasible"]
    busy_s: float
    metrics: Metrics = Field(default_factory=dict)
    failure: Literal["bug", "data", "export", "oom"] | None = None
    error: str | None = None
