"""What a study says of resources and retries becomes what its stages are given, or a fault with its place."""

from pathlib import Path

import pytest
from study_files import HEAD, faults, load

from orchestrator.failures import RETRIES
from orchestrator.plan import plan
from orchestrator.spec import load as loading
from orchestrator.spec.demands import absent_gpu, decided_auto, written_auto
from orchestrator.spec.model import StudySpec
from orchestrator.spec.quantities import seconds, show_bytes, size
from orchestrator.spec.resources import Demand


def spec(folder: Path, line: str, *overrides: str) -> StudySpec:
    return load(folder, HEAD + line + "\n", *overrides)


def test_a_kind_of_stage_has_what_it_says_and_else_what_the_worker_has(tmp_path: Path) -> None:
    found = spec(
        tmp_path,
        "resources: {cpus: 2, memory: 2GiB, timeout: 2h, train: {memory: 1.5GiB, timeout: 90}, evaluate: {cpus: 1}}",
    ).resources
    assert found.of("compress") == found.worker == Demand(2, 0, 2 * 2**30, "cpu", 7200)
    assert found.of("train") == Demand(2, 0, 3 * 2**29, "cpu", 90)
    assert found.of("evaluate") == Demand(1, 0, 2 * 2**30, "cpu", 7200)


@pytest.mark.parametrize(
    ("line", "cuda", "train", "evaluate"),
    [
        ("resources: {gpus: 0.25}", False, ("cuda", 0.25), ("cuda", 0.25)),
        ("resources: {device: cuda}", False, ("cuda", 1), ("cuda", 1)),
        ("resources: {device: auto, gpus: 0.5}", True, ("cuda", 0.5), ("cuda", 0.5)),
        ("resources: {device: auto, gpus: 0.5}", False, ("cpu", 0), ("cpu", 0)),
        ("resources: {device: auto, gpus: 0}", True, ("cpu", 0), ("cpu", 0)),
        ("resources: {gpus: 0.25, evaluate: {device: cpu}}", True, ("cuda", 0.25), ("cpu", 0)),
        ("resources: {gpus: 0.25, evaluate: {gpus: 0}}", True, ("cuda", 0.25), ("cpu", 0)),
        ("resources: {evaluate: {gpus: 1}}", False, ("cpu", 0), ("cuda", 1)),
        ("resources: {device: cpu, train: {device: auto}}", True, ("cuda", 1), ("cpu", 0)),
    ],
)
def test_device_and_gpus_follow_from_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, cuda: bool, train: object, evaluate: object
) -> None:
    monkeypatch.setattr(loading, "cuda_here", lambda: cuda)
    found = spec(tmp_path, line)
    given = [(demand.device, demand.gpus) for demand in map(found.resources.of, ("train", "evaluate"))]
    assert given == [train, evaluate]
    monkeypatch.setattr(loading, "cuda_here", lambda: not cuda)
    again = load(tmp_path, found.text())
    assert again.resources == found.resources, "the study as it runs is the same study on another machine"


def test_a_share_by_need_begins_with_a_whole_gpu(tmp_path: Path) -> None:
    demand = spec(tmp_path, "resources: {gpus: auto, evaluate: {gpus: 0.5}}").resources
    assert (demand.worker.gpus, demand.worker.packed) == (1, True)
    assert (demand.of("evaluate").gpus, demand.of("evaluate").packed) == (0.5, False)


def test_the_device_of_each_kind_is_part_of_its_keys_alone(tmp_path: Path) -> None:
    def keys(line: str) -> dict[str, set[str]]:
        stages = plan(spec(tmp_path, line), lambda _: "fp32").stages.values()
        return {kind: {s.key for s in stages if s.kind == kind} for kind in ("train", "compress", "evaluate")}

    cpu, cuda = keys("resources: {cpus: 1}"), keys("resources: {gpus: 1}")
    mixed = keys("resources: {gpus: 1, evaluate: {device: cpu}}")
    assert all(not cpu[kind] & cuda[kind] for kind in cpu)
    assert (mixed["train"], mixed["compress"]) == (cuda["train"], cuda["compress"])
    assert not mixed["evaluate"] & (cuda["evaluate"] | cpu["evaluate"])
    assert keys("resources: {memory: 1GiB, timeout: 1h}\nretry: {lost: 9}") == cpu


def test_a_search_is_the_same_search_however_patiently_it_is_run(tmp_path: Path) -> None:
    line = "axes: {compress.pfr: {uniform: [0, 0.5]}}\nsearch: {name: tpe, trials: 3}\n"
    assert spec(tmp_path, line).search_name == spec(tmp_path, line + "retry: {lost: 5}").search_name


def test_retries_are_those_of_the_study_and_else_the_usual(tmp_path: Path) -> None:
    assert spec(tmp_path, "").retry.times == RETRIES
    found = spec(tmp_path, "retry: {lost: 5, bug: 1, oom: {memory: [2GiB, 4GiB]}, timeout: {after: [1h, 4h]}}").retry
    assert found.times == {**RETRIES, "lost": 5, "bug": 1, "oom": 2, "timeout": 2}
    assert found.memory == (2 * 2**30, 4 * 2**30)
    assert found.timeouts_s == (3600, 14400)


