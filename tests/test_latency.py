"""Latencies: timed beside one another, observed once a machine, and never part of what a trial is."""

import contextlib
import dataclasses
import gc
import io
import sys
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY, Command

from orchestrator import quiet
from orchestrator.cli import main
from orchestrator.compaction import trial_table
from orchestrator.errors import RunError
from orchestrator.fingerprint import describe, this_machine
from orchestrator.layout import Layout
from orchestrator.ledger import StageRecord, replay
from orchestrator.observations import Observation, Site, here, latency_row, missing, of_trial, outputs_needed, wanted
from orchestrator.plan import Plan, plan
from orchestrator.quiet import GIVE_UP_AFTER, QuietPass, check_possible
from orchestrator.spec.load import load_spec
from orchestrator.timing import Child
from trainables.config import DataConfig, Runtime, TrialConfig
from trainables.errors import InfeasibleError
from trainables.keys import PathFinder
from trainables.measure.latency import TURN_NS, WARM_CALLS, time_interleaved
from trainables.measure.request import Answer, Request
from trainables.models.compact import Compact
from trainables.runtimes.base import Images, Logits, Predictor
from trainables.stages import latency, run_stage
from trainables.stages.datasets import Datasets

SERIAL = ("--runner", "serial")
ONE_CELL = TINY.replace("[0, 0.5]", "[0.5]").replace("[0.5, 0.7]", "[0.5]").replace("seeds: 2", "seeds: 1")
SECTION = "  latency: {runtimes: [openvino, onnxruntime], batch: [1, 4], repeats: 3}\naxes:\n"
TIMED = ONE_CELL.replace("axes:\n", SECTION)
SITE = Site("machine A", {"openvino": "1", "onnxruntime": "1", "numba": "1", "sweep-orchestrator": "1"})
IMAGES = np.zeros((1, 1, 2, 2), dtype=np.float32)


