"""What a person reads at the end of a command: plans, fronts, states, single trials."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from orchestrator.analysis.tables import COLUMNS
from orchestrator.errors import TableError
from orchestrator.estimate import Estimate, Estimator
from orchestrator.failures import REMEDIES
from orchestrator.fronts import bounded_front_report, varied
from orchestrator.layout import Layout
from orchestrator.ledger import StageRecord, replay
from orchestrator.merge import Merged
from orchestrator.observations import here, missing, recorded, wanted
from orchestrator.plan import Plan
from orchestrator.quiet import LatencyEstimator
from orchestrator.runner.base import Missing
from orchestrator.screen import STAGE_KINDS, duration, number, plural, say, table_of, tell
from orchestrator.shards import Shard, runner_of
from orchestrator.spec.load import shipped_studies
from orchestrator.spec.model import StudySpec
from orchestrator.spec.quantities import show_bytes
from orchestrator.storage.places import AnyPath
from orchestrator.sweep import Summary
from orchestrator.trials import Row
from orchestrator.watch import Follower
from orchestrator.words import brief, signature
from trainables.export.facts import Facts

if TYPE_CHECKING:
    import pandas as pd

    from trainables.runtimes.deployed import Prediction


def sweep_ended(terminal: Console, summary: Summary, results: AnyPath) -> int:
    """Say how a sweep ended and show its front; returns how many trials failed."""
    from orchestrator.analysis.load import load
    from orchestrator.report.bounds import within

    spec, shard = summary.plan.spec, summary.shard
    folder = results / spec.study
    if shard and not summary.plan.trials:
        empty_shard(terminal, shard, spec)
        return 0
    df = load(folder)
    state = "interrupted" if summary.interrupted else "finished"
    work = f"{plural(summary.ran, 'stage')} ran, {summary.cached} cached"
    work += f", {plural(summary.measured, 'latency', 'latencies')} measured" if summary.measured else ""
    if gone := summary.evicted.files:
        work += f"; {plural(gone, 'output')} not kept, {summary.evicted.bytes:,} bytes"
    part = f" shard {shard}" if shard else ""
    tell(terminal, f"{spec.study}{part} {state} in {duration(summary.wall_s)}: {work}")
    failed = _failures(terminal, df[df["trial_id"].isin({trial.id for trial in summary.plan.trials})], results)
    if summary.stopped_by:
        tell(terminal, f"Ended early (--stop-after-same-error): {summary.stopped_by}", style="red")
    if shard:
        done = int(df["status"].notna().sum())
        say(terminal, f"Of all shards, {done:,} of {plural(len(df), 'trial')} are done; what follows is of these.")
    if summary.interrupted:
        say(terminal, "What is finished is kept; the same command goes on from there.")
    where = spec.search.where
    kept = within(df, where)
    bounded_front_report(terminal, df, kept, _front(terminal, kept, spec), spec.objectives, where)
    _warm(terminal, *summary.warm)
    say(terminal, f"\n{where_to_look(folder)}")
    return failed


def where_to_look(folder: AnyPath) -> str:
    """A study's table, and what reads it: lines that can be copied, whatever the folder is called."""
    table, quoted = folder / "trials.parquet", shlex.quote(str(folder))
    python = f"In Python: orchestrator.load({str(folder)!r})"
    return f"{table}: one row a trial\n{python}\nLook further: orchestrator pareto {quoted}"


def empty_shard(terminal: Console, shard: Shard, spec: StudySpec) -> None:
    """Say that a study has too few subtrees for this many parts."""
    say(terminal, f"shard {shard} of {spec.study} has no cells: all that the study trains is in the other shards")


def _front(terminal: Console, df: "pd.DataFrame", spec: StudySpec) -> "pd.DataFrame":
    """The front that a sweep ends with."""
    if spec.search.repeats == "full":
        return df.pareto.front(spec.objectives, over="seed")
    cells = df[df["role"] == "cell"]
    configs = len(cells.drop(columns="seed")[varied(df)].drop_duplicates())
    whole = (
        f"{configs * len(spec.seeds):,} that {len(spec.seeds)} seeds of each of {plural(configs, 'config')} would be"
    )
    say(terminal, f"{plural(len(cells), 'trial')} in place of the {whole}")
    return df.pareto.front(spec.objectives, over="expected", seeds=spec.seeds)


