"""What follows from a failure: another attempt with more, or none; and which errors are one and the same."""

from collections.abc import Sequence

import pytest
from test_schedule import forest

from orchestrator.failures import RETRIES, Failure
from orchestrator.ledger import StageRecord
from orchestrator.runner.packing import CONTEXT_BYTES, MARGIN, PARTS, GpuNeeds, share_for
from orchestrator.runner.retries import Retries, is_settled
from orchestrator.runner.same_errors import SameErrors
from orchestrator.spec.resources import Demand, Resources, Retry
from orchestrator.words import signature

GIB = 2**30
STAGE = forest(1, [0.4])[0]


def failed(failure: Failure, error: str = "", memory: int | None = None, timeout: float | None = None) -> StageRecord:
    return StageRecord(
        key=STAGE.key, kind="train", parent=None, seed=0, status="failed", failure=failure, error=error, busy_s=0.0,
        started_at=0.0, finished_at=0.0, memory_limit=memory, timeout_s=timeout,
    )  # fmt: skip


def ladder(retries: Retries, failure: Failure) -> list[Demand]:
    """What each attempt was given, until there is no other."""
    given = [retries.demand(STAGE)]
    while retries.again(STAGE, failure):
        given.append(retries.demand(STAGE))
    return given


@pytest.mark.parametrize("failure", ["bug", "data", "diverged", "export", "storage"])
def test_what_would_repeat_itself_is_not_tried_again(failure: Failure) -> None:
    assert not Retries().again(STAGE, failure)


def test_classes_are_counted_apart() -> None:
    retries = Retries()
    for failure in ("lost", "oom", "timeout", "lost", "preempted"):
        assert retries.again(STAGE, failure)
    assert not retries.again(STAGE, "lost")
    assert retries.earlier(STAGE.key) == ("lost", "oom", "timeout", "lost", "preempted")
    assert retries.attempt(STAGE.key) == 6
    assert retries.again(STAGE, "preempted")


def test_memory_rises_by_the_ladder_and_ends_with_it() -> None:
    rules = Retry({**RETRIES, "oom": 3}, memory=(2 * GIB, 4 * GIB, 8 * GIB))
    retries = Retries(rules, Resources(Demand(memory=2 * GIB)))
    assert [demand.memory for demand in ladder(retries, "oom")] == [2 * GIB, 4 * GIB, 8 * GIB]
    assert [demand.memory for demand in ladder(Retries(rules), "oom")] == [None, 2 * GIB, 4 * GIB, 8 * GIB]


def test_without_a_ladder_memory_doubles_as_often_as_is_allowed() -> None:
    retries = Retries(Retry({**RETRIES, "oom": 2}), Resources(Demand(memory=GIB)))
    assert [demand.memory for demand in ladder(retries, "oom")] == [GIB, 2 * GIB, 4 * GIB]


def test_no_more_is_asked_than_the_largest_machine_has() -> None:
    retries = Retries(Retry({**RETRIES, "oom": 9}), Resources(Demand(memory=GIB)))
    retries.most_memory = 5 * GIB
    assert [demand.memory for demand in ladder(retries, "oom")] == [GIB, 2 * GIB, 4 * GIB]


def test_time_rises_by_its_ladder_and_stays_without_one() -> None:
    own = Resources(Demand(timeout_s=60))
    longer = Retries(Retry({**RETRIES, "timeout": 2}, timeouts_s=(60, 120, 600)), own)
    assert [demand.timeout_s for demand in ladder(longer, "timeout")] == [60, 120, 600]
    assert [demand.timeout_s for demand in ladder(Retries(Retry(), own), "timeout")] == [60, 60]