class Clock:
    """Time that passes only where a test lets it."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class Fake:
    """A network whose calls take the given nanoseconds one after the other, the last one for ever."""

    def __init__(self, clock: Clock, *spent: int, calls: list[str] | None = None, name: str = "") -> None:
        self.clock, self.spent, self.calls, self.name = clock, list(spent), calls, name

    def __call__(self, images: Images) -> Logits:
        self.clock.now += self.spent.pop(0) if len(self.spent) > 1 else self.spent[0]
        if self.calls is not None:
            self.calls.append(self.name)
        return images


def test_median_and_quartiles_are_those_of_single_calls_but_the_first_of_each_turn() -> None:
    clock = Clock()
    warm = [TURN_NS] * 2 * WARM_CALLS
    turns = [n * TURN_NS for counted in (4, 1, 3, 2, 5) for n in (50, counted)]
    found = time_interleaved({"net": Fake(clock, *warm, *turns)}, IMAGES, 5, clock)["net"]
    turn_ms = TURN_NS / 1e6
    assert (found.q1_ms, found.median_ms, found.q3_ms) == (2 * turn_ms, 3 * turn_ms, 4 * turn_ms)
    assert found.calls == 5


def test_a_turn_has_as_many_calls_as_fill_it() -> None:
    clock = Clock()
    found = time_interleaved({"fast": Fake(clock, TURN_NS // 7), "slow": Fake(clock, 3 * TURN_NS)}, IMAGES, 4, clock)
    assert (found["fast"].calls, found["slow"].calls) == (4 * 8, 4), "rounded up: a turn is never shorter"


def test_who_begins_changes_from_turn_to_turn_and_all_have_as_many() -> None:
    clock, calls = Clock(), list[str]()
    networks = {name: Fake(clock, TURN_NS, calls=calls, name=name) for name in "abc"}
    time_interleaved(networks, IMAGES, 6, clock)
    timed = "".join(calls[3 * 2 * WARM_CALLS :])
    assert timed == "aabbccbbccaaccaabb" * 2, "a call that finds the caches of another network, and one that counts"


def test_calls_that_still_get_faster_are_warm_up() -> None:
    clock = Clock()
    slow = [n * TURN_NS for n in (90, 80, 70, 20, 20, 20, 10, 10, 10)]
    found = time_interleaved({"net": Fake(clock, *slow, TURN_NS, TURN_NS)}, IMAGES, 3, clock)["net"]
    assert (found.q1_ms, found.q3_ms) == (TURN_NS / 1e6, TURN_NS / 1e6)


def test_warming_up_ends_though_calls_get_faster_for_ever() -> None:
    clock = Clock()
    falling = [int(1e9 * 0.9**n) for n in range(200)]
    net = Fake(clock, *falling)
    time_interleaved({"net": net}, IMAGES, 1, clock)
    assert len(net.spent) > 150


def test_the_collector_rests_while_timing_and_only_then() -> None:
    resting: list[bool] = []

    def watching(images: Images) -> Logits:
        resting.append(not gc.isenabled())
        if len(resting) > 20:
            raise ValueError
        return images

    with pytest.raises(ValueError):
        time_interleaved({"net": watching}, IMAGES, 5)
    assert all(resting)
    assert gc.isenabled()


def test_a_network_that_sleeps_longer_takes_longer() -> None:
    def sleeper(seconds: float) -> Predictor:
        def sleep(images: Images) -> Logits:
            time.sleep(seconds)
            return images

        return sleep

    found = time_interleaved({"short": sleeper(0.004), "long": sleeper(0.012)}, IMAGES, 5)
    assert found["short"].median_ms >= 4
    assert found["long"].median_ms >= 12
    assert 1.5 < found["long"].median_ms / found["short"].median_ms < 6


CPU = {"model name": "Some CPU", "cpu family": "25", "model": "17", "stepping": "1", "flags": "fpu avx2 avx512f sse"}


def test_a_fingerprint_says_what_the_runtimes_depend_on() -> None:
    assert describe("x86_64", CPU, 2) == "x86_64 Some CPU 25/17/1 2 cores avx2 avx512f"
    others = [describe("x86_64", CPU, 4), describe("x86_64", {**CPU, "model": "18"}, 2), describe("arm", {}, 2)]
    assert len({describe("x86_64", CPU, 2), *others}) == 4
    assert describe("x86_64", {**CPU, "flags": "avx512f avx2 fpu", "cpu MHz": "1"}, 2) == describe("x86_64", CPU, 2)
    assert this_machine() == this_machine() != ""


def planned(path: Path) -> Plan:
    return plan(load_spec(str(path)), lambda _: "fp32")


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return planned(Command(tmp_path_factory.mktemp("plan")).study(TIMED))


def evaluated(timed: Plan) -> dict[str, StageRecord]:
    """All stages complete, each with an output of its own."""
    return {
        key: StageRecord(
            key=key, kind=stage.kind, parent=stage.parent, seed=stage.seed, status="complete", busy_s=1.0,
            started_at=0.0, finished_at=1.0, artifact_sha256=f"sum of {key}", metrics={"accuracy": 0.5},
        )
        for key, stage in timed.stages.items()
    }  # fmt: skip


def test_a_latency_section_changes_no_key_no_id_and_no_plan(timed: Plan, command: Command) -> None:
    plain = planned(command.study(ONE_CELL))
    assert timed.digest == plain.digest
    assert list(timed.stages) == list(plain.stages)
    assert [trial.id for trial in timed.trials] == [trial.id for trial in plain.trials]
    assert all(trial.config.latency is not None for trial in timed.trials), "baselines are timed too"
    assert not wanted(plain)


def test_each_network_is_wanted_once_in_each_runtime_at_each_batch_size(timed: Plan) -> None:
    assert len(wanted(timed)) == 4 * 2 * 2
    records = evaluated(timed)
    keys = {one.key(records, SITE) for one in wanted(timed)}
    assert len(keys) == 16
    assert None not in keys


def test_trials_of_one_evaluation_share_its_observations(command: Command) -> None:
    shared = planned(command.study(TINY.replace("axes:\n", SECTION)))
    evaluations = {trial.path[-1] for trial in shared.trials}
    assert len(evaluations) < len(shared.trials)
    assert len(wanted(shared)) == 4 * len(evaluations)


def test_equal_networks_are_one_observation(timed: Plan) -> None:
    records = evaluated(timed)
    same = {key: msgspec.structs.replace(record, artifact_sha256="same") for key, record in records.items()}
    assert len(missing(timed, same, SITE)) == 4
    assert len(missing(timed, {}, SITE)) == 16, "before the networks are there, nobody knows"


def test_a_key_names_networks_protocol_machine_and_versions(timed: Plan) -> None:
    records = evaluated(timed)
    one = wanted(timed)[0]
    assert one.evaluate != one.dense
    changed = [
        one.key({**records, key: msgspec.structs.replace(records[key], artifact_sha256="other")}, SITE)
        for key in (one.evaluate, one.dense)
    ]
    protocols: list[dict[str, Any]] = [{"runtime": "packed"}, {"batch": 9}, {"threads": 9}, {"repeats": 9}]
    changed += [dataclasses.replace(one, **protocol).key(records, SITE) for protocol in protocols]
    changed.append(one.key(records, Site("machine B", SITE.versions)))
    changed.append(one.key(records, Site("machine A", {**SITE.versions, "openvino": "2"})))
    assert len({one.key(records, SITE), *changed}) == 1 + len(changed)
    assert one.key(records, Site("machine A", {**SITE.versions, "numba": "2"})) == one.key(records, SITE)
    # The data of a trial reach an observation through the networks, which hold their mean and deviation.
    assert dataclasses.replace(one, seed=9).key(records, SITE) == one.key(records, SITE)


def test_nothing_is_missing_of_what_can_never_be_observed(timed: Plan) -> None:
    records = evaluated(timed)
    train = next(key for key, stage in timed.stages.items() if stage.kind == "train")
    records[train] = msgspec.structs.replace(records[train], status="failed", failure="diverged", artifact_sha256=None)
    failed = {train: records[train]}
    assert missing(timed, failed, SITE) == []


def figures(latency_ms: float, same_ms: float | None = 3.0) -> dict[str, float | int | None]:
    return {
        "latency_ms": latency_ms, "latency_q1_ms": latency_ms - 0.5, "latency_q3_ms": latency_ms + 0.75,
        "dense_ms": 6.0, "same_runtime_dense_ms": same_ms, "runtime_agreement": 0.99, "calls": 30,
    }  # fmt: skip


def observed(records: Mapping[str, StageRecord], one: Observation, answer: Answer) -> dict[str, StageRecord]:
    key = one.key(records, SITE) or ""
    found = StageRecord(
        key=key, kind="latency", parent=one.evaluate, seed=one.seed, status=answer.status, busy_s=1.0, started_at=0.0,
        finished_at=1.0, failure=answer.failure, error=answer.error, metrics=answer.metrics, machine=SITE.machine,
    )  # fmt: skip
    return {**records, key: found}


COMPLETE = Answer(status="complete", busy_s=1.0)
EXPORT = Answer(status="failed", busy_s=1.0, failure="export", error="another class for 7 of 360 images, up to 3.5")
CANNOT = Answer(status="infeasible", busy_s=1.0, error="needs few bits")


def answered(timed: Plan, *answers: Answer) -> tuple[dict[str, Any], dict[str, StageRecord]]:
    """The row of the first trial when its observations have these answers, by batch and runtime."""
    records, trial = evaluated(timed), timed.trials[0]
    for one, answer in zip(of_trial(trial), answers, strict=False):
        records = observed(records, one, answer)
    return latency_row(trial, records, SITE), records


def test_the_row_shows_the_fastest_runtime_at_the_first_batch_size(timed: Plan) -> None:
    quick = COMPLETE.model_copy(update={"metrics": figures(2.0)})
    slow = COMPLETE.model_copy(update={"metrics": figures(4.0)})
    quickest = COMPLETE.model_copy(update={"metrics": figures(1.0)})
    row, _ = answered(timed, slow, quick, quickest, quickest)
    assert row == {
        "latency_ms": 2.0, "latency_iqr_ms": 1.25, "latency_ratio": 3.0, "latency_same_runtime_ratio": 1.5,
        "runtime_agreement": 0.99, "runtime": "onnxruntime", "latency_batch": 1, "latency_machine": "machine A",
    }  # fmt: skip


def test_the_row_waits_for_the_first_batch_size_asked_for(timed: Plan) -> None:
    later = [one for one in of_trial(timed.trials[0]) if one.batch == 4]
    records = observed(evaluated(timed), later[0], COMPLETE.model_copy(update={"metrics": figures(1.0)}))
    assert latency_row(timed.trials[0], records, SITE) == {"latency_error": None}


def test_a_ratio_without_a_dense_network_in_that_runtime_is_null(timed: Plan) -> None:
    row, _ = answered(timed, COMPLETE.model_copy(update={"metrics": figures(2.0, None)}))
    assert row["latency_ratio"] == 3.0
    assert row["latency_same_runtime_ratio"] is None


def test_a_runtime_that_cannot_leaves_the_row_to_the_others(timed: Plan) -> None:
    row, _ = answered(timed, CANNOT, COMPLETE.model_copy(update={"metrics": figures(2.0)}))
    assert row["runtime"] == "onnxruntime"
    lonely, _ = answered(timed, CANNOT)
    assert lonely == {"latency_error": "openvino: needs few bits"}


def test_an_export_whose_predictions_differ_fails_the_trial(timed: Plan) -> None:
    row, records = answered(timed, COMPLETE.model_copy(update={"metrics": figures(2.0)}), EXPORT)
    assert (row["status"], row["failure"]) == ("failed", "export")
    assert "7 of 360 images" in row["error"]
    assert "latency_ms" not in row
    table = trial_table(timed, records).to_pandas()
    assert table["latency_ms"].isna().all(), "of another machine"
    assert missing(timed, records, SITE) != [], "it is tried again"


class Watcher:
    """Notes what the pass tells its screen."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.counts: list[int] = []
        self.records: list[StageRecord] = []
        self.drained = False

    def warned(self, message: str) -> None:
        self.warnings.append(message)

    def measuring(self, observations: int, machine: str, remaining_s: float) -> None:
        assert machine == SITE.machine
        assert remaining_s > 0
        self.counts.append(observations)

    def measured(self, record: StageRecord, remaining_s: float) -> None:
        assert remaining_s >= 0
        self.records.append(record)

    def draining(self, urgent: bool) -> None:
        self.drained = True


