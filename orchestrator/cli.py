"""The commands. Heavy libraries are imported by the command that needs them: `--help` loads none."""

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from orchestrator.arguments import (
    ALL_ADVICE,
    Subparsers,
    add_all,
    add_allow_code,
    add_data_root,
    add_objectives,
    add_over,
    add_results,
    add_shard,
    add_skip_damaged,
    add_study,
    asked_objectives,
    command_parser,
    cores,
    count,
)
from orchestrator.compare_command import add_compare_command
from orchestrator.errors import InterruptedRunError, OrchestratorError, RunError, TableError
from orchestrator.label_command import add_label_command
from orchestrator.live_log import LiveLogs, target
from orchestrator.log_command import add_log_command
from orchestrator.merge_command import add_merge_command
from orchestrator.methods_command import add_methods_command
from orchestrator.plot_command import add_plot_command
from orchestrator.report.command import add_report_commands
from orchestrator.retention_command import add_retention_commands
from orchestrator.sql_command import add_sql_command
from orchestrator.storage.places import named
from orchestrator.storage.secrets import redacted
from orchestrator.submit_command import add_submit_command
from orchestrator.watch_command import add_watch_command
from orchestrator.words import harmless

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.plan import Planner
    from orchestrator.shards import Shard
    from orchestrator.spec.model import StudySpec
    from trainables.config import TrialConfig

EXIT_FAILED_TRIALS, EXIT_USER_MISTAKE, EXIT_RESUMABLE, EXIT_STOPPED, EXIT_BROKEN_PIPE = 1, 2, 3, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, or one of the `EXIT_` constants."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except OrchestratorError as error:
        sys.stderr.write(f"{harmless(redacted(str(error)))}\n")
        return EXIT_RESUMABLE if isinstance(error, InterruptedRunError) else EXIT_USER_MISTAKE
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what was finished is kept, the same command goes on from there\n")
        return EXIT_STOPPED
    except BrokenPipeError:
        # The reader of a pipe has left; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with arguments without the secrets that stand in them."""

    def error(self, message: str) -> NoReturn:
        """As the library does."""
        super().error(harmless(redacted(message)))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="orchestrator",
        description="Sweep pruning, ternary quantization and labelling budgets; ask for the Pareto front.",
        epilog="Begin with: orchestrator sweep smoke.yaml",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_study_commands(commands)
    add_submit_command(commands)
    add_label_command(commands)
    _add_result_commands(commands)
    add_compare_command(commands)
    add_sql_command(commands)
    add_report_commands(commands)
    add_plot_command(commands)
    add_watch_command(commands)
    add_log_command(commands)
    add_merge_command(commands)
    _add_deploy_commands(commands)
    add_retention_commands(commands)
    _add_reference_commands(commands)
    return parser


def _add_study_commands(commands: Subparsers) -> None:
    sweep = command_parser(commands, "sweep", _sweep, "run what is missing of a study and show its front")
    add_study(sweep)
    sweep.add_argument("--runner", choices=("tune", "serial"), default="tune", help="Ray Tune, or this process alone")
    sweep.add_argument("--address", help="join a running Ray cluster instead of starting a local one")
    sweep.add_argument("--cores", type=count, default=cores(), help="cores to use (default: all, %(default)s)")
    add_data_root(sweep)
    sweep.add_argument("--download", action="store_true", help="fetch missing data sets into --data-root")
    sweep.add_argument("--optuna-journal", type=Path, metavar="FILE", help="write a search for optuna-dashboard")
    sweep.add_argument(
        "--log", action="append", default=[], type=target, metavar="TO[:DIR]",
        help="hand trials to mlflow, wandb or tensorboard as they end (default DIR: logs)",
    )  # fmt: skip
    sweep.add_argument(
        "--stop-after-same-error", type=count, metavar="K", help="end early once K stages have failed alike"
    )
    sweep.add_argument(
        "--retry-failed", action="store_true",
        help="run failed stages again that have no more memory or time than when they failed",
    )  # fmt: skip
    sweep.add_argument("--no-latency", action="store_true", help="do not measure what the section latency asks for")
    add_shard(sweep)
    plan = command_parser(commands, "plan", _plan, "say what a sweep would run, what is cached, and how long it takes")
    add_study(plan)
    add_shard(plan)
    plan.add_argument("--probe", action="store_true", help="time one short stage of each kind of work first")
    plan.add_argument("--cores", type=count, default=cores(), help="cores a sweep would use (default: %(default)s)")
    add_data_root(plan)
    check = command_parser(commands, "check", _check, "refuse a bad study, with every fault and its line")
    add_study(check)
    add_data_root(check)


