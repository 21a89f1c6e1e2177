"""The labelling loop with a person: which images to label next, and taking the answers in.

The labels file is the only place where labels stand. What was proposed is kept by name under
`<results>/<study>/_labelling`, so that asking again proposes the same, and a killed command has lost nothing.
"""

import hashlib
import re
import time
from collections import defaultdict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from orchestrator.errors import RunError
from orchestrator.label_desk import (
    Desk,
    Request,
    images_of,
    name_the_folder,
    open_desk,
    query_sizes,
    refuse_absent_gpu,
    refuse_changes,
    settings_of,
)
from orchestrator.label_files import RESTART, Rounds, StoredRound, with_answers, write
from orchestrator.locks import study_lock
from orchestrator.storage.places import of_this_machine
from trainables.data.labels import Row, read_labels
from trainables.data.pictures import told_faults
from trainables.errors import CodeError, InfeasibleError
from trainables.sources import importable

Stop = Literal["budget", "images", "time"]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the labelling of a study stands.

    Args:
        study: its name.
        number: of the round, from 0, the initial draw.
        asked: images that the round asked for.
        open: those without a label yet, the most wanted first.
        images: all.
        budget: labels that the study asks for.
        stop: why no round follows; None: one does, once none is open.
        classes: what a label may be.
        folder: of the images.
        labels_file: where the labels stand.
        known: the labels there, by file.
        seconds: of the work that this command has done, by part.
        notes: what a person should know.

    """

    study: str
    number: int
    asked: int
    open: tuple[str, ...]
    images: int
    budget: int
    stop: Stop | None
    classes: tuple[str, ...]
    folder: Path
    labels_file: Path
    known: Mapping[str, str]
    seconds: Mapping[str, float]
    notes: tuple[str, ...]


def label_next(request: Request) -> Standing:
    """What is to be labelled now; where the last round is answered, the selection network is trained and asked.

    Raises:
        RunError: the study or its images cannot be labelled, the settings have changed, or another process is at it.
        StoreError: something cannot be read or written.
        TrialError: training failed.

    """
    with _alone(request):
        rounds = _rounds(request)
        aside = rounds.set_aside() if request.restart else None
        stored = rounds.newest()
        desk = open_desk(request, create=stored is None)
        notes = [f"the former trajectory is kept in {aside}"] if aside else []
        if stored is None:
            stored = _begun(desk, rounds)
        else:
            refuse_changes(desk, stored)
        seconds: Mapping[str, float] = {}
        here = _standing(desk, stored, request.stop_after_s)
        while not here.open and here.stop is None:
            stored = _advanced(desk, stored, rounds)
            seconds, notes = stored.seconds, [*notes, *here.notes]
            here = _standing(desk, stored, request.stop_after_s)
        return replace(here, seconds=seconds, notes=tuple(dict.fromkeys((*notes, *here.notes))))


def label_answer(request: Request, answers: Path) -> tuple[Standing, int]:
    """Take the answers of a CSV file into the labels file; where the labelling then stands, and how many were new.

    Raises:
        RunError: an answer cannot be taken, of which all are told at once and none is, or there is nothing to answer.
        StoreError: something cannot be read or written.

    """
    with _alone(request):
        stored = _rounds(request).newest()
        if stored is None:
            asking = f"orchestrator label next {request.spec.source}"
            raise RunError(f"{request.spec.source}: nothing has been proposed yet; ask first: {asking}")
        desk = open_desk(request, create=False)
        new = _new_answers(desk, _standing(desk, stored, None), answers)
        if new:
            write(desk.labels_file, with_answers(desk.labels_file, new))
        after = _standing(open_desk(request, create=False), stored, request.stop_after_s)
        return after, len(new)


@contextmanager
def _alone(request: Request) -> Generator[None]:
    study = request.spec.study
    # No study has a name that begins with an underscore, so that this is no sweep's lock.
    with study_lock(request.layout.lock(f"_labelling-{study}"), "") as other:
        if other is not None:
            raise RunError(f"{study}: process {other.pid} on {other.host} is at its labels; wait for it, or stop it")
        yield


def _rounds(request: Request) -> Rounds:
    folder = request.layout.study(request.spec.study)
    return Rounds(of_this_machine(folder, "a person labels beside a results root on a disk") / "_labelling")


def _standing(desk: Desk, stored: StoredRound, stop_after_s: float | None) -> Standing:
    members = [file for file, _ in stored.images]
    kept = [file for file in members if file in desk.sums]
    extra = _extra(desk, stored)
    # A budget inside a round takes the prefix of its query: a larger one tomorrow asks for the rest of it.
    within = kept[: max(0, desk.select.budget - len(extra))]
    stop = _stop(desk, stored, len(kept) + len(extra), stop_after_s)
    gone = len(members) - len(kept)
    notes = [f"images of the trajectory that are gone from {desk.facts.folder}: {gone}"] if gone else []
    notes += [f"labels that were not asked for: {len(extra)}; their images join the round"] if extra else []
    if stop is None and (budget := desk.select.budget) > len(desk.sums):
        notes.append(f"select.budget {budget:,} is more than there are images ({len(desk.sums):,})")
    round_of = set(members[len(members) - stored.asked :])
    return Standing(
        study=desk.request.spec.study,
        number=stored.number,
        asked=sum(file in round_of for file in within),
        open=tuple(file for file in within if file not in desk.known),
        images=len(desk.sums),
        budget=desk.select.budget,
        stop=stop,
        classes=desk.facts.classes,
        folder=desk.facts.folder,
        labels_file=desk.labels_file,
        known=desk.known,
        seconds={},
        notes=tuple(notes),
    )


def _extra(desk: Desk, stored: StoredRound) -> list[str]:
    """Files that were labelled without having been asked for."""
    asked = {file for file, _ in stored.images}
    return [file for file in desk.known if file not in asked]


def _stop(desk: Desk, stored: StoredRound, known: int, stop_after_s: float | None) -> Stop | None:
    if known >= desk.select.budget:
        return "budget"
    if known >= len(desk.sums):
        return "images"
    return "time" if stop_after_s is not None and stored.total_s >= stop_after_s else None


def _begun(desk: Desk, rounds: Rounds) -> StoredRound:
    """Round 0, drawn by chance. A damaged image, or a network that cannot choose, is told before anybody labels."""
    from trainables.active import labelling, trajectory

    data = labelling.pool_of(images_of(desk), list(desk.sums))
    with importable(desk.request.code_folder):
        try:
            labelling.refuse_network(desk.config, data)
        except (CodeError, InfeasibleError) as error:
            raise RunError(f"{desk.request.spec.source}: {error}") from error
    places = {file: number for number, file in enumerate(desk.sums)}
    given = [places[file] for file in desk.known]
    drawn = labelling.begin(desk.config, desk.seed, data, given)
    name_the_folder(desk.request)
    asked = len(drawn.labelled) - len(given)
    return _kept(desk, rounds, 0, drawn.labelled.tolist(), asked, {}, 0.0, trajectory.save(drawn))


def _advanced(desk: Desk, stored: StoredRound, rounds: Rounds) -> StoredRound:
    from trainables.active import labelling, trajectory
    from trainables.active.rounds import RoundCost
    from trainables.training.state import reset_state

    places = {file: number for number, file in enumerate(desk.sums)}
    before = labelling.taken_up(
        trajectory.load(rounds.trajectory(stored)),
        [places.get(file) for file, _ in stored.images],
        [places[file] for file in _extra(desk, stored)],
    )
    if not len(before.newest):
        raise RunError(f"all images of round {stored.number} are gone from {desk.facts.folder}; {RESTART}")
    reset_state(desk.request.spec.resources.of("select").cpus)
    refuse_absent_gpu(desk)
    data, number = labelling.pool_of(images_of(desk), list(desk.sums)), stored.number + 1
    count = query_sizes(desk.select, number)[-1]
    with importable(desk.request.code_folder):
        found = labelling.proceed(desk.config, desk.seed, data, desk.device, before, count)
    after, cost = found.after, found.cost or RoundCost()
    return _kept(
        desk, rounds, number, after.labelled.tolist(), after.sizes[-1], asdict(cost),
        stored.total_s + cost.seconds, trajectory.save(after),
    )  # fmt: skip


def _kept(
    desk: Desk,
    rounds: Rounds,
    number: int,
    labelled: list[int],
    asked: int,
    seconds: Mapping[str, float],
    total_s: float,
    trajectory: bytes,
) -> StoredRound:
    images = list(desk.sums.items())
    stored = StoredRound(
        number=number,
        proposed_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        settings=settings_of(desk),
        query_sizes=query_sizes(desk.select, number),
        images=tuple(images[place] for place in labelled),
        asked=asked,
        labels=len(desk.known),
        seconds=dict(seconds),
        total_s=total_s,
        trajectory=hashlib.sha256(trajectory).hexdigest(),
    )
    rounds.add(stored, trajectory)
    return stored


def _new_answers(desk: Desk, here: Standing, answers: Path) -> dict[str, str]:
    """The answers that the labels file has not, in the order of the proposal.

    Raises:
        RunError: some cannot be taken.

    """
    found = read_labels(answers, desk.sums.keys(), desk.facts.classes)
    open_ = dict.fromkeys(here.open)
    new = {file: row for file, row in found.rows.items() if desk.known.get(file) != row.label}
    faults = list(found.faults)
    faults += [
        f"{answers}: line {row.line}: {_reason(desk, here, file, row)}"
        for file, row in new.items()
        if file not in open_
    ]
    faults += _twins(desk, new, answers)
    if faults:
        faults.sort(key=_line)
        raise RunError("\n".join([*told_faults(faults), "nothing was taken; mend the answers and give them again"]))
    return {file: new[file].label for file in here.open if file in new}


def _line(fault: str) -> int:
    """The line that a fault names; 0 where it is of the whole file."""
    found = re.search(r": line (\d+): ", fault)
    return int(found[1]) if found else 0


def _reason(desk: Desk, here: Standing, file: str, row: Row) -> str:
    if file in desk.known:
        return f"{file} is labelled {desk.known[file]} already, not {row.label}; correct it in {desk.labels_file}"
    return f"{file} was not proposed in round {here.number}"


def _twins(desk: Desk, new: Mapping[str, Row], answers: Path) -> list[str]:
    """Faults of answers that give copies of one image different labels."""
    copies: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for file, label in desk.known.items():
        copies[desk.sums[file]][file] = label
    faults: list[str] = []
    for file, row in new.items():
        others = copies[desk.sums[file]]
        faults += [
            f"{answers}: line {row.line}: {file} and {other} are one image, labelled {row.label} and {label}"
            for other, label in others.items()
            if label != row.label and other != file
        ]
        others[file] = row.label
    return faults