class Bench:
    """Stands for the processes: answers what it is told to, and counts how often it was started."""

    def __init__(self, answer: Callable[[Request], Answer | str]) -> None:
        self.starts = 0
        self._answer = answer

    def ask(self, request: Request) -> Answer | str:
        return self._answer(request)

    @contextlib.contextmanager
    def started(self) -> Generator["Bench"]:
        self.starts += 1
        yield self


def stored(timed: Plan, layout: Layout) -> dict[str, StageRecord]:
    """All stages complete, their outputs in the store."""
    sums = {key: layout.artifacts.write(key, key.encode()) for key in timed.stages}
    return {key: msgspec.structs.replace(record, artifact_sha256=sums[key]) for key, record in evaluated(timed).items()}


def passed(timed: Plan, folder: Path, answer: Callable[[Request], Answer | str]) -> tuple[QuietPass, Watcher, Bench]:
    layout = Layout(folder)
    watcher, bench = Watcher(), Bench(answer)
    return (
        QuietPass(timed, layout, stored(timed, layout), "run", watcher, SITE, bench.started), watcher, bench,
    )  # fmt: skip


def quick(request: Request) -> Answer:
    return COMPLETE.model_copy(update={"metrics": figures(float(request.batch))})


def test_the_pass_commits_every_observation_and_the_next_one_takes_none(timed: Plan, tmp_path: Path) -> None:
    first, watcher, bench = passed(timed, tmp_path, quick)
    first.run()
    assert (first.taken, watcher.counts, watcher.warnings) == (16, [16], [])
    assert bench.starts == 2, "a process a runtime"
    kept = {key: record for key, record in replay(Layout(tmp_path).ledger).records.items() if record.kind == "latency"}
    assert len(kept) == 16
    assert {record.machine for record in kept.values()} == {SITE.machine}
    again = {**first.records, **kept}
    assert missing(timed, again, SITE) == []
    assert len(missing(timed, again, Site("machine B", SITE.versions))) == 16