def plan_report(
    terminal: Console, plan: Plan, todo: Missing, estimator: Estimator, cores: int, warnings: Sequence[str]
) -> None:
    """What a sweep would run, what is cached and what sharing saves; an estimate of the time."""
    for warning in warnings:
        tell(terminal, f"warning: {warning}")
    say(
        terminal,
        f"{plan.spec.study}: {plural(plan.cells, 'cell')} + {plural(len(plan.trials) - plan.cells, 'baseline')}",
    )
    if plan.spec.question:
        say(terminal, f"  {plan.spec.question}")
    if plan.grows:
        say(terminal, f"{plan.search_line}; what follows is of the trials known so far")
    if not plan.trials:
        say(terminal, "nothing was asked for yet: how long it takes is known once some configs have run")
        return
    unshared = Counter[str]()
    for key, count in plan.unshared().items():
        unshared[plan.stages[key].kind] += count
    to_run = {stage.key: estimator.estimate(stage) for stage in todo.stages}
    table = table_of("stage", "in all", "to run", "cached", "saved by sharing", "busy time to run")
    for kind in STAGE_KINDS:
        keys = [key for key, stage in plan.stages.items() if stage.kind == kind]
        if kind == "select" and not keys:
            continue
        running = [to_run[key].seconds for key in keys if key in to_run]
        counts = (len(keys), len(running), len(keys) - len(running), unshared[kind] - len(keys))
        table.add_row(kind, *(f"{count:,}" for count in counts), duration(sum(running)))
    terminal.print(table)
    for item in plan.excluded:
        say(terminal, f"excluded: {plural(item.count, 'cell')} by `{item.expression}`")
    if plan.collapsed:
        say(
            terminal,
            f"collapsed: {plural(plan.collapsed, 'cell')} that `when`, or leaves without effect, make equal to another",
        )
    _sharing(terminal, plan, estimator)
    _time_needed(terminal, plan, list(to_run.values()), cores)


def latency_report(terminal: Console, plan: Plan, records: Mapping[str, StageRecord]) -> None:
    """How many latencies a sweep would measure on this machine, and about how long that takes."""
    asked, open_still = len(wanted(plan)), missing(plan, records, here())
    if not asked:
        return
    seconds = LatencyEstimator(plan, records).seconds(open_still)
    time = f", about {duration(seconds)} after all training, on this machine alone" if open_still else ""
    say(terminal, f"latency: {len(open_still)} of {plural(asked, 'observation')} to measure{time}")


def status_report(terminal: Console, layout: Layout, names: Sequence[str]) -> int:
    """How far each study is, and whether it runs at this moment; returns how many tables cannot be read."""
    from orchestrator.analysis.load import load

    table = table_of("study", "state", "trials", "complete", "failed", "infeasible", "stopped", "open", "last finished")
    damaged = 0
    for name in names:
        try:
            df = load(layout.study(name), columns=["status", "finished_at"])
        except TableError as error:
            if len(names) == 1:
                raise
            damaged += 1
            table.add_row(name, "unreadable", *["-"] * 7)
            say(terminal, f"{error}\nSweep the study again to rebuild its table from the store.")
            continue
        counts = df["status"].value_counts(dropna=False)
        unfinished = int(df["status"].isna().sum())
        running = runner_of(layout, name)
        state = f"running (pid {running.pid})" if running else "incomplete" if unfinished else _ended(layout, name)
        known = (str(int(counts.get(status, 0))) for status in ("complete", "failed", "infeasible", "stopped"))
        last = df["finished_at"].max()
        when = "-" if last != last else f"{last:%Y-%m-%d %H:%M}"
        table.add_row(name, state, str(len(df)), *known, str(unfinished), when)
    terminal.print(table)
    return damaged


def _ended(layout: Layout, name: str) -> str:
    """How a study without open trials stands: a search may have more to ask, and latencies may be missing."""
    from orchestrator.report.source import study_beside

    spec = study_beside(layout.study(name)).spec
    if spec is None or not (spec.search.sampled or spec.base.get("latency")):
        return "done"
    standing = Follower(layout, name, skip_damaged=True).look()
    return "incomplete" if standing.asked else "not timed" if standing.unmeasured else "done"


