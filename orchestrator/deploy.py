"""From a finished trial to files that others run (`export`), and from such files to classes of images (`predict`).

`predict_images` loads no training code: what trains is imported by `export_trial` alone.
"""

import hashlib
import platform
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.analysis.tables import COLUMNS, is_config_column
from orchestrator.data_root import bring, local_root
from orchestrator.errors import DeployError
from orchestrator.layout import Layout
from orchestrator.ledger import Replay, StageRecord, replay
from orchestrator.names import plain
from orchestrator.storage.places import AnyPath
from orchestrator.trials import Row, find_trial
from trainables.errors import ExportError, InfeasibleError, MissingExtraError, TrialError
from trainables.export.facts import MODEL_FILES, Check, Facts, Format, Input, plain_values
from trainables.sources import importable

if TYPE_CHECKING:
    from orchestrator.planning import Site
    from trainables.config import DataConfig
    from trainables.data.load import Dataset
    from trainables.export.manifest import PackedHeader
    from trainables.models.compact import Compact
    from trainables.runtimes.deployed import Choice, Engine, Prediction

CHECKED_IN: Mapping[Format, tuple["Engine", ...]] = {
    "packed": ("packed", "torch"),
    "onnx": ("onnxruntime", "openvino"),
    "torch": ("torch",),
}
PACKAGES: Mapping[Format, tuple[str, ...]] = {
    "packed": (),
    "onnx": ("onnx", "onnxruntime", "openvino"),
    "torch": (),
}
LEFT_OUT = frozenset({"study", "trial_id", "status", "failure", "error", "hosts"})


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export and where to; `out` None is `<study>-<trial_id>-<format>` in the working folder.

    `code_folder` is searched for a user's own model, None where that may not be imported. `tell` is told before a
    network that was not kept is computed again, which may take long.
    """

    trial: str
    format: Format
    out: Path | None
    data_root: AnyPath
    force: bool
    code_folder: Path | None
    tell: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class _Source:
    """A trial's network as it was evaluated, and the images that it was made with."""

    row: Row
    artifact: bytes
    network: "Compact"
    header: "PackedHeader"
    config: "DataConfig"
    data: "Dataset"
    seed: int


def export_trial(request: ExportRequest, layout: Layout) -> tuple[Path, Facts]:
    """Write the exported folder of a trial, checked on test images; returns where and what it is.

    Raises:
        ExportError: the export predicts something else than the trial's network; nothing is written.
        DeployError: there is no such finished trial, or it cannot be exported so, or not to this folder.
        TableError: no trial, or more than one, has an id with this beginning.

    """
    if not request.trial:
        raise DeployError("which trial? give its trial_id, or the beginning of it, from the tables of a study")
    from orchestrator.planning import Site

    rows, _ = find_trial(layout, request.trial)
    row = rows[0]
    replayed = replay(layout.ledger)
    records = replayed.records
    artifact = _artifact(row, replayed, Site(layout, request.data_root, request.code_folder), request)
    default = plain(f"{row['study']}-{row['trial_id']}-{request.format}", "the default folder")
    folder = request.out or Path(default)
    with _told(), importable(request.code_folder):
        from trainables.export.bundle import refuse_other, write_bundle
        from trainables.export.packed import unpack

        if not request.force:
            refuse_other(folder, (row["trial_id"], request.format, _sha256(artifact)))
        network, header = unpack(artifact, allow_code=request.code_folder is not None)
        config, seed = _data_config(row, records), int(row["seed"])
        source = _Source(row, artifact, network, header, config, _images(config, seed, request.data_root), seed)
        model = _MAKERS[request.format](source)
        facts = _facts(source, request.format, model)
        return folder, write_bundle(folder, facts, model, _Comparison(source, request), force=request.force)


def _images(config: "DataConfig", seed: int, data_root: AnyPath) -> "Dataset":
    from trainables.data.load import load

    bring(data_root, config)
    return load(config, seed, local_root(data_root))


def _artifact(row: Row, replayed: Replay, site: "Site", request: ExportRequest) -> bytes:
    """The packed file that the trial's evaluation left, as it was written."""
    trial = f"trial {row['trial_id']} of {row['study']}"
    key = row["stage_keys.evaluate"]
    record = replayed.records.get(key)
    evaluated = record is not None and record.status == "complete"
    if row["status"] != "complete" and not (evaluated and request.format != "onnx"):
        state = row["status"] if isinstance(row["status"], str) else "unfinished"
        also = "; packed and torch are possible, as its evaluation is complete" if evaluated else ""
        raise DeployError(f"{trial} is {state}; only a complete trial can be exported{' as onnx' * bool(also)}{also}")
    data = site.layout.artifacts.read(key, record.artifact_sha256) if record and record.artifact_sha256 else None
    if data is None:
        from orchestrator.remake import remade  # plans, and trains

        return remade(row, site, replayed, request.tell)
    return data