def test_a_process_that_dies_costs_one_observation(timed: Plan, tmp_path: Path) -> None:
    asked: list[Request] = []

    def dies_once(request: Request) -> Answer | str:
        asked.append(request)
        return "it died" if len(asked) == 3 else quick(request)

    once, watcher, bench = passed(timed, tmp_path, dies_once)
    once.run()
    assert (once.taken, bench.starts) == (16, 3)
    assert [record.failure for record in watcher.records].count("lost") == 1
    assert any("it died" in warning for warning in watcher.warnings)
    assert len(missing(timed, once.records, SITE)) == 1, "it is tried again"


def test_the_pass_gives_up_where_every_process_dies(timed: Plan, tmp_path: Path) -> None:
    hopeless, watcher, bench = passed(timed, tmp_path, lambda _: "it died")
    hopeless.run()
    assert (hopeless.taken, bench.starts) == (GIVE_UP_AFTER, GIVE_UP_AFTER)
    assert "no more latency is measured" in watcher.warnings[-1]


def test_a_failed_latency_is_told_once_a_network_and_runtime_by_its_trial(timed: Plan, tmp_path: Path) -> None:
    def refused(request: Request) -> Answer:
        return Answer(status="failed", failure="export", busy_s=0.1, error="the same class on 90.00 % of the images")

    failing, watcher, _ = passed(timed, tmp_path, refused)
    failing.run()
    assert (failing.taken, len(watcher.warnings)) == (16, 8), "4 networks in 2 runtimes, not at 2 batch sizes"
    for trial in timed.trials:
        assert sum(f"trial {trial.id} in " in warning for warning in watcher.warnings) == 2


