"""Latencies as observations on one machine: which a plan wants, which are missing, and what the tables say of them.

An observation is committed to the ledger like a stage, but stands outside the forest: it is named by what was timed
and where, never by a trial, and no other key depends on it. Imports no tensor library.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import Any

from orchestrator.fingerprint import this_machine
from orchestrator.ledger import StageRecord
from orchestrator.plan import Plan, Trial
from trainables.config import DataConfig, Runtime
from trainables.measure.request import BASELINE_RUNTIME

Records = Mapping[str, StageRecord]
Row = dict[str, Any]

LATENCY_VERSION = 2
"""Raised when the way of measuring changes, or what our own runtime does."""

PACKAGES: Mapping[Runtime, tuple[str, ...]] = {
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime",),
    "packed": ("numba", "sweep-orchestrator"),
    "skipping": ("torch", "sweep-orchestrator"),
}
"""The packages that run a network in each runtime."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where latency is measured: the machine's fingerprint, and the versions of the packages that run networks."""

    machine: str
    versions: Mapping[str, str]


@cache
def here() -> Site:
    """The machine that asks; a package that is not installed has the version `absent`."""
    return Site(this_machine(), {name: _version(name) for names in PACKAGES.values() for name in names})


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


@dataclass(frozen=True, slots=True)
class Observation:
    """A packed network timed in one runtime at one batch size, beside its dense parent.

    `evaluate` and `dense` are the keys of the evaluations whose outputs are timed; `data` and `seed` give the images.
    """

    evaluate: str
    dense: str
    data: DataConfig
    seed: int
    runtime: Runtime
    batch: int
    threads: int
    repeats: int

    def key(self, records: Records, site: Site) -> str | None:
        """Names the observation by the networks, the protocol, the machine and the runtimes' versions.

        None as long as one of the two networks is not there.
        """
        networks = [_sha256(records.get(key)) for key in (self.evaluate, self.dense)]
        if None in networks:
            return None
        content = {
            "observation": "latency",
            "version": LATENCY_VERSION,
            "networks": networks,
            "protocol": self.protocol(),
            "machine": site.machine,
            "versions": self.versions(site),
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def protocol(self) -> dict[str, Any]:
        """How it is taken."""
        return {"runtime": self.runtime, "batch": self.batch, "threads": self.threads, "repeats": self.repeats}

    def versions(self, site: Site) -> dict[str, str]:
        """Of the packages that run the two networks."""
        return {name: site.versions[name] for name in (*PACKAGES[BASELINE_RUNTIME], *PACKAGES[self.runtime])}


def _sha256(record: StageRecord | None) -> str | None:
    return record.artifact_sha256 if record is not None and record.status == "complete" else None


def of_trial(trial: Trial) -> list[Observation]:
    """What is wanted of a trial, by batch and runtime as the study lists them."""
    latency, dense = trial.config.latency, trial.baselines.get("dense")
    if latency is None or dense is None:
        return []
    settings = product(dict.fromkeys(latency.batch), dict.fromkeys(latency.runtimes))
    return [
        Observation(
            trial.path[-1], dense, trial.config.data, trial.seed, runtime, batch, latency.threads, latency.repeats
        )
        for batch, runtime in settings
    ]


def wanted(plan: Plan) -> list[Observation]:
    """Every observation of a plan, each once."""
    return list(dict.fromkeys(one for trial in plan.trials for one in of_trial(trial)))


def missing(plan: Plan, records: Records, site: Site) -> list[Observation]:
    """What is still to be observed here, equal networks once; also where the networks are not there yet.

    What can no longer be observed, because a stage on the way failed for good, is left out.
    """
    found: dict[object, Observation] = {}
    for one in wanted(plan):
        key = one.key(records, site)
        record = records.get(key or "")
        open_still = not any(_is_lost(evaluate, plan, records) for evaluate in (one.evaluate, one.dense))
        if open_still and (record is None or not record.settled):
            found.setdefault(key or one, one)
    return list(found.values())


def _is_lost(key: str | None, plan: Plan, records: Records) -> bool:
    """Whether a stage or one above it has failed for good."""
    while key is not None:
        record = records.get(key)
        if record is not None and record.settled and record.status != "complete":
            return True
        key = plan.stages[key].parent
    return False


def outputs_needed(observations: Iterable[Observation]) -> frozenset[str]:
    """Keys of the evaluations whose outputs are timed."""
    return frozenset(key for one in observations for key in (one.evaluate, one.dense))


def latency_row(trial: Trial, records: Records, site: Site) -> Row:
    """The columns of a finished trial: the fastest of its runtimes at the first batch size, or why there is none.

    An export whose predictions differ fails the trial.
    """
    taken = [(one, record) for one in of_trial(trial) if (record := records.get(one.key(records, site) or ""))]
    for _, record in taken:
        if record.failure == "export":
            return {"status": "failed", "failure": "export", "error": f"stage latency: {record.error}"}
    batch = trial.config.latency.batch[0] if trial.config.latency else None
    first = [(one, record) for one, record in taken if one.batch == batch]
    done = [(one, record) for one, record in first if record.status == "complete"]
    if not done:
        return {"latency_error": "; ".join(f"{one.runtime}: {_brief(record)}" for one, record in first) or None}
    one, record = min(done, key=lambda pair: pair[1].metrics["latency_ms"] or 0.0)
    shown = _figures(record)
    names = ("latency_ms", "latency_iqr_ms", "latency_ratio", "latency_same_runtime_ratio", "runtime_agreement")
    return {name: shown[name] for name in names} | {
        "runtime": one.runtime,
        "latency_batch": one.batch,
        "latency_machine": record.machine,
    }


def observation_rows(plan: Plan, records: Records, site: Site) -> list[Row]:
    """The rows of `_latency.parquet`: each evaluated network of the plan in each runtime at each batch size."""
    taken = ((one, records.get(one.key(records, site) or "")) for one in wanted(plan))
    return [
        {"stage_keys.evaluate": one.evaluate, **one.protocol(), **recorded(record)} for one, record in taken if record
    ]


def recorded(record: StageRecord) -> Row:
    """What a record of an observation says, by column of `_latency.parquet`."""
    names = ("key", "status", "failure", "error", "busy_s", "finished_at", "machine", "host", "run")
    versions = ", ".join(f"{name} {text}" for name, text in record.versions.items())
    return {name: getattr(record, name) for name in names} | {"versions": versions, **_figures(record)}


def _figures(record: StageRecord) -> Row:
    found = dict(record.metrics)
    if record.status != "complete":
        return found
    median, same = found["latency_ms"] or 0.0, found["same_runtime_dense_ms"]
    return found | {
        "latency_iqr_ms": (found["latency_q3_ms"] or 0.0) - (found["latency_q1_ms"] or 0.0),
        "latency_ratio": (found["dense_ms"] or 0.0) / median,
        "latency_same_runtime_ratio": None if same is None else same / median,
    }


def _brief(record: StageRecord) -> str:
    return (record.error or record.status).strip().splitlines()[-1]
