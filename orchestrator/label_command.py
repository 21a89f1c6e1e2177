"""`orchestrator label`: its arguments, and what it says. Heavy libraries are imported by the action that needs them."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.arguments import Subparsers, add_data_root, add_study, command_parser
from orchestrator.errors import RunError
from orchestrator.storage.places import of_this_machine

if TYPE_CHECKING:
    from orchestrator.label import Standing
    from orchestrator.label_desk import Request

EXIT_TRAINING_FAILED = 1


def add_label_command(commands: Subparsers) -> None:
    """The command `label` with its two actions."""
    about = "choose the next images to be labelled by a person, and take the labels back"
    label = commands.add_parser("label", help=about, description=f"{about[0].upper()}{about[1:]}.", allow_abbrev=False)
    actions = label.add_subparsers(metavar="ACTION", required=True)
    ask = command_parser(actions, "next", _next, "propose images; once they are labelled, train and propose the next")
    add_study(ask)
    ask.add_argument("--out", type=Path, help="CSV to write (default: printed, unless there is a --page)")
    ask.add_argument("--page", type=Path, help="HTML page of thumbnails to write, in which the images can be labelled")
    ask.add_argument("--stop-after-s", type=_positive, metavar="SECONDS", help="no round follows after so much work")
    ask.add_argument("--restart", action="store_true", help="begin a new trajectory from what is labelled")
    add_data_root(ask)
    answer = command_parser(actions, "answer", _answer, "take the answers of a CSV into the labels file")
    add_study(answer)
    answer.add_argument("answers", type=Path, help="CSV of file,label; an empty label leaves an image open")
    add_data_root(answer)


def _next(options: argparse.Namespace) -> int:
    from orchestrator.label import label_next
    from trainables.errors import TrialError

    if options.out is not None and options.page is not None and options.out.resolve() == options.page.resolve():
        raise RunError(f"{options.out}: --out and --page name one file; name two")
    _refuse_foreign_page(options.page)
    try:
        here = label_next(_request(options, restart=options.restart, stop_after_s=options.stop_after_s))
        written = _write(options, here)
    except TrialError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_TRAINING_FAILED
    printed = bool(here.open) and not written
    # Where the CSV itself is printed, what is said must not get between its lines.
    stream = sys.stderr if printed else sys.stdout
    stream.write("".join(f"{line}\n" for line in _proposed(options.study, here, written)))
    if printed:
        from orchestrator.label_files import proposal

        sys.stdout.write(proposal(here.open))
    return 0


def _answer(options: argparse.Namespace) -> int:
    from orchestrator.label import label_answer

    here, taken = label_answer(_request(options, may_probe=False), options.answers)
    lines = [f"{here.study}: {_count(taken, 'new label')} taken into {here.labels_file}", *_state(here)]
    if not here.open and here.stop is None:
        lines.append(f"next round: orchestrator label next {options.study}")
    sys.stdout.write("".join(f"{line}\n" for line in [*lines, *here.notes]))
    return 0


def _request(
    options: argparse.Namespace, *, restart: bool = False, stop_after_s: float | None = None, may_probe: bool = True
) -> "Request":
    from orchestrator.label_desk import Request
    from orchestrator.layout import Layout
    from orchestrator.precision import Precisions
    from orchestrator.spec.load import load_spec

    spec = load_spec(options.study, options.overrides, allow_code=options.allow_code)
    layout = Layout(options.results.resolve())
    return Request(
        spec=spec,
        layout=layout,
        data_root=of_this_machine(options.data_root, "the labels file stands beside the images"),
        precision_of=Precisions(layout.probes, spec.resources.device, _announce, may_probe=may_probe),
        code_folder=Path.cwd() if options.allow_code else None,
        restart=restart,
        stop_after_s=stop_after_s,
    )


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _announce(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def _refuse_foreign_page(path: Path | None) -> None:
    from orchestrator.label_page import MARK

    if path is None or not path.exists():
        return
    try:
        ours = MARK.encode() in path.read_bytes()[:1000]
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    if not ours:
        raise RunError(f"{path}: is there and is no page of a proposal; name another --page")


def _write(options: argparse.Namespace, here: "Standing") -> list[Path]:
    """Write the files that were asked for."""
    from orchestrator.label_files import proposal, write, write_proposal
    from orchestrator.label_page import page

    if not here.open:
        return []
    if options.out is not None:
        write_proposal(options.out, proposal(here.open), here.labels_file, here.known)
    if options.page is not None:
        title = f"{here.study}, round {here.number}: {_count(len(here.open), 'image')}"
        name = f"{here.study}-round-{here.number}.csv"
        write(options.page, page(title, name, here.folder, here.open, here.classes).encode())
    return [path for path in (options.out, options.page) if path is not None]


def _proposed(study: str, here: "Standing", written: list[Path]) -> list[str]:
    from orchestrator.screen import duration

    parts = {"train_s": "training", "score_s": "reading the pool", "query_s": "choosing"}
    lines = _state(here)
    if here.seconds:
        lines.append(", ".join(f"{what} {duration(here.seconds[part])}" for part, what in parts.items()))
    lines += here.notes
    if here.open:
        lines += [f"written: {path}" for path in written]
        lines.append(f"then: orchestrator label answer {study} ANSWERS.csv")
    return lines


def _state(here: "Standing") -> list[str]:
    """Where the labelling stands, and why it has ended if so."""
    lines = [
        f"{here.study} round {here.number}: {len(here.open):,} of {here.asked:,} open; "
        f"{len(here.known):,} of {here.budget:,} labels, {_count(here.images, 'image')}"
    ]
    if not here.open and here.stop is not None:
        why = {
            "budget": "the budget is reached; a larger select.budget goes on",
            "images": "every image is labelled",
            "time": "the time for selecting is used up (--stop-after-s)",
        }
        lines.append(f"nothing to label: {why[here.stop]}")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