def test_draining_keeps_what_was_taken(timed: Plan, tmp_path: Path) -> None:
    def drains(request: Request) -> Answer:
        stopped.drain()
        return quick(request)

    stopped, watcher, _ = passed(timed, tmp_path, drains)
    stopped.run()
    assert (stopped.taken, watcher.drained) == (1, True)
    assert len(missing(timed, stopped.records, SITE)) == 15


def test_a_network_that_is_gone_is_told_and_left_out(timed: Plan, tmp_path: Path) -> None:
    lacking, watcher, _ = passed(timed, tmp_path, quick)
    gone = timed.trials[0].path[-1]
    Layout(tmp_path).artifacts.path(gone).unlink()
    lacking.run()
    assert lacking.taken == 12
    (warning,) = watcher.warnings
    assert f"trial {timed.trials[0].id} is gone" in warning, "once, by a name that `show` knows"
    assert gone in outputs_needed(missing(timed, lacking.records, SITE)), "the next sweep makes it again"


REQUEST = Request(
    network="nowhere", dense="nowhere", data=DataConfig(name="digits"), seed=0, runtime="openvino", batch=1, threads=1,
    repeats=1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import os, sys; sys.stdin.readline(); sys.stderr.write('no memory'); sys.stderr.flush(); os._exit(3)",
            "code 3",
        ),
        ("import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 11)", "code -11"),
        ("import sys; sys.stdin.readline(); print('no answer', flush=True)", "code"),
        ("", "code 0"),
        ("import time; time.sleep(60)", "code -9"),
    ],
)
def test_whatever_a_process_does_it_is_told_in_words(code: str, message: str) -> None:
    with Child([sys.executable, "-c", code], limit_s=0.5) as child:
        time.sleep(0.1)
        found = child.ask(REQUEST)
    assert isinstance(found, str)
    assert message in found
    assert ("no memory" in found) == ("no memory" in code)