def trial_report(terminal: Console, layout: Layout, found: Sequence[Row]) -> None:
    """Every column of one trial, of which `found` are the rows in each study, and the stages it is made of."""
    row = found[0]
    table = table_of(
        "column", "value", "unit", title=f"trial {row['trial_id']} of {', '.join(r['study'] for r in found)}"
    )
    for name, value in row.items():
        if value is not None and value == value and name != "error":
            unit = COLUMNS[name].unit if name in COLUMNS else ""
            table.add_row(name, number(value), "" if unit == "1" else unit)
    terminal.print(table)
    if isinstance(row.get("error"), str):
        tell(terminal, row["error"])
    keys = [value for name, value in row.items() if name.startswith("stage_keys.") and isinstance(value, str)]
    replayed = replay(layout.ledger)
    records = replayed.records
    _stages(terminal, layout, keys, records)
    _attempts(terminal, [attempt for key in keys for attempt in replayed.attempts.get(key, ())])
    _latencies(terminal, keys, records)


def export_report(terminal: Console, folder: Path, facts: Facts) -> None:
    """What was exported, where it lies, and how it compares with the network that the trial left."""
    say(terminal, f"{folder}: trial {facts.trial_id} of {facts.study} as {facts.format}, {facts.bytes:,} bytes")
    for one in facts.checks:
        same = f"the same class on {100 * one.agreement:.2f} % of {plural(one.images, 'test image')}"
        told = f"{same}, logits within {one.max_difference:.3g}, accuracy {100 * one.accuracy:.2f} %"
        say(terminal, f"  in {one.runtime}: {told}")
    say(terminal, f"Try it: orchestrator predict {shlex.quote(str(folder))} IMAGE")


def prediction_report(terminal: Console, found: "Sequence[Prediction]", engine: str) -> None:
    """The classes of images as a table."""
    table = table_of("image", "class", "name", "probability")
    for one in found:
        table.add_row(one.path if one.rank == 1 else "", str(one.label), one.name, f"{100 * one.probability:.2f} %")
    terminal.print(table)
    say(terminal, f"{plural(len({one.path for one in found}), 'image')}, run by {engine}")


def studies_report(terminal: Console, layout: Layout) -> None:
    """The shipped studies with their questions, and those that have results."""
    from orchestrator.spec.load import load_spec

    table = table_of("shipped study", "question", numbers=False)
    for path in sorted(shipped_studies().glob("*.yaml")):
        table.add_row(path.name, load_spec(str(path)).question)
    terminal.print(table)
    if names := layout.studies():
        say(terminal, f"with results in {layout.root}: {', '.join(names)}")


def merge_report(terminal: Console, found: Merged, results: AnyPath) -> None:
    """What a merge has brought, and how the tables come about."""
    for warning in found.warnings:
        tell(terminal, f"warning: {warning}")
    if not (found.ledgers or found.outputs):
        say(terminal, f"{results} has all of it already")
    else:
        brought = f"{plural(found.ledgers, 'ledger')} and {plural(found.outputs, 'output')}"
        say(terminal, f"{brought} ({found.output_bytes / 1e6:,.1f} MB) brought to {results}")
    if found.absent:
        gone = plural(len(found.absent), "finished stage")
        say(terminal, f"the output of {gone} is gone or damaged everywhere; it is made again where it is needed")
    say(terminal, "Now write the tables, all cached: orchestrator sweep STUDY")


def _warm(terminal: Console, told: int, members: int) -> None:
    """What the search was told of other studies, whose trials are no rows here."""
    if told:
        known = f"the search was told {plural(told, 'config')} of other studies"
        tell(terminal, f"{known}; by validation {members} of them would be on this front")


def _failures(terminal: Console, df: "pd.DataFrame", results: AnyPath) -> int:
    """Trials that did not get through, grouped by their error; returns how many failed."""
    bad = df[df["status"].isin(["failed", "infeasible"])]
    elsewhere = "" if str(results) == "results" else f" --results {shlex.quote(str(results))}"
    for (status, _), rows in bad.groupby([bad["status"], bad["error"].map(signature)]):
        classes = sorted(rows["failure"].dropna().unique())
        kinds = ", ".join(classes)
        status, error = f"{status} ({kinds})" if kinds else status, brief(rows["error"].iloc[0])
        trials = ", ".join(rows["trial_id"].head(3)) + (", ..." if len(rows) > 3 else "")
        tell(terminal, f"{len(rows)} {status}: {error}")
        say(terminal, f"  {trials}\n  see: orchestrator show {rows['trial_id'].iloc[0]}{elsewhere}")
        for remedy in (REMEDIES[name] for name in classes if name in REMEDIES):
            say(terminal, f"  then: {remedy}")
    if early := int((df["status"] == "stopped").sum()):
        say(terminal, f"{plural(early, 'trial')} stopped early; the column error says where and why")
    return int((df["status"] == "failed").sum())