def _add_result_commands(commands: Subparsers) -> None:
    status = command_parser(commands, "status", _status, "how far the studies of a results root are")
    status.add_argument("study", nargs="?", help="only this one")
    add_skip_damaged(status)
    add_results(status)
    show = command_parser(commands, "show", _show, "everything about one trial")
    show.add_argument("trial", help="trial_id, or its beginning")
    add_skip_damaged(show)
    add_results(show)
    pareto = command_parser(commands, "pareto", _pareto, "the Pareto front of a study")
    pareto.add_argument("table", type=named, help="results/<study>, or a Parquet file")
    add_objectives(pareto)
    add_skip_damaged(pareto)
    add_over(pareto)
    add_all(pareto)
    pareto.add_argument("--select-on", choices=("val_accuracy",), help="choose on it in place of accuracy")
    form = pareto.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV")
    form.add_argument("--json", action="store_true", help="print JSON, one object a line")


def _add_deploy_commands(commands: Subparsers) -> None:
    export = command_parser(commands, "export", _export, "write a trial's network as a folder that others can run")
    export.add_argument("trial", help="trial_id, or its beginning")
    export.add_argument("--format", required=True, choices=("packed", "onnx", "torch"), help="of the model file")
    export.add_argument("--out", type=Path, help="folder to write (default: ./<study>-<trial_id>-<format>)")
    add_data_root(export)
    export.add_argument("--force", action="store_true", help="replace the files of another export in the folder")
    add_allow_code(export, "let a model of your own be imported and run")
    add_results(export)
    predict = command_parser(commands, "predict", _predict, "classify images with an exported network")
    predict.add_argument("model", type=Path, help="exported folder, a model file in one, or a packed file")
    predict.add_argument("images", type=Path, nargs="+", help="image files, folders of them, .npy of uint8 (N,H,W[,C])")
    predict.add_argument(
        "--runtime", choices=("auto", "packed", "openvino", "onnxruntime", "torch"), default="auto",
        help="what runs the network (default: the first that can)",
    )  # fmt: skip
    predict.add_argument("--top", type=count, default=1, metavar="K", help="classes per image (default: 1)")
    predict.add_argument("--resize", action="store_true", help="scale images of other sizes; the aspect is not kept")
    predict.add_argument("--threads", type=count, default=1, help="threads of the runtime (default: 1)")
    add_allow_code(predict, "let the network be one of your own, whose code is then imported and run")
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV")
    form.add_argument("--json", action="store_true", help="print JSON, one object a line")


def _add_reference_commands(commands: Subparsers) -> None:
    columns = command_parser(commands, "columns", _columns, "what each column means: unit, direction, determinism")
    columns.add_argument("--json", action="store_true", help="print JSON")
    add_methods_command(commands)
    studies = command_parser(commands, "studies", _studies, "the shipped studies and those with results")
    add_results(studies)
    command_parser(commands, "schema", _schema, "the JSON schema of a study file, for editors")


def _planner(
    options: argparse.Namespace,
    *,
    may_probe: bool = True,
    before_probe: "Callable[[TrialConfig], None] | None" = None,
) -> "Planner":
    from orchestrator.layout import Layout
    from orchestrator.planning import Site, planner_of
    from orchestrator.spec.load import load_spec

    spec = load_spec(options.study, options.overrides, allow_code=options.allow_code)
    site = Site(Layout(options.results.resolve()), options.data_root.resolve(), _code_folder(options))
    return planner_of(spec, site, _announce, may_probe=may_probe, before_probe=before_probe)


def _code_folder(options: argparse.Namespace) -> Path | None:
    """Where a user's own model is looked for; None: it may not be imported."""
    return Path.cwd() if options.allow_code else None