def test_what_this_machine_cannot_measure_is_refused(timed: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    observations = missing(timed, {}, here())
    check_possible(observations, 1)
    with pytest.raises(RunError, match=r"latency.threads 4 is more than the 2 cores"):
        check_possible([dataclasses.replace(observations[0], threads=4)], 2)
    monkeypatch.setattr(quiet, "find_spec", lambda name: None if name == "openvino" else object())
    with pytest.raises(RunError, match=r'without openvino: pip install "sweep-orchestrator\[deploy\]"') as caught:
        check_possible(observations, 1)
    assert "\n" not in str(caught.value)
    check_possible([], 1)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Packed files of a binary network and of its dense parent."""
    torch.set_num_threads(1)
    folder, datasets = tmp_path_factory.mktemp("packed"), Datasets(Path("data"))
    base = planned(Command(folder).study(ONE_CELL))
    found: dict[str, str] = {}
    for name in ("dense", "binary"):
        trial = next(trial for trial in base.trials if trial.baseline == name)
        artifact = None
        for stage in PathFinder().path(trial.config, trial.seed):
            artifact = run_stage(stage, datasets.of(stage.config.data, stage.seed), artifact).artifact
        (folder / name).write_bytes(artifact or b"")
        found[name] = str(folder / name)
    return found


def requested(packed: Mapping[str, str], timed: Plan, **changes: object) -> Request:
    config: TrialConfig = timed.trials[0].config
    plain = {"network": packed["binary"], "dense": packed["dense"], "data": config.data, "seed": 0}
    how = {"runtime": "openvino", "batch": 2, "threads": 1, "repeats": 2}
    return Request.model_validate({**plain, **how, **changes})


def fake_runtimes(wrong: Runtime | None) -> Callable[[Runtime, Compact, torch.Tensor, int], Predictor]:
    """Every runtime is torch; `wrong` turns the classes around, and packed refuses networks of many bits."""

    def open_network(runtime: Runtime, network: Compact, calibration: torch.Tensor, threads: int) -> Predictor:
        if runtime == "packed" and not network.bits:
            raise InfeasibleError("no few bits")
        assert calibration.shape[1:] == (1, 8, 8)

        @torch.no_grad()
        def predict(images: Images) -> Logits:
            found = network.model(torch.from_numpy(images))
            return (-found if runtime == wrong else found).numpy()

        return predict

    return open_network


@pytest.mark.parametrize(("runtime", "same"), [("openvino", True), ("onnxruntime", True), ("packed", False)])
def test_a_network_is_timed_beside_its_dense_parent(
    packed: Mapping[str, str], timed: Plan, monkeypatch: pytest.MonkeyPatch, runtime: Runtime, same: bool
) -> None:
    monkeypatch.setattr(latency, "open_network", fake_runtimes(None))
    found = latency.answer(requested(packed, timed, runtime=runtime), latency.Bench(Path("data")))
    assert found.status == "complete", found.error
    assert found.metrics["runtime_agreement"] == 1
    for name in ("latency", "dense", *(["same_runtime_dense"] if same else [])):
        q1, median, q3 = (found.metrics[f"{name}{part}"] for part in ("_q1_ms", "_ms", "_q3_ms"))
        assert 0 < (q1 or 0) <= (median or 0) <= (q3 or 0)
    assert (found.metrics["same_runtime_dense_ms"] is not None) == same
    assert (found.metrics["same_runtime_dense_ms"] == found.metrics["dense_ms"]) == (runtime == "openvino")


def test_an_export_that_predicts_otherwise_is_an_answer_with_the_size_of_the_difference(
    packed: Mapping[str, str], timed: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "open_network", fake_runtimes("onnxruntime"))
    bench = latency.Bench(Path("data"))
    found = latency.answer(requested(packed, timed, runtime="onnxruntime"), bench)
    assert (found.status, found.failure) == ("failed", "export")
    assert "of 360 images" in (found.error or "")
    assert latency.answer(requested(packed, timed), bench).status == "complete", "the others go on"


def test_a_network_that_no_runtime_takes_is_infeasible_and_a_lost_file_is_told(
    packed: Mapping[str, str], timed: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "open_network", fake_runtimes(None))
    bench = latency.Bench(Path("data"))
    refused = latency.answer(requested(packed, timed, network=packed["dense"], runtime="packed"), bench)
    assert (refused.status, refused.error) == ("infeasible", "no few bits")
    lost = latency.answer(requested(packed, timed, network="nowhere"), bench)
    assert (lost.status, lost.failure) == ("failed", "data")
    assert "nowhere" in (lost.error or "")


def said(command: Command, *words: object) -> str:
    """What a command prints; in this process, which has the heavy libraries loaded."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([*map(str, words), "--results", str(command.folder / "results")]) == 0
    return printed.getvalue()


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Command, pd.DataFrame, str]:
    """The study swept without latency, then with it: the command, the first table and what the second one said."""
    command = Command(tmp_path_factory.mktemp("latency"))
    study = command.study(ONE_CELL)
    said(command, "sweep", study, *SERIAL)
    before = command.trials()
    command.study(TIMED.replace("[openvino, onnxruntime]", "[openvino]"))
    return command, before, said(command, "sweep", study, *SERIAL)