def _data_config(row: Row, records: Mapping[str, StageRecord]) -> "DataConfig":
    """Which images the trial has: as they stand with the root of its path, and where the row says that they lie."""
    from trainables.config import DataConfig

    key = row["stage_keys.train"]
    record = records.get(key)
    while record is not None and "data" not in record.config:
        key = record.parent
        record = records.get(key) if key else None
    if record is None:
        raise DeployError(f"trial {row['trial_id']}: the ledger lacks its training {key}; sweep the study again")
    leaves = dict(record.config["data"])
    if leaves["name"] == "imagefolder":
        places = {leaf: row.get(f"data.{leaf}") for leaf in ("folder", "labels")}
        leaves |= {leaf: place for leaf, place in places.items() if isinstance(place, str)}
    else:
        del leaves["fingerprint"]
    return DataConfig.model_validate(leaves)


def _packed(source: _Source) -> bytes:
    return source.artifact


def _onnx(source: _Source) -> bytes:
    from trainables.data.samples import calibration_images
    from trainables.runtimes.registry import onnx_graph

    return onnx_graph(source.network, calibration_images(source.data, source.seed))


def _torch(source: _Source) -> bytes:
    import torch

    from trainables.export.program import to_program

    header = source.header
    return to_program(source.network.model, torch.zeros(1, header.channels, header.image_size, header.image_size))


_MAKERS: Mapping[Format, Callable[[_Source], bytes]] = {"packed": _packed, "onnx": _onnx, "torch": _torch}


def _facts(source: _Source, form: Format, model: bytes) -> Facts:
    from trainables.data.classes import CLASS_NAMES
    from trainables.runtimes.registry import has_int8_graph

    row, header = source.row, source.header
    columns = [str(name) for name in row if is_config_column(str(name))]
    return Facts(
        format=form,
        file=MODEL_FILES[form],
        sha256=_sha256(model),
        bytes=len(model),
        input=Input(channels=header.channels, image_size=header.image_size, mean=header.mean, std=header.std),
        classes=header.classes,
        class_names=source.config.classes or CLASS_NAMES.get(source.config.name),
        int8=form == "onnx" and has_int8_graph(source.network),
        study=row["study"],
        trial_id=row["trial_id"],
        artifact_sha256=_sha256(source.artifact),
        config=plain_values(row, columns),
        measured=plain_values(row, [name for name in COLUMNS if name not in LEFT_OUT]),
        versions={"python": platform.python_version()}
        | {name: version(name) for name in ("sweep-orchestrator", "torch", *PACKAGES[form])},
    )


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Loads an exported folder and compares it with the network on test images."""

    source: _Source
    request: ExportRequest

    def __call__(self, folder: Path) -> tuple[Check, ...]:
        """What came of it in each runtime that can be had here."""
        from trainables.data.samples import checked_images
        from trainables.training.loop import predict

        sample = checked_images(self.source.data)
        expected = predict(self.source.network.model, sample, self.source.data).numpy()
        checks: list[Check] = []
        for engine in CHECKED_IN[self.request.format]:
            with suppress(InfeasibleError, MissingExtraError):
                checks.append(self._check(folder, engine, sample, expected))
        if not checks:
            engines = ", ".join(CHECKED_IN[self.request.format])
            raise DeployError(f"no runtime is installed in which the export could be checked: {engines}")
        return tuple(checks)

    def _check(self, folder: Path, engine: "Engine", sample: Any, expected: Any) -> Check:
        from trainables.runtimes.agreement import check_agreement, rule_for
        from trainables.runtimes.deployed import open_model
        from trainables.runtimes.registry import rounds_to_int8

        model = open_model(folder, engine, allow_code=self.request.code_folder is not None)
        found = model.logits(sample.images.numpy())
        network = self.source.network
        rule = rule_for(network, rounded=self.request.format == "onnx" and rounds_to_int8(network))
        try:
            measured = check_agreement(expected, found, rule)
        except ExportError as error:
            msg = f"{MODEL_FILES[self.request.format]} in {engine}: {error}; nothing was written"
            raise ExportError(msg) from error
        right = float((found.argmax(1) == sample.labels.numpy()).mean())
        return Check(
            runtime=engine,
            images=len(sample),
            agreement=measured.agreement,
            max_difference=measured.max_difference,
            accuracy=right,
        )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """Which model is asked about which images; see `trainables.runtimes.deployed` and `trainables.data.pictures`."""

    model: Path
    images: Sequence[Path]
    runtime: "Choice"
    top: int
    resize: bool
    threads: int
    code_folder: Path | None


def predict_images(request: PredictRequest) -> "tuple[list[Prediction], Engine]":
    """The most probable classes of each image, and the runtime that found them.

    Raises:
        DeployError: the model or an image cannot be used.

    """
    with _told(), importable(request.code_folder):
        from trainables.data.pictures import Wanted, read_pictures
        from trainables.runtimes.deployed import classify, open_model

        allow_code = request.code_folder is not None
        model = open_model(request.model, request.runtime, request.threads, allow_code=allow_code)
        pictures = read_pictures(request.images, Wanted(model.channels, model.image_size, request.resize))
        return classify(model, pictures, min(request.top, model.classes)), model.engine


@contextmanager
def _told() -> Generator[None]:
    """What is wrong with a model or its images is the user's to know; an export that differs is left to the caller."""
    try:
        yield
    except ExportError:
        raise
    except TrialError as error:
        raise DeployError(str(error)) from error