def _announce(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def _sweep(options: argparse.Namespace) -> int:
    from orchestrator.layout import Layout
    from orchestrator.reports import sweep_ended
    from orchestrator.screen import SweepScreen, console, say
    from orchestrator.sweep import Options, prepare_data, sweep

    def data_is_there(config: "TrialConfig") -> None:
        prepare_data([config.data], options.data_root.resolve(), download=options.download)

    planner = _planner(options, before_probe=data_is_there)
    if options.address:
        _warn_of_auto(options, planner.spec)
    where = Options(
        layout=Layout(options.results.resolve()), data_root=options.data_root.resolve(), download=options.download,
        runner=options.runner, address=options.address, cores=options.cores, latency=not options.no_latency,
        code_folder=_code_folder(options), optuna_journal=_journal(options.optuna_journal, planner),
        shard=_shard(options, planner),
        stop_after_same=options.stop_after_same_error, retry_failed=options.retry_failed,
    )  # fmt: skip
    terminal = console()
    with LiveLogs(options.log, where.layout.study(planner.spec.study)) as logs:
        with SweepScreen(terminal).showing() as screen:
            summary = sweep(planner, where, screen)
        failed = sweep_ended(terminal, summary, options.results)
        for line in logs.finish():
            say(terminal, line)
    if summary.interrupted and not summary.stopped_by:
        return EXIT_RESUMABLE
    return EXIT_FAILED_TRIALS if failed else 0


def _warn_of_auto(options: argparse.Namespace, spec: "StudySpec") -> None:
    """On a cluster `device: auto` is what this machine has; others may have GPUs."""
    from orchestrator.spec.demands import written_auto
    from orchestrator.spec.load import load_spec

    if any(demand.gpus for demand in spec.resources.demands) or "resources" not in spec.tree:
        return
    written = load_spec(options.study, options.overrides, allow_code=options.allow_code, elsewhere=True)
    if keys := written_auto(written.tree["resources"]):
        _announce(
            f"warning: {' and '.join(keys)}: auto is the CPU here, as this machine has no GPU; where others of the "
            f"cluster have, add --set {keys[0]}=cuda"
        )


def _shard(options: argparse.Namespace, planner: "Planner") -> "Shard | None":
    """The part of the study that is asked for, where it can be parted."""
    if options.shard is None:
        return None
    from orchestrator.shards import Shard, check_parted

    check_parted(planner.spec)
    return Shard(*options.shard)


def _journal(path: Path | None, planner: "Planner") -> Path | None:
    if path is None:
        return None
    from orchestrator.journal import check_journal

    if not planner.spec.search.sampled:
        raise RunError(f"--optuna-journal: a search by {planner.spec.search.name} asks Optuna nothing; leave it out")
    check_journal(path)
    return path


def _plan(options: argparse.Namespace) -> int:
    from orchestrator.estimate import Estimator
    from orchestrator.layout import Layout
    from orchestrator.ledger import replay
    from orchestrator.planning import growth_of
    from orchestrator.reports import empty_shard, latency_report, plan_report
    from orchestrator.runner.base import missing
    from orchestrator.screen import console

    planner = _planner(options)
    shard = _shard(options, planner)
    layout = Layout(options.results.resolve())
    replayed = replay(layout.ledger)
    growth_of(planner, replayed, lambda events: None)
    plan = shard.part(planner.plan) if shard else planner.plan
    if shard and not plan.trials:
        empty_shard(console(), shard, planner.spec)
        return 0
    if shard:
        _announce(f"shard {shard} of plan {planner.plan.digest}, {len(planner.plan.trials):,} trials in all")
    todo = missing(plan, replayed.records, layout)
    known = list(replayed.records.values())
    if options.probe:
        from orchestrator.runner.probe import probe
        from trainables.errors import TrialError
        from trainables.sources import importable

        try:
            with importable(_code_folder(options)):
                known += probe(todo.stages, known, options.data_root.resolve(), plan.spec.resources.of("train").cpus)
        except TrialError as error:
            raise RunError(str(error)) from error
    plan_report(console(), plan, todo, Estimator(known), options.cores, replayed.warnings)
    latency_report(console(), plan, replayed.records)
    return 0


def _check(options: argparse.Namespace) -> int:
    plan = _planner(options, may_probe=False).plan
    cells = f"{plan.cells:,} cell{'' if plan.cells == 1 else 's'}"
    what = plan.search_line if plan.spec.search.sampled else cells
    sys.stdout.write(f"{plan.spec.source}: no fault; {what}\n")
    return 0


def _status(options: argparse.Namespace) -> int:
    from orchestrator.layout import Layout
    from orchestrator.reports import status_report
    from orchestrator.screen import console

    layout = Layout(options.results)
    names = [options.study] if options.study else layout.studies()
    if not names:
        raise TableError(f"{options.results}: no study has results here; run one with: orchestrator sweep smoke.yaml")
    damaged = status_report(console(), layout, names)
    return EXIT_USER_MISTAKE if damaged and not options.skip_damaged else 0


def _show(options: argparse.Namespace) -> int:
    from orchestrator.layout import Layout
    from orchestrator.reports import trial_report
    from orchestrator.screen import console
    from orchestrator.trials import find_trial

    terminal, layout = console(), Layout(options.results)
    found, left_out = find_trial(layout, options.trial, skip_damaged=options.skip_damaged)
    sys.stderr.write("".join(f"warning: {line}\n" for line in left_out))
    trial_report(terminal, layout, found)
    return 0


def _pareto(options: argparse.Namespace) -> int:
    from orchestrator.analysis.objectives import parse_objectives
    from orchestrator.fronts import bounded_front_report, bounds_line
    from orchestrator.report.bounds import within
    from orchestrator.report.source import readable_trials, study_beside
    from orchestrator.screen import console

    df, left_out = readable_trials(options.table, skip_damaged=options.skip_damaged)
    study, asked = study_beside(options.table), asked_objectives(options)
    objectives = parse_objectives(asked, also=map(str, df.columns)) if asked else study.objectives
    unread = [] if asked or not study.warning else [study.warning]
    sys.stderr.write("".join(f"warning: {line}\n" for line in (*left_out, *unread)))
    over = None if options.over == "none" else options.over or study.over
    where = () if options.all else study.where
    kept = within(df, where)
    if where and (options.csv or options.json):
        sys.stderr.write(f"{bounds_line(df, kept, where)}{ALL_ADVICE}\n")
    front: pd.DataFrame = kept.pareto.front(objectives, over=over, select_on=options.select_on, seeds=study.seeds)
    if options.csv:
        front.to_csv(sys.stdout, index=False)
    elif options.json:
        sys.stdout.write(front.to_json(orient="records", lines=True, double_precision=15, date_format="iso"))
    else:
        bounded_front_report(console(), df, kept, front, objectives, where, options.select_on or "", ALL_ADVICE)
    return 0


def _export(options: argparse.Namespace) -> int:
    from orchestrator.deploy import ExportRequest, export_trial
    from orchestrator.layout import Layout
    from orchestrator.reports import export_report
    from orchestrator.screen import console
    from trainables.errors import ExportError

    request = ExportRequest(
        options.trial, options.format, options.out, options.data_root, options.force, _code_folder(options), _announce
    )
    try:
        folder, facts = export_trial(request, Layout(options.results))
    except ExportError as error:
        _announce(str(error))
        return EXIT_FAILED_TRIALS
    export_report(console(), folder, facts)
    return 0


def _predict(options: argparse.Namespace) -> int:
    from orchestrator.deploy import PredictRequest, predict_images

    request = PredictRequest(
        options.model, options.images, options.runtime, options.top, options.resize, options.threads,
        _code_folder(options),
    )  # fmt: skip
    found, engine = predict_images(request)
    rows = [{"path": p.path, "rank": p.rank, "class": p.label, "name": p.name, "probability": p.probability}
            for p in found]  # fmt: skip
    if options.csv:
        writer = csv.DictWriter(sys.stdout, ["path", "rank", "class", "name", "probability"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    elif options.json:
        sys.stdout.write("".join(json.dumps(row) + "\n" for row in rows))
    else:
        from orchestrator.reports import prediction_report
        from orchestrator.screen import console

        prediction_report(console(), found, engine)
    return 0


def _columns(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from orchestrator.analysis import tables

    if options.json:
        sys.stdout.write(json.dumps([asdict(column) for column in tables.COLUMNS.values()], indent=1) + "\n")
    else:
        sys.stdout.write(tables.document())
    return 0


def _studies(options: argparse.Namespace) -> int:
    from orchestrator.layout import Layout
    from orchestrator.reports import studies_report
    from orchestrator.screen import console

    studies_report(console(), Layout(options.results))
    return 0


def _schema(options: argparse.Namespace) -> int:
    del options
    from orchestrator.spec.schema import study_schema

    sys.stdout.write(json.dumps(study_schema(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