def _sharing(terminal: Console, plan: Plan, estimator: Estimator) -> None:
    once = sum(estimator.estimate(stage).seconds for stage in plan.stages.values())
    each = sum(count * estimator.estimate(plan.stages[key]).seconds for key, count in plan.unshared().items())
    say(terminal, f"sharing: {duration(once)} of busy time in place of {duration(each)} ({each / once:.2f}x)")


def _time_needed(terminal: Console, plan: Plan, estimates: Sequence[Estimate], cores: int) -> None:
    if not estimates:
        say(terminal, "nothing to run: all is cached")
        return
    workers = max(1, cores // plan.spec.resources.of("train").cpus)
    seconds = sum(estimate.seconds for estimate in estimates) / workers
    guessed = sum(estimate.basis == "guess" for estimate in estimates)
    basis = f"{guessed} of {len(estimates)} stages by a guess; --probe measures" if guessed else "from finished stages"
    say(
        terminal,
        f"time: about {duration(seconds)} on {plural(workers, 'worker')} ({basis}), and some 15 s for Ray to start",
    )


def _stages(terminal: Console, layout: Layout, keys: Sequence[str], records: Mapping[str, StageRecord]) -> None:
    table = table_of("stage", "status", "busy", "host", "run", "output", numbers=False)
    for key in keys:
        if record := records.get(key):
            kept = "kept" if layout.artifacts.has(key) else "-"
            table.add_row(record.kind, record.status, duration(record.busy_s), record.host, record.run, kept)
    terminal.print(table)
    for key in keys:
        if layout.artifacts.has(key):
            say(terminal, f"{records[key].kind if key in records else 'output'}: {layout.artifacts.path(key)}")


def _attempts(terminal: Console, attempts: Sequence[StageRecord]) -> None:
    """Attempts at the trial's stages that failed and were followed by others."""
    for one in attempts:
        given = f" with {show_bytes(one.memory_limit)}" if one.memory_limit and one.failure == "oom" else ""
        what = f"{one.kind}, attempt {one.attempt} of run {one.run}{given}: {one.failure}"
        tell(terminal, f"{what}: {brief(one.error or 'no reason was kept')}")


def _latencies(terminal: Console, keys: Sequence[str], records: Mapping[str, StageRecord]) -> None:
    """Every observation of the trial's network, on whatever machine it was taken."""
    sums = {records[key].artifact_sha256 for key in keys if key in records and records[key].kind == "evaluate"}
    by_machine: defaultdict[str, list[StageRecord]] = defaultdict(list)
    for record in records.values():
        if record.kind == "latency" and record.parent_sha256 in sums:
            by_machine[record.machine].append(record)
    for machine, taken in by_machine.items():
        table = table_of("runtime", "batch", "threads", "ms (quartiles)", "ratio", "agreement")
        for record in taken:
            table.add_row(*_latency_cells(record))
        terminal.print(table)
        for reason in dict.fromkeys(map(_not_measured, taken)):
            if reason:
                tell(terminal, reason)
        tell(terminal, f"measured on {machine}; ratio: time of the dense parent in OpenVINO fp32 / this")


def _latency_cells(record: StageRecord) -> list[str]:
    found = recorded(record)
    names = ("latency_ms", "latency_q1_ms", "latency_q3_ms", "latency_ratio")
    median, low, high, ratio = (_three_digits(found.get(name)) for name in names)
    agreement = number(found.get("runtime_agreement"), "fraction")
    spread = f"{median} ({low}-{high})" if record.status == "complete" else record.status
    return [*(str(record.config[name]) for name in ("runtime", "batch", "threads")), spread, ratio, agreement]


def _three_digits(value: float | None) -> str:
    return f"{value:.3g}" if value is not None and abs(value) < 100 else number(value)


def _not_measured(record: StageRecord) -> str:
    """Why an observation has no figures; equal for the batch sizes of one runtime."""
    if record.status == "complete":
        return ""
    return f"{record.config['runtime']} {record.status}: {brief(record.error or 'no reason was kept')}"