@pytest.mark.parametrize(
    ("record", "demand", "rules", "settled"),
    [
        (failed("diverged"), Demand(), Retry(), True),
        (failed("bug"), Demand(), Retry(), False),
        (failed("lost"), Demand(), Retry(), False),
        (failed("preempted"), Demand(), Retry(), False),
        (failed("oom"), Demand(memory=GIB), Retry(), False),
        (failed("oom", memory=GIB), Demand(memory=GIB), Retry({**RETRIES, "oom": 0}), True),
        (failed("oom", memory=GIB), Demand(memory=GIB), Retry(), False),
        (failed("oom", memory=2 * GIB), Demand(memory=GIB), Retry(), True),
        (failed("oom", memory=2 * GIB), Demand(memory=GIB), Retry(memory=(4 * GIB,)), False),
        (failed("oom", memory=4 * GIB), Demand(memory=GIB), Retry(memory=(4 * GIB,)), True),
        (failed("oom", memory=4 * GIB), Demand(), Retry(), False),
        (failed("timeout", timeout=60), Demand(timeout_s=60), Retry(), True),
        (failed("timeout", timeout=60), Demand(timeout_s=61), Retry(), False),
        (failed("timeout", timeout=60), Demand(timeout_s=60), Retry(timeouts_s=(90,)), False),
        (failed("timeout", timeout=60), Demand(), Retry(), False),
    ],
)
def test_a_later_run_tries_again_what_now_is_given_more(
    record: StageRecord, demand: Demand, rules: Retry, settled: bool
) -> None:
    assert is_settled(record, Resources(demand), rules) is settled


def test_the_smallest_share_of_a_gpu_in_which_all_who_share_it_have_their_place() -> None:
    gpu = 80 * GIB
    for need in (GIB // 2, GIB, 5 * GIB, 12 * GIB, 30 * GIB, 60 * GIB):
        share = share_for(need, gpu)
        held = need * MARGIN + CONTEXT_BYTES
        assert held / gpu <= share
        smaller = [1 / parts for parts in PARTS if 1 / parts < share]
        assert not smaller or held / gpu > max(smaller)
    assert share_for(GIB, gpu) == 1 / max(PARTS)
    assert share_for(200 * GIB, gpu) == 1


def learnt(peaks: Sequence[int]) -> GpuNeeds:
    from orchestrator.estimate import workload

    records = [
        StageRecord(
            key=f"k{n}", kind="train", parent=None, seed=0, status="complete", busy_s=1.0, started_at=0.0,
            finished_at=0.0, workload=workload(STAGE), peak_gpu_bytes=peak, gpu_bytes=80 * GIB,
        )
        for n, peak in enumerate(peaks)
    ]  # fmt: skip
    return GpuNeeds(records)


def test_a_stage_has_a_whole_gpu_until_its_like_was_seen_and_then_what_the_hungriest_of_them_held() -> None:
    assert GpuNeeds().share(STAGE) == 1
    assert learnt([2 * GIB, 24 * GIB, 3 * GIB]).share(STAGE) == share_for(24 * GIB, 80 * GIB) == 1 / 2
    other = forest(1, [0.4])[1]
    assert learnt([GIB]).share(other) == 1


def test_a_packed_stage_that_ran_out_of_memory_gets_a_whole_gpu() -> None:
    retries = Retries(Retry(), Resources(Demand(gpus=1, device="cuda", packed=True)))
    retries.needs = learnt([GIB])
    assert retries.demand(STAGE).gpus == 1 / max(PARTS)
    assert retries.again(STAGE, "oom")
    assert retries.demand(STAGE).gpus == 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ValueError: bad 3", "ValueError: bad 17.5", True),
        ("no file /tmp/a/1.png", "no file /home/x/2.png", True),
        ("stage 9170a50e181d3d28 is gone", "stage 0a70a50e181d3d99 is gone", True),
        ("it held 1.2 GiB of 1,024 MiB", "it held 7 GiB of 2,048 MiB", True),
        ("ValueError: bad 3", "TypeError: bad 3", False),
        ("lost a worker", "lost a node", False),
    ],
)
def test_errors_are_alike_but_for_numbers_keys_and_paths(one: str, other: str, same: bool) -> None:
    assert (signature(one) == signature(other)) is same


def test_the_kth_of_one_error_is_one_too_many() -> None:
    same = SameErrors(3)
    assert [same.seen(failed("bug", f"bad {n}")) for n in range(2)] == [None, None]
    assert same.seen(failed("oom", "bad 1")) is None
    assert same.seen(failed("bug", "bad 9")) == "3 stages failed alike (bug): bad 9"
    assert SameErrors(None).seen(failed("bug", "bad")) is None