def test_a_section_added_to_a_finished_study_only_measures(
    swept: tuple[Command, pd.DataFrame, str], deterministic: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    command, before, told = swept
    assert "0 stages ran, 8 cached, 8 latencies measured" in told
    assert f"measuring 8 latencies on this machine alone: {this_machine()}" in told
    df = command.trials()
    assert (df["status"] == "complete").all()
    assert (df["latency_ms"] > 0).all()
    assert (df["latency_ratio"] == df["latency_same_runtime_ratio"]).all()
    assert df["runtime"].eq("openvino").all()
    assert df["runtime_agreement"].between(0.98, 1).all()
    assert df["latency.batch"].eq("1,4").all()
    after = deterministic(df)
    pd.testing.assert_frame_equal(after[list(deterministic(before).columns)], deterministic(before), check_exact=True)
    observations = pd.read_parquet(command.folder / "results" / "tiny" / "_latency.parquet")
    joined = observations.merge(df, on="stage_keys.evaluate", suffixes=("", "_row"))
    assert len(joined) == len(observations) == 8
    first = joined[joined["batch"] == 1]
    assert (first["latency_ms"] == first["latency_ms_row"]).all()


def test_what_was_measured_is_shown_and_not_measured_again(swept: tuple[Command, pd.DataFrame, str]) -> None:
    command, _, _ = swept
    study = command.folder / "tiny.yaml"
    assert "latency: 0 of 8 observations to measure" in said(command, "plan", study)
    table = command.folder / "results" / "tiny" / "trials.parquet"
    kept = table.read_bytes()
    assert "measured" not in said(command, "sweep", study, *SERIAL)
    assert table.read_bytes() == kept
    shown = said(command, "show", command.trials()["trial_id"].iloc[0])
    assert "latency_ratio" in shown
    assert "openvino" in shown
    more = ("--set", "base.latency.repeats=4")
    assert "latency: 8 of 8 observations to measure, about" in said(command, "plan", study, *more)
    assert "measured" not in said(command, "sweep", study, *SERIAL, "--no-latency", *more)
    assert command.trials()["latency_ms"].isna().all(), "null until measured"
