"""Errors as a person reads them: whole words, and the advice at the end kept."""

import io
import shlex
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orchestrator import fronts, reports
from orchestrator.ledger import StageRecord
from orchestrator.runner import ray_host
from orchestrator.screen import SweepScreen, tell
from orchestrator.spec.resources import Demand
from orchestrator.storage.places import located
from orchestrator.words import LONGEST, brief
from trainables.config import TrialConfig
from trainables.keys import Stage

LONG = "the same class on 97.25 % of 360 images; compress.activations sign needs model.block bn_first, " * 2


def record(key: str, status: str, error: str | None, **more: object) -> StageRecord:
    return StageRecord(
        key=key, kind="compress", parent=None, seed=0, status=status,  # pyright: ignore[reportArgumentType]
        busy_s=1.0, started_at=0.0, finished_at=1.0, error=error, **more,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip


def console(width: int, *, terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)


def printed(terminal: Console) -> str:
    assert isinstance(terminal.file, io.StringIO)
    return terminal.file.getvalue()


def test_an_error_is_one_line_of_all_its_words() -> None:
    assert brief(LONG) == LONG.strip(), "longer than a line, and not cut"
    assert brief("one\n  two\n\nthree ") == "one two three"
    assert brief('Traceback\n  File "a.py", line 1, in f\n    g()\nValueError: no') == "ValueError: no"
    assert brief("") == ""


@given(st.lists(st.text("ab9%", min_size=1, max_size=30), min_size=10, max_size=50))
def test_a_long_error_is_cut_between_words_and_keeps_its_end(words: list[str]) -> None:
    text = " ".join(words * 8)
    cut = brief(text)
    if len(text) <= LONGEST:
        assert cut == text
        return
    head, tail = cut.split(" ... ")
    assert len(cut) <= LONGEST + len(" ... ")
    assert text.startswith(f"{head} ")
    assert text.endswith(f" {tail}")
    assert len(tail) > LONGEST // 4


def test_a_terminal_wraps_between_words_and_a_pipe_does_not() -> None:
    narrow, pipe = console(40, terminal=True), console(40, terminal=False)
    for each in (narrow, pipe):
        tell(each, LONG)
    assert printed(pipe).count("\n") == 1
    assert [line.split() for line in printed(narrow).splitlines()] != [LONG.split()]
    assert printed(narrow).split() == LONG.split()


def test_the_live_view_tells_infeasible_from_failed_and_no_time_is_below_zero() -> None:
    terminal = console(120, terminal=True)
    with SweepScreen(terminal).showing() as screen:
        screen.measuring(1, "machine", 1.0)
        screen.finished([record("a", "infeasible", "cannot"), record("b", "failed", "broke")], ["c"], -2.7e-14)
    shown = printed(terminal)
    assert "1 infeasible: cannot" in shown
    assert "1 failed: broke" in shown
    assert "about 0 s left" in shown
    assert "-2.7" not in shown


def test_errors_that_differ_in_numbers_alone_are_one_kind() -> None:
    terminal = console(120, terminal=True)
    with SweepScreen(terminal).showing() as screen:
        screen.measuring(1, "machine", 1.0)
        for number in ("13561100.0", "922197000.0"):
            screen.finished([record(number, "failed", f"loss {number} at epoch 2; a lower lr than 0.5")], [], 0.0)
    assert "2 failed: loss 13561100.0 at epoch 2; a lower lr than 0.5" in printed(terminal)
    assert "922197000" not in printed(terminal)


def test_workers_that_have_begun_are_not_started() -> None:
    terminal = Console(record=True, width=160, force_terminal=True, color_system=None)
    with SweepScreen(terminal).showing() as screen:
        terminal.print(screen._picture())  # pyright: ignore[reportPrivateUsage]
        config = TrialConfig.model_validate(
            {"data": {"name": "digits"}, "model": {"name": "resnet8", "width": 4}, "train": {"epochs": 1}}
        )
        screen.handed_out([Stage("k", "train", None, config, 0)])
        terminal.print(screen._picture())  # pyright: ignore[reportPrivateUsage]
    first, second, *_ = (line for line in terminal.export_text().splitlines() if "elapsed" in line)
    assert first.endswith("starting workers")
    assert second.endswith("first stages are running")


@pytest.mark.parametrize(
    ("early", "urgent", "told"),
    [(False, False, "another Ctrl-C"), (False, True, "; Ctrl-C"), (True, False, "; Ctrl-C")],
)
def test_ctrl_c_is_another_one_where_somebody_pressed_it(early: bool, urgent: bool, told: str) -> None:
    terminal = Console(record=True, width=160)
    screen = SweepScreen(terminal)
    if early:
        screen.stopping("2 errors alike")
    screen.draining(urgent)
    assert f"{told} stops at once" in terminal.export_text()


def test_what_is_handed_out_by_a_later_run_is_not_said_to_be_handed_out_again() -> None:
    terminal = Console(record=True, width=160)
    screen = SweepScreen(terminal)
    screen.retried(record("a", "failed", "asked back", failure="preempted"), Demand())
    screen.draining(urgent=True)
    screen.retried(record("b", "failed", "asked back", failure="preempted"), Demand())
    first, _, second = terminal.export_text().splitlines()
    assert first.endswith("asked back; it is handed out again")
    assert second.endswith("asked back; the same command goes on from there")


@pytest.mark.parametrize(("failure", "key"), [("oom", "resources.memory"), ("timeout", "resources.timeout")])
def test_what_would_mend_a_failure_is_told_at_the_end(failure: str, key: str) -> None:
    terminal = Console(record=True, width=160)
    row = {"status": "failed", "failure": failure, "error": "stage train: too much", "trial_id": "t"}
    df = pd.DataFrame([row, {**row, "failure": "bug", "error": "KeyError"}])
    assert reports._failures(terminal, df, Path("of mine")) == 2  # pyright: ignore[reportPrivateUsage]
    told = terminal.export_text()
    assert told.count("see: orchestrator show t --results 'of mine'\n") == 2
    assert told.count("then: ") == told.count(f"--set {key}=") == 1


@pytest.mark.parametrize("root", ["s3://bucket/of mine?endpoint_override=h:1&region=us-east-1", "/results of mine"])
def test_the_last_lines_of_a_sweep_name_its_table_and_can_be_copied(root: str) -> None:
    folder = located(root) / "a"
    table, _, further = reports.where_to_look(folder).splitlines()
    named = table.removesuffix(": one row a trial")
    assert located(named) == folder / "trials.parquet"
    assert shlex.split(further.partition(": ")[2]) == ["orchestrator", "pareto", str(folder)]


def test_what_no_machine_has_is_told_in_gib_with_the_key_that_asks_for_it() -> None:
    nodes = [{"CPU": 4.0, "memory": 8.0 * 2**30}, {"CPU": 2.0, "memory": 16.0 * 2**30}]
    told = ray_host._too_much(nodes, Demand(memory=900 * 2**30))  # pyright: ignore[reportPrivateUsage]
    assert "(CPU 1, memory 900 GiB); the most there is: CPU 4, memory 16 GiB" in told
    assert "--set resources.memory=..." in told
    assert "resources.cpus" not in told
    both = ray_host._too_much(nodes, Demand(cpus=4, memory=12 * 2**30))  # pyright: ignore[reportPrivateUsage]
    assert "--set resources.cpus=... and --set resources.memory=..." in both, "no machine has the two together"


def test_a_warm_start_is_told_at_its_beginning_and_end() -> None:
    terminal = Console(record=True, width=160)
    SweepScreen(terminal).warm(16)
    reports._warm(terminal, 16, 3)  # pyright: ignore[reportPrivateUsage]
    reports._warm(terminal, 0, 0)  # pyright: ignore[reportPrivateUsage]
    assert terminal.export_text().splitlines() == [
        "the search was told 16 configs that other studies have finished",
        "the search was told 16 configs of other studies; by validation 3 of them would be on this front",
    ]


def test_latencies_fit_into_eighty_columns_with_the_machine_told_once() -> None:
    figures = {f"{name}{part}_ms": 0.123456 for name in ("latency", "dense") for part in ("", "_q1", "_q3")}
    more = {"same_runtime_dense_ms": None, "runtime_agreement": 1.0}
    machine = "x86_64 Some CPU 25/17/1 2 cores avx2 avx512f"
    evaluated = StageRecord(
        key="e", kind="evaluate", parent=None, seed=0, status="complete", busy_s=1.0, started_at=0.0, finished_at=1.0,
        artifact_sha256="net",
    )  # fmt: skip

    def observed(runtime: str, batch: int, status: str, error: str | None) -> StageRecord:
        return StageRecord(
            key=f"{runtime}{batch}", kind="latency", parent="e", seed=0, busy_s=1.0, started_at=0.0, finished_at=1.0,
            status=status, error=error, metrics={**figures, **more} if status == "complete" else {},  # pyright: ignore[reportArgumentType]
            config={"runtime": runtime, "batch": batch, "threads": 1}, parent_sha256="net", machine=machine,
        )  # fmt: skip

    taken = [
        *(observed("onnxruntime", batch, "complete", None) for batch in (1, 256)),
        *(observed("packed", batch, "infeasible", "the packed runtime wants few bits") for batch in (1, 256)),
    ]
    terminal = console(80, terminal=True)
    records = {one.key: one for one in (evaluated, *taken)}
    reports._latencies(terminal, ["e"], records)  # pyright: ignore[reportPrivateUsage]
    shown = printed(terminal)
    assert shown.count(machine) == 1
    assert shown.count("wants few bits") == 1, "once a runtime"
    assert "0.123 (0.123-0.123)" in shown
    assert "100.00 %" in shown
    assert "complete" not in shown
    rows = [line for line in shown.splitlines() if line.startswith("│")]
    assert len(rows) == 4, "no row is folded"


def test_a_hash_in_a_front_is_a_short_one() -> None:
    text = fronts._cell({"model.code_sha256": "0123456789abcdef" * 4}, "model.code_sha256")  # pyright: ignore[reportPrivateUsage]
    assert text == "0123456789ab"
