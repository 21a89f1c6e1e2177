"""`orchestrator report` and `orchestrator serve`: their arguments, and what they say."""

import argparse
import sys
from pathlib import Path

from orchestrator.arguments import Subparsers, add_objectives, add_skip_damaged, asked_objectives, command_parser
from orchestrator.errors import RunError, StoreError
from orchestrator.storage.places import AnyPath, named
from orchestrator.storage.remote import RemotePath

PLACE = Path("_report") / "report.html"


def add_report_commands(commands: Subparsers) -> None:
    """The commands `report` and `serve`."""
    report = command_parser(commands, "report", _report, "write a study as one HTML file that needs no network")
    _add_table(report)
    report.add_argument("--out", type=Path, help="file to write (default: results/<study>/_report/report.html)")
    serve = command_parser(commands, "serve", _serve, "show the report in a browser of this machine, live")
    _add_table(serve)
    serve.add_argument("--port", type=_port, default=0, help="port on 127.0.0.1 (default: a free one)")


def _add_table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=named, help="results/<study>, or a Parquet file")
    add_objectives(parser)
    add_skip_damaged(parser)


def _report(options: argparse.Namespace) -> int:
    from orchestrator.report.data import payload, said
    from orchestrator.report.render import page
    from orchestrator.report.source import read

    place = _place(options)
    source = read(options.table, skip_damaged=options.skip_damaged)
    found = payload(source, asked_objectives(options))
    text = page(found).encode()
    _write(place, text, named=options.out is not None)
    for warning in source.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    sys.stdout.write("".join(f"{line}\n" for line in said(found)))
    sys.stdout.write(f"{place}: {len(text) / 1e6:.1f} MB; open it in a browser\n")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from orchestrator.report.serve import LiveReport, Server

    report = LiveReport(options.table, asked_objectives(options), skip_damaged=options.skip_damaged)
    with Server(report, options.port) as server:
        report.page()
        try:
            sys.stdout.write(f"{server.address} shows {options.table} as it changes; Ctrl-C ends it\n")
            sys.stdout.flush()
            server.serve_forever()
        except KeyboardInterrupt:
            sys.stdout.write("\nended\n")
    return 0


def _place(options: argparse.Namespace) -> Path:
    """The file to write: beside a study's table, in the working folder for a single file and what is elsewhere."""
    if options.out is not None:
        return options.out / PLACE.name if options.out.is_dir() else options.out
    from orchestrator.report.source import folder_of

    table: AnyPath = options.table
    folder = folder_of(table)
    if folder is None or isinstance(folder, RemotePath):
        return Path(f"{(folder or table).stem}.html")
    return folder / PLACE


def _write(place: Path, text: bytes, *, named: bool) -> None:
    from orchestrator.durable import publish

    try:
        _refuse_foreign(place)
        if not named:
            place.parent.mkdir(parents=True, exist_ok=True)
        publish(place, text)
    except OSError as error:
        other = "name another --out" if named else "name a file with --out"
        raise StoreError(f"{place}: the report cannot be written: {error.strerror}; {other}") from error


def _refuse_foreign(place: Path) -> None:
    """Only a report is written over."""
    from orchestrator.report.render import MARK

    try:
        with place.open("rb") as file:
            ours = MARK.encode() in file.read(1000)
    except FileNotFoundError:
        return
    if not ours:
        raise RunError(f"{place}: is there and is no report; name another --out")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; valid are 0 (a free one) to 65535")
    return int(text)