def test_they_can_be_set_from_the_command_line(tmp_path: Path) -> None:
    found = spec(
        tmp_path, "", "resources.train.memory=2GiB", "resources.timeout=1min", "retry.lost=0", "retry.oom.memory=[3GiB]"
    )
    assert found.resources.of("train").memory == 2 * 2**30
    assert found.resources.of("train").timeout_s == 60
    assert (found.retry.times["lost"], found.retry.memory) == (0, (3 * 2**30,))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("resources: {memory: 2}", "resources.memory: 2 must be a size such as 2GiB"),
        ("resources: {memory: 2Gb}", "resources.memory: '2Gb' must be a size"),
        ("resources: {memory: 0GiB}", "resources.memory: '0GiB' must be a size"),
        ("resources: {timeout: 0}", "resources.timeout: 0 must be a duration such as 90s, 30min or 2h"),
        ("resources: {timeout: .inf}", "resources.timeout: .inf is no finite number"),
        ("resources: {device: gpu}", "resources.device: 'gpu' is not known; valid: cpu, cuda, auto"),
        ("resources: {device: tpu}", "resources.device: 'tpu' is not known; valid: cpu, cuda, auto"),
        ("resources: {device: cpu, gpus: 1}", "resources.gpus: device cpu takes no GPU; leave one of them out"),
        ("resources: {device: cuda, gpus: 0}", "resources.gpus: device cuda needs a GPU, or a share of one"),
        ("resources: {gpus: 1.5}", "resources.gpus: 1.5 is more than one GPU and no whole number of them"),
        ("resources: {trian: {cpus: 1}}", "resources.trian: unknown key; did you mean 'train'?"),
        ("resources: {train: {cpu: 1}}", "resources.train.cpu: unknown key; did you mean 'cpus'?"),
        ("resources: {train: 3}", "resources.train: 3 must be a mapping"),
        ("retry: {diverged: 1}", "retry.diverged: 1 must be 0: the same numbers would diverge again"),
        ("retry: {storage: 1}", "retry.storage: ends the sweep at once, as nothing could be kept; leave it out"),
        ("retry: {lots: 1}", "retry.lots: unknown key; did you mean 'lost'?"),
        ("retry: {lost: -1}", "retry.lost: -1 must be a whole number of 0 to 1,000,000"),
        ("retry: {oom: {memory: []}}", "retry.oom.memory: must be a list of steps, such as [2GiB, 4GiB]"),
        ("retry: {oom: {memory: [2GiB, 1GiB]}}", "retry.oom.memory[1]: '1GiB' must be more than the step before it"),
        ("retry: {timeout: {after: [soon]}}", "retry.timeout.after[0]: 'soon' must be a duration"),
    ],
)
def test_a_wrong_value_is_told_with_its_place(tmp_path: Path, line: str, told: str) -> None:
    (found,) = faults(tmp_path, HEAD + line + "\n")
    assert found.startswith("line 6, column ")
    assert told in found


@pytest.mark.parametrize(
    "line",
    [
        "{device: cuda}", "{gpus: 0.5}", "{device: cuda, gpus: 2}", "{gpus: auto}", "{train: {device: cuda}}",
        "{gpus: 1, train: {device: cuda, gpus: 0.25}, evaluate: {device: cpu}}", "{device: cuda, select: {gpus: 1}}",
    ],
)  # fmt: skip
def test_what_is_advised_where_no_gpu_is_leads_to_the_cpu(tmp_path: Path, line: str) -> None:
    told = absent_gpu(spec(tmp_path, f"resources: {line}").tree["resources"])
    sets = [word for word in told.split() if word.startswith("resources.") and "=" in word]
    found = spec(tmp_path, f"resources: {line}", *sets).resources
    assert {demand.device for demand in found.demands} == {"cpu"}
    assert {demand.gpus for demand in found.demands} == {0}


@pytest.mark.parametrize("cuda", [False, True])
@pytest.mark.parametrize(
    "line", ["{device: auto}", "{device: auto, gpus: 0.5}", "{device: auto, gpus: 0}", "{train: {device: auto}}"]
)
def test_auto_is_decided_as_where_such_a_machine_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, cuda: bool
) -> None:
    monkeypatch.setattr("orchestrator.spec.load.cuda_here", lambda: cuda)
    there = spec(tmp_path, f"resources: {line}").resources
    monkeypatch.setattr("orchestrator.spec.load.cuda_here", lambda: not cuda)
    written = loading.load_spec(str(tmp_path / "study.yaml"), elsewhere=True).tree["resources"]
    assert written_auto(written)
    assert spec(tmp_path, f"resources: {line}", *decided_auto(written, cuda=cuda)).resources == there


def test_amounts() -> None:
    assert [size(text) for text in ("512MiB", "1.5 GiB", "2GB")] == [2**29, 3 * 2**29, 2 * 10**9]
    assert [size(value) for value in ("GiB", "1gib", "-1GiB", "1e3GiB", True, None, "9" * 30 + "GiB")] == [None] * 7
    assert [seconds(value) for value in ("90s", "30min", "1.5h", 12, 0.5)] == [90, 1800, 5400, 12, 0.5]
    assert [seconds(value) for value in ("0s", -1, True, "1 week", float("nan"))] == [None] * 5
    assert [show_bytes(count) for count in (2 * 2**30, 3 * 2**29, 300 * 2**20)] == ["2 GiB", "1.5 GiB", "300 MiB"]
