"""A study as the labelling loop sees it: its one cell, its images, the labels they have, and what must not change."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.durable import publish
from orchestrator.errors import RunError, StoreError
from orchestrator.label_files import RESTART, StoredRound, nameable, write
from orchestrator.layout import Layout
from orchestrator.sources import Sources
from orchestrator.spec.cells import cells
from orchestrator.spec.demands import absent_gpu
from orchestrator.spec.model import StudySpec
from trainables.config import Device, Precision, SelectConfig, TrialConfig, resolve
from trainables.data.folder import FolderFacts
from trainables.data.identify import described, facts_of, place
from trainables.data.labels import read_labels
from trainables.data.pictures import told_faults
from trainables.errors import DataError
from trainables.keys import STAGE_VERSIONS, select_of, selecting
from trainables.model_names import is_code

if TYPE_CHECKING:
    from trainables.data.imagefolder import FolderImages

SIMULATED = ("data.train_size", "data.imbalance", "data.label_noise", "select.locked_classes", "select.patience")
"""What needs labels of images that nobody has labelled yet, or validation images."""

AMPLE = 1_000_000
"""Images that suffice for every batch and split."""


@dataclass(frozen=True, slots=True)
class Request:
    """A study, and what a person decides beside it."""

    spec: StudySpec
    layout: Layout
    data_root: Path
    precision_of: Callable[[TrialConfig], Precision]
    code_folder: Path | None = None
    restart: bool = False
    stop_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Desk:
    """A study with its images and labels as they are now. `sums` has the images of the pool, sorted by path."""

    request: Request
    config: TrialConfig
    seed: int
    device: Device
    facts: FolderFacts
    labels_file: Path
    known: Mapping[str, str]
    sums: Mapping[str, str]

    @property
    def select(self) -> SelectConfig:
        """How images are selected."""
        return select_of(self.config)


def open_desk(request: Request, *, create: bool) -> Desk:
    """Look at the images and labels of a study; `create` begins an absent labels file.

    Raises:
        RunError: the study or its images cannot be labelled.
        StoreError: the labels file cannot be begun.

    """
    config, seed = _only_cell(request.spec)
    folder = place(config.data, request.data_root)
    labels_file = folder / (config.data.labels or "")
    if create and folder.is_dir() and not labels_file.exists():
        write(labels_file, b"file,label\n")
    try:
        facts = facts_of(config.data, request.data_root)
    except DataError as error:
        raise RunError(f"{request.spec.source}: {error}") from error
    sums = {
        image.path: image.sha256
        for image, for_test in zip(facts.images, facts.for_test, strict=True)
        if not (facts.test_folder and for_test)
    }
    if unnamed := [file for file in sums if not nameable(file)]:
        lines = told_faults(
            [f"{folder}: the name {file!r} cannot stand in a labels file; rename it" for file in unnamed]
        )
        raise RunError("\n".join(lines))
    rows = read_labels(labels_file, [image.path for image in facts.images], facts.classes).rows
    known = {file: row.label for file, row in rows.items() if file in sums}
    resolved = _resolved(request, config, facts, len(sums))
    return Desk(request, resolved, seed, request.spec.resources.of("select").device, facts, labels_file, known, sums)


def _only_cell(spec: StudySpec) -> tuple[TrialConfig, int]:
    """The one config of the study, in which what has no effect on the selection is at its default, and its seed.

    Raises:
        RunError: there is not exactly one, or it cannot be labelled by.

    """
    found = cells(spec).cells
    if len(found) != 1:
        msg = f"labelling needs a study of one cell and one seed, and this one has {len(found)}; "
        raise RunError(f"{spec.source}: {msg}give each axis one value (--set) and seeds: 1")
    config = found[0].config
    select, data = config.select, config.data
    faults: list[str] = []
    if data.name != "imagefolder" or not data.labels or len(data.classes) < 2:
        faults.append("labelling needs data: {name: imagefolder, folder: ..., labels: FILE.csv, classes: [A, B]}")
    if select is None:
        faults.append("labelling needs a section select, as {strategy: margin, budget: 500}")
    elif select.budget < select.initial:
        faults.append(f"select.budget {select.budget} is less than the initial draw, select.initial {select.initial}")
    faults += [f"{path} is for simulated labels; remove it, or set its default" for path in _simulated(config)]
    if faults or select is None:
        raise RunError("\n".join(f"{spec.source}: {fault}" for fault in faults))
    return config.model_copy(update={"select": select.canonical()}), found[0].seed


def _simulated(config: TrialConfig) -> list[str]:
    found: list[str] = []
    for path in SIMULATED:
        section, _, leaf = path.partition(".")
        part = getattr(config, section)
        if part is not None and getattr(part, leaf) != type(part).model_fields[leaf].default:
            found.append(path)
    return found


def _resolved(request: Request, config: TrialConfig, facts: FolderFacts, images: int) -> TrialConfig:
    counted = described(config.data, facts).model_copy(update={"train_images": images, "test_images": 0})
    update: dict[str, Any] = {"data": counted}
    if is_code(config.model.name) and request.code_folder is not None:
        sha256 = Sources(request.spec.source, request.code_folder)(config.model.name)
        update["model"] = config.model.model_copy(update={"code_sha256": sha256})
    named = config.model_copy(update=update)
    # The probe makes images of its own; that a folder has few is no fault, since none is held out of it.
    ample = named.model_copy(update={"select": None, "data": counted.model_copy(update={"train_images": AMPLE})})
    return resolve(named, "fp32" if config.train.precision != "auto" else request.precision_of(ample))


def settings_of(desk: Desk) -> dict[str, Any]:
    """The leaves that shape the trajectory, by path; neither the budget nor the images, which may be more tomorrow."""
    config = desk.config
    shape: dict[str, Any] = {"select": select_of(config).model_dump(mode="json", exclude={"budget", "query_sizes"})}
    shape["data"] = config.data.model_dump(mode="json", include={"classes", "channels", "image_size", "augment"})
    shape |= selecting(config, exclude_defaults=False)
    leaves = {f"{section}.{leaf}": value for section, part in shape.items() for leaf, value in part.items()}
    return leaves | {"seed": desk.seed, "device": desk.device, "version of select": STAGE_VERSIONS["select"]}


def query_sizes(select: SelectConfig, rounds: int) -> tuple[int, ...]:
    """What each of the first rounds after the initial draw asks for."""
    return tuple(select.query_size(number) for number in range(rounds))


def refuse_changes(desk: Desk, stored: StoredRound) -> None:
    """A trajectory goes on with the settings and images that it began with.

    Raises:
        RunError: some are others; all of them are told.

    """
    now = settings_of(desk) | {"select.query_sizes": list(query_sizes(desk.select, stored.number))}
    then = stored.settings | {"select.query_sizes": list(stored.query_sizes)}
    changed = [
        f"{name} is {now.get(name)}, was {then.get(name)}"
        for name in sorted(now.keys() | then.keys())
        if now.get(name) != then.get(name)
    ]
    changed += [
        f"{file} is another image than it was"
        for file, sha256 in stored.images
        if desk.sums.get(file, sha256) != sha256
    ]
    if changed:
        lines = "\n".join(f"  {line}" for line in told_faults(changed))
        raise RunError(
            f"{desk.request.spec.source}: changed since round {stored.number} was proposed:\n{lines}\n"
            f"put it back, or {RESTART}"
        )


def images_of(desk: Desk) -> "FolderImages":
    """The images, decoded.

    Raises:
        RunError: some cannot be.

    """
    from trainables.data.imagefolder import read_folder

    try:
        return read_folder(desk.config.data, desk.request.data_root, partly_labelled=True)
    except DataError as error:
        raise RunError(f"{desk.request.spec.source}: {error}") from error


def refuse_absent_gpu(desk: Desk) -> None:
    """A study that asks for a GPU needs one.

    Raises:
        RunError: there is none.

    """
    import torch

    if desk.device == "cuda" and not torch.cuda.is_available():
        raise RunError(absent_gpu(desk.request.spec.tree.get("resources")))


def name_the_folder(request: Request) -> None:
    """A sweep of the study takes a folder with this file for its own."""
    folder = request.layout.study(request.spec.study)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "_study.yaml").exists():
            publish(folder / "_study.yaml", request.spec.text().encode())
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror}; name another --results") from error
